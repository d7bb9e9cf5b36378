# mypy: ignore-errors
# Runs where none of this is installed: river, and without types.
"""Prints river's series with people's marks, and where river's detectors signal; all as one JSON text.

It stands alone, in an environment that has river: nothing of Trilith is there.
"""

import json
import statistics
import time
from importlib.metadata import version

from river import drift
from river.drift import datasets

_LEARNT = 28
_THINNED = {"BrentSpotPrice": 10, "Apple": 3}
"""The marks count every so many rows (the docstring of the first; the lengths in the data set's paper)."""
DETECTORS = {
    "river: ADWIN": drift.ADWIN,
    "river: PageHinkley": drift.PageHinkley,
    "river: KSWIN": lambda: drift.KSWIN(seed=0),
}


def series(name, dataset):
    """Return the first column, scaled by its first values."""
    values = []
    for _, y in dataset:
        values.append(float(next(iter(y.values())) if isinstance(y, dict) else y))
    values = values[:: _THINNED.get(name, 1)]
    first = values[:_LEARNT]
    centre, spread = statistics.fmean(first), statistics.stdev(first) or 1.0
    return [(value - centre) / spread for value in values]


def signals(make, values):
    """Return the rows at which a detector signals; it begins anew after each."""
    detector, found = make(), []
    for row, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            found.append(row)
            detector = make()
    return found


def main():
    """Run all."""
    told = {}
    for name in datasets.__all__:
        dataset = getattr(datasets, name)()
        values = series(name, dataset)
        one = {"values": values, "marks": list(dataset.annotations.values()), "signals": {}, "cpu_ms": {}}
        for detector, make in DETECTORS.items():
            began = time.process_time()
            one["signals"][detector] = signals(make, values)
            one["cpu_ms"][detector] = (time.process_time() - began) * 1000
        told[name] = one
    print(json.dumps({"series": told, "version": version("river")}))


if __name__ == "__main__":
    main()
