"""Change points that people marked: our sequential test beside river's detectors, one value after the other.

`python -m bench.evals.drift_points --river DIR`, DIR an environment that has river (`venv-river`). The
series are those that river carries (`river.drift.datasets`), from the Turing change point data set (van den
Burg and Williams 2020), each with the marks of five people; where it holds rows that the marks do not count
(Brent's and Apple's series were thinned to every 10th and 3rd row), the same rows are taken. Of several
columns the first counts. A change point is where two people or more marked, within 10 rows.

The first signal between a change point and the next one is its detection; every other signal is false. All
begin anew after a signal. Every series is scaled by its first 28 values, as some of the detectors have limits
in the series' own unit. Nothing is tuned: river's detectors have their defaults, and ours the monitor's (28
windows are the reference, one false alarm in 30 windows at most, rise and fall share it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from bench.gateway.report import table

from trilith_evals.online.sequential import EDetector, Level

_ALIKE = 10
_LEARNT = 28
_BUDGET = 30


def points(marks: Iterable[Sequence[int]]) -> list[int]:
    """Return where two people or more marked a change, within a few rows."""
    given = sorted((row, person) for person, rows in enumerate(marks) for row in rows)
    groups: list[list[tuple[int, int]]] = []
    for mark in given:
        if groups and mark[0] - groups[-1][0][0] <= _ALIKE:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    return [
        int(np.median([row for row, _ in group]))
        for group in groups
        if len({person for _, person in group}) > 1
    ]


def ours(series: Sequence[float]) -> list[int]:
    """Return the rows at which the test says that the mean rose or fell."""
    signals: list[int] = []
    learnt: list[float] = []
    tests: list[tuple[float, EDetector]] = []
    for row, value in enumerate(series):
        if not tests:
            learnt.append(value)
            if len(learnt) == _LEARNT:
                tests = [
                    (sign, EDetector(Level.of([sign * v for v in learnt]), 1 / _BUDGET / 2))
                    for sign in (1.0, -1.0)
                ]
            continue
        for sign, test in tests:
            test.update(sign * value)
        if any(test.due for _, test in tests):
            signals.append(row)
            learnt, tests = [], []
    return signals


def judged(signals: Sequence[int], changes: Sequence[int], length: int) -> tuple[int, int, list[int]]:
    """Return false signals, changes that were found, and their delays (rows)."""
    false, delays = 0, []
    for start, end in zip((0, *changes), (*changes, length), strict=True):
        inside = [row for row in signals if start <= row < end]
        if start in changes and inside:
            delays.append(inside[0] - start)
            inside = inside[1:]
        false += len(inside)
    return false, len(delays), delays


def main() -> int:
    """Print a line per detector."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--river", type=Path, default=Path.home() / ".cache" / "trilith-bench" / "venv-river")
    given = parser.parse_args()
    python = given.river / "bin" / "python"
    if not python.exists():
        parser.error(f"--river: {python} is not there, expected an environment that has river")
    script = Path(__file__).with_name("drift_points_peer.py")
    done = subprocess.run([python, "-P", script], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    clock: Callable[[], float] = time.process_time
    lines: dict[str, list[tuple[int, int, list[int]]]] = {}
    cpu: dict[str, float] = {}
    rows = []
    for name, one in found["series"].items():
        changes = points(one["marks"])
        began = clock()
        one["signals"]["Trilith: sequential test"] = ours(one["values"])
        one["cpu_ms"]["Trilith: sequential test"] = (clock() - began) * 1000
        for detector, signals in one["signals"].items():
            result = judged(signals, changes, len(one["values"]))
            lines.setdefault(detector, []).append(result)
            cpu[detector] = cpu.get(detector, 0.0) + one["cpu_ms"][detector]
            shown = ", ".join(map(str, result[2])) or "-"
            rows.append((name, detector, str(result[0]), f"{result[1]} of {len(changes)}", shown))
    total = sum(len(one["values"]) for one in found["series"].values())
    changes_in_all = sum(len(points(one["marks"])) for one in found["series"].values())
    sums = []
    for detector, results in sorted(lines.items()):
        false, hits = sum(r[0] for r in results), sum(r[1] for r in results)
        delays = sorted(d for r in results for d in r[2])
        middle = f"{np.median(delays):g}" if delays else "-"
        rate, each = f"{false * 1000 / total:.1f}", f"{cpu[detector] * 1000 / total:.1f}"
        sums.append((detector, str(false), rate, f"{hits} of {changes_in_all}", middle, each))
    head = ("detector", "false", "false / 1,000 rows", "found", "median delay, rows", "CPU us / row")
    print(
        f"## {len(found['series'])} series, {total:,} rows, river {found['version']}\n\n{table(head, sums)}\n"
    )
    print(table(("series", "detector", "false", "found", "delays, rows"), sorted(rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
