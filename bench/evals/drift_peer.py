# mypy: ignore-errors
# Runs where none of this is installed: other people's libraries, and without types.
"""Runs one peer over a stream's windows, in the peer's own environment.

`python drift_peer.py PEER IN.json OUT.json`. In: columns and kinds by name, scores, labels, rows of the
reference, and windows as pairs of rows; out: 0 or 1 per window and line, CPU per window, the version.
It stands alone: nothing of Trilith is there.
"""

import json
import os
import sys
import time
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
os.environ["DO_NOT_TRACK"] = "1"


def evidently(given):
    """DataDriftPreset with its defaults."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    table = pd.DataFrame(given["columns"])
    kinds = given["kinds"]
    definition = DataDefinition(
        numerical_columns=[n for n, k in kinds.items() if k == "number"],
        categorical_columns=[n for n, k in kinds.items() if k == "category"],
    )
    reference = Dataset.from_pandas(table.iloc[: given["reference"]], data_definition=definition)
    any_column, most = [], []
    started = time.process_time()
    for start, end in given["windows"]:
        current = Dataset.from_pandas(table.iloc[start:end], data_definition=definition)
        found = Report([DataDriftPreset()]).run(current, reference).dict()
        value = next(
            m["value"] for m in found["metrics"] if "DriftedColumnsCount" in str(m.get("metric_name", m))
        )
        any_column.append(int(value["count"] > 0))
        most.append(int(value["share"] >= 0.5))
    cpu = (time.process_time() - started) * 1000 / len(given["windows"])
    return {"any column": any_column, "share of columns >= .5": most}, dict.fromkeys(
        ("any column", "share of columns >= .5"), cpu
    )


def nannyml(given):
    """Univariate Jensen-Shannon with any column, and CBPE."""
    import nannyml as nml
    import pandas as pd

    table = pd.DataFrame(given["columns"])
    names = list(table)
    table["y_proba"], table["y_true"] = given["score"], given["label"]
    table["y_pred"] = (table["y_proba"] >= 0.5).astype(int)
    size = given["windows"][0][1] - given["windows"][0][0]
    reference = table.iloc[: given["reference"]]
    first, last = given["windows"][0][0], given["windows"][-1][1]
    analysis = table.iloc[first:last].reset_index(drop=True)
    lines, cpu = {}, {}
    started = time.process_time()
    drift = nml.UnivariateDriftCalculator(
        column_names=names,
        treat_as_categorical=[n for n, k in given["kinds"].items() if k == "category"],
        continuous_methods=["jensen_shannon"],
        categorical_methods=["jensen_shannon"],
        chunk_size=size,
    ).fit(reference)
    found = drift.calculate(analysis).filter(period="analysis").to_df()
    alerts = found.loc[:, [c for c in found.columns if c[-1] == "alert"]]
    lines["univariate, any column"] = [int(v) for v in alerts.any(axis=1)]
    cpu["univariate, any column"] = (time.process_time() - started) * 1000 / len(given["windows"])
    started = time.process_time()
    cbpe = nml.CBPE(
        problem_type="classification_binary",
        y_pred_proba="y_proba",
        y_pred="y_pred",
        y_true="y_true",
        metrics=["accuracy"],
        chunk_size=size,
    ).fit(reference.dropna(subset=["y_true"]))  # it refuses rows whose label never came
    found = cbpe.estimate(analysis.drop(columns="y_true")).filter(period="analysis").to_df()
    alerts = found.loc[:, [c for c in found.columns if c[-1] == "alert"]]
    lines["CBPE"] = [int(v) for v in alerts.any(axis=1)]
    cpu["CBPE"] = (time.process_time() - started) * 1000 / len(given["windows"])
    return {name: line[: len(given["windows"])] for name, line in lines.items()}, cpu


def alibi(given):
    """TabularDrift with Bonferroni's correction."""
    import numpy as np
    from alibi_detect.cd import TabularDrift

    codes = {}
    columns, categories = [], {}
    for at, (name, values) in enumerate(given["columns"].items()):
        if given["kinds"][name] == "category":
            known = codes.setdefault(name, {v: i for i, v in enumerate(dict.fromkeys(values))})
            columns.append([known[v] for v in values])
            categories[at] = None
        else:
            columns.append([np.nan if v is None else v for v in values])
    table = np.nan_to_num(np.array(columns, float).T)
    detector = TabularDrift(table[: given["reference"]], p_val=0.05, categories_per_feature=categories)
    started = time.process_time()
    line = [int(detector.predict(table[start:end])["data"]["is_drift"]) for start, end in given["windows"]]
    return {"TabularDrift": line}, {"TabularDrift": (time.process_time() - started) * 1000 / len(line)}


def river(given):
    """Detectors over the stream of errors, row by row, begun on the reference."""
    from river import drift

    wrong = [
        int((s >= 0.5) != (y >= 0.5)) if y is not None else None
        for s, y in zip(given["score"], given["label"], strict=True)
    ]
    lines, cpu = {}, {}
    for name, detector in {
        "ADWIN": drift.ADWIN(),
        "PageHinkley": drift.PageHinkley(),
        "HDDM_A": drift.binary.HDDMA(),
        "KSWIN": drift.KSWIN(seed=0),
    }.items():
        for row in range(given["reference"]):
            if wrong[row] is not None:
                detector.update(wrong[row])
        line = []
        started = time.process_time()
        for start, end in given["windows"]:
            fired = 0
            for row in range(start, end):
                if wrong[row] is not None:
                    detector.update(wrong[row])
                    fired |= int(detector.drift_detected)
            line.append(fired)
        lines[name], cpu[name] = line, (time.process_time() - started) * 1000 / len(line)
    return lines, cpu


PACKAGES = {"evidently": "evidently", "nannyml": "nannyml", "alibi": "alibi-detect", "river": "river"}


def main():
    """Read, run, write."""
    peer, source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        given = json.load(file)
    lines, cpu = {"evidently": evidently, "nannyml": nannyml, "alibi": alibi, "river": river}[peer](given)
    with open(target, "w", encoding="utf-8") as file:
        json.dump({"lines": lines, "cpu_ms": cpu, "version": version(PACKAGES[peer])}, file)


if __name__ == "__main__":
    main()
