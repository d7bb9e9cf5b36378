"""Alarms before a change, delay after it, and CPU per window: Trilith's monitor beside four libraries.

`python -m bench.evals.drift --data DIR` with a folder that holds `elec2/elec2.parquet` and
`nycflights13/flights.parquet`. Peers run in environments of their own under `--environments`
(venv-evidently, venv-nannyml, venv-alibi, venv-river); one that is not there is said so. All see the same
reference and the same windows. Nothing is tuned on these streams: our settings are the defaults, and the
peers' are theirs.

An alarm is the first window of an episode: neighbouring windows that alarm are one. It is the kindest count
for detectors that go on and on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench.gateway.report import table

from trilith_evals.online import Kind, Monitor, MonitorSettings, Record

PEERS = ("river", "evidently", "alibi", "nannyml")
DAY_S = 86_400


@dataclass
class Stream:
    """Rows in the order of time: first the reference, then windows of equal size."""

    name: str
    columns: dict[str, list[Any]]
    score: list[float]
    label: list[float | None]
    label_delay_s: list[float]
    reference: int
    size: int
    days: float
    """Of a window."""
    changed_row: int | None = None
    """First row of the known change, counted from the reference's first."""
    note: str = ""
    windows: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        ends = range(self.reference + self.size, len(self.score) + 1, self.size)
        self.windows = [(end - self.size, end) for end in ends]

    @property
    def change(self) -> int | None:
        """Window in which the known change begins."""
        return None if self.changed_row is None else (self.changed_row - self.reference) // self.size

    def kinds(self) -> dict[str, str]:
        """Say which columns are numbers."""
        return {n: "category" if isinstance(c[0], str) else "number" for n, c in self.columns.items()}

    def records(self) -> list[Record]:
        """Return the rows; every window has the same length of time."""
        step = self.days * DAY_S / self.size
        names = list(self.columns)
        rows = zip(*self.columns.values(), strict=True)
        offset = -self.reference % self.size
        return [
            Record(str(n), (n + offset) * step, dict(zip(names, row, strict=True)), self.score[n])
            for n, row in enumerate(rows)
        ]


def elec2(folder: Path) -> Stream:
    """New South Wales' electricity market; weeks 1-8 train, 9-16 are the reference, a week is a window."""
    import polars

    rows = polars.read_parquet(folder / "elec2" / "elec2.parquet")
    names = ["day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    features, truth = (
        rows.select(names).to_numpy().astype(float),
        (rows["class"] == "UP").to_numpy().astype(float),
    )
    week, train = 336, 8 * 336
    score = _scores(features[:train], truth[:train], features)
    columns = {n: [float(v) for v in features[train:, at]] for at, n in enumerate(names)}
    return Stream(
        "elec2",
        columns,
        score[train:],
        list(truth[train:]),
        [0.0] * (len(truth) - train),
        train,
        week,
        7.0,
        17_424 - train,
    )


def flights(folder: Path) -> Stream:
    """Flights from New York, later than a quarter of an hour or not; labels come when they land, or never."""
    import polars

    rows = polars.read_parquet(folder / "nycflights13" / "flights.parquet").sort("sched_dep_utc")
    rows = rows.with_columns(
        hour=polars.col("sched_dep_utc").dt.hour(),
        weekday=polars.col("sched_dep_utc").dt.weekday(),
        delay_s=(polars.col("arr_utc") - polars.col("sched_dep_utc")).dt.total_seconds(),
    )
    numbers, texts = ["hour", "weekday", "distance"], ["carrier", "origin"]
    codes = [rows[name].cast(polars.Categorical).to_physical().to_numpy() for name in texts]
    features = np.column_stack([*(rows[name].to_numpy() for name in numbers), *codes]).astype(float)
    late = [None if v is None else float(v > 15) for v in rows["arr_delay"]]
    train, reference, size = 26_000, 52_000, 6_500
    known = [at for at in range(train) if late[at] is not None]
    score = _scores(features[known], np.array([late[at] for at in known], float), features)
    columns: dict[str, list[Any]] = {n: [float(v) for v in rows[n][train:]] for n in numbers}
    columns |= {n: [str(v) for v in rows[n][train:]] for n in texts}
    delay = [float(v) if v is not None else 0.0 for v in rows["delay_s"]]
    note = "seasons; a window is 6,500 flights, a week; no dated change"
    return Stream(
        "nycflights13", columns, score[train:], late[train:], delay[train:], reference, size, 7.0, None, note
    )


def reweighted(
    base: Stream, name: str, *, drift: float, concept: float, windows: int = 60, size: int = 1000
) -> Stream:
    """Draw windows of a day from a stream's reference, reweighted by feature, so that no loss is gained.

    Weights depend on hour and distance and are made even within right and wrong rows, so that the error rate
    is what it was whatever the features do. `drift` tilts the weights from window 0 on; `concept` turns so
    many labels round from the middle on.
    """
    generator = np.random.default_rng(7)
    rows = [at for at in range(base.reference) if base.label[at] is not None]
    score, label = np.array(base.score)[rows], np.array([base.label[at] for at in rows], float)
    wrong = (score >= 0.5) != (label >= 0.5)
    tilt = np.zeros(len(rows))
    for feature in ("hour", "distance"):
        values = np.array(base.columns[feature], float)[rows]
        tilt += (values - values.mean()) / values.std()
    weight = np.exp(drift * np.clip(tilt, -3, 3))
    for group in (wrong, ~wrong):
        weight[group] *= group.mean() / weight[group].sum()
    reference = 28
    even = generator.integers(len(rows), size=reference * size)
    drawn = generator.choice(len(rows), size=windows * size, p=weight / weight.sum())
    picked = np.concatenate([even, drawn])
    truth = label[picked]
    changed = (reference + windows // 2) * size
    turned = generator.random(len(picked)) < concept
    turned[:changed] = False
    truth = np.where(turned, 1 - truth, truth)
    columns = {n: [c[rows[at]] for at in picked] for n, c in base.columns.items()}
    scores = [float(score[at]) for at in picked]
    labels: list[float | None] = [float(value) for value in truth]
    change = changed if concept else None
    return Stream(name, columns, scores, labels, [0.0] * len(picked), reference * size, size, 1.0, change)


def _scores(features: Any, truth: Any, every: Any) -> list[float]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=100, random_state=0, early_stopping=False)
    return [float(p) for p in model.fit(features, truth).predict_proba(every)[:, 1]]


def ours(stream: Stream) -> tuple[dict[str, list[int]], dict[str, float], dict[str, list[int]]]:
    """Run the monitor with its defaults; once more with the stated condition on unseen values.

    Returns:
        Alarms by window, CPU per window, and notices by window (where one begins).
    """
    lines: dict[str, list[int]] = {}
    notices: dict[str, list[int]] = {}
    cpu: dict[str, float] = {}
    records = stream.records()
    wait = float(np.quantile(stream.label_delay_s, 0.999)) / 3600
    for name, unseen in (("performance", None), ("performance, and unseen > .5 stated", 0.5)):
        settings = MonitorSettings.model_validate(
            {
                "window_hours": stream.days * 24,
                "loss": "error",
                "label_wait_hours": wait,
                "alarm_on": {"unseen": unseen},
            }
        )
        reference = [Record(r.id, r.at, r.features, r.score) for r in records[: stream.reference]]
        for record, label in zip(reference, stream.label, strict=False):
            record.label = label
        monitor = Monitor(settings, reference)
        alarms = [0] * len(stream.windows)
        found_notices = {said: [0] * len(stream.windows) for said in ("all", "unseen", "most")}
        spent = 0.0
        origin = records[stream.reference].at
        for start, end in stream.windows:
            for n in range(start, end):
                row = records[n]
                monitor.observe(Record(row.id, row.at, row.features, row.score))
                if (label := stream.label[n]) is not None:
                    monitor.label(row.id, label, row.at + max(0.0, stream.label_delay_s[n]))
            begun = time.process_time()
            found = monitor.advance(records[end - 1].at + stream.days * DAY_S / stream.size + 1)
            spent += time.process_time() - begun
            for finding in found:
                at = round((finding.start - origin) / (stream.days * DAY_S))
                if finding.kind is Kind.ALARM:
                    alarms[at] += 1
                elif finding.kind is Kind.NOTICE:
                    found_notices["all"][at] += 1
                    found_notices["unseen"][at] += finding.source == "unseen"
                    found_notices["most"][at] += finding.source == "inputs"
        notices = notices or found_notices  # where unseen values are an alarm, they are no notice
        lines[name], cpu[name] = alarms, spent * 1000 / len(stream.windows)
    return lines, cpu, notices


def peer(name: str, stream: Stream, environments: Path) -> dict[str, Any] | str:
    """Run a peer in its environment; a text says why not."""
    python = environments / f"venv-{name}" / "bin" / "python"
    if not python.exists():
        return "not installed"
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.json", Path(folder) / "out.json"
        given = {
            "columns": stream.columns,
            "kinds": stream.kinds(),
            "score": stream.score,
            "label": stream.label,
            "reference": stream.reference,
            "windows": stream.windows,
        }
        source.write_text(json.dumps(given), encoding="utf-8")
        script = Path(__file__).with_name("drift_peer.py")
        done = subprocess.run(
            [python, "-P", script, name, source, target], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return "failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1][:100]
        found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return found


def onsets(line: Sequence[int]) -> list[int]:
    """Return alarms by window: where an episode begins. Counts above 1 are alarms of several subjects."""
    return [
        now if now > 1 or (now and not before) else 0 for before, now in zip((0, *line), line, strict=False)
    ]


def noticed(notices: dict[str, list[int]], stream: Stream) -> tuple[str, ...]:
    """Return notices in 30 days before the change, and delays: all, unseen values, most features."""
    before = len(stream.windows) if stream.change is None else stream.change
    rates, delays = [], []
    for line in notices.values():
        rates.append(f"{sum(line[:before]) / (before * stream.days / 30):.2f}")
        after = [
            at for at, one in enumerate(line) if one and stream.change is not None and at >= stream.change
        ]
        rows = (after[0] + 1) * stream.size + stream.reference - (stream.changed_row or 0) if after else 0
        delays.append(f"{rows * stream.days / stream.size:g} d" if after else "-")
    return "; ".join(rates), "; ".join(delays)


def weeks(stream: Stream, around: int = 8) -> str:
    """Return the model's error rate by window around the change, so that a reader sees whether it rises."""
    wrong = [
        None if label is None else (score >= 0.5) != (label >= 0.5)
        for score, label in zip(stream.score, stream.label, strict=True)
    ]

    def rate(start: int, end: int) -> str:
        known = [one for one in wrong[max(0, start) : end] if one is not None]
        return f"{sum(known) / len(known):.2f}" if known else "-"

    changed, size = stream.changed_row or 0, stream.size
    before = [rate(changed + at * size, changed + (at + 1) * size) for at in range(-around, 0)]
    after = [rate(changed + at * size, changed + (at + 1) * size) for at in range(2 * around)]
    return (
        f"error rate: reference {rate(0, stream.reference)}; {around} windows before the change "
        f"{' '.join(before)}; {2 * around} after it {' '.join(after)}"
    )


def row(name: str, line: Sequence[int], cpu_ms: float, stream: Stream) -> tuple[str, ...]:
    """Return a line of the table."""
    begun = onsets(line)
    before = len(line) if stream.change is None else stream.change
    rate = sum(begun[:before]) / (before * stream.days / 30)
    share = sum(map(bool, line[:before])) / before
    delay = "-"
    if stream.change is not None:
        after = [at for at, one in enumerate(begun) if one and at >= stream.change]
        on = bool(line[stream.change - 1])
        rows = (after[0] + 1) * stream.size + stream.reference - (stream.changed_row or 0) if after else 0
        delay = f"{rows * stream.days / stream.size:g} d" if after else "was on" if on else "never"
    return name, f"{rate:.2f}", f"{share:.0%}", delay, f"{cpu_ms:.1f}"


def report(stream: Stream, environments: Path, peers: Sequence[str]) -> str:
    """Return a stream's table."""
    lines, cpu, notices = ours(stream)
    told = noticed(notices, stream)
    rows = [(*row(f"Trilith: {name}", line, cpu[name], stream), *told) for name, line in lines.items()]
    for name in peers:
        found = peer(name, stream, environments)
        if isinstance(found, str):
            rows.append((f"{name}: {found}", "", "", "", "", "", ""))
            continue
        for line, flags in found["lines"].items():
            shown = row(f"{name} {found['version']}: {line}", flags, found["cpu_ms"][line], stream)
            rows.append((*shown, "", ""))
    windows = f"{len(stream.windows)} windows of {stream.size:,} rows, {stream.days:g} d each"
    change = f", change in window {stream.change + 1}" if stream.change is not None else ""
    head = ("detector", "alarms / 30 d", "windows in alarm", "delay", "CPU ms / window")
    notice = ("notices / 30 d before: all; unseen; most", "first notice after: any; unseen; most")
    if late := sorted(stream.label_delay_s)[int(0.999 * len(stream.label_delay_s))] / 3600:
        middle = float(np.median(stream.label_delay_s)) / 3600
        never = sum(label is None for label in stream.label) / len(stream.label)
        stream.note += f"; labels after {middle:.1f} h (median), {late:.1f} h (99.9 %), never: {never:.1%}; "
        stream.note += "ours waits for them, the peers are given them at once"
    error = "" if stream.change is None else f"\n{weeks(stream)}\n"
    return f"## {stream.name}: {windows}{change}\n{stream.note}\n\n{table((*head, *notice), rows)}\n{error}"


def main() -> int:
    """Print a table per stream."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "trilith-bench")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--only", nargs="*", help="streams whose name begins so")
    given = parser.parse_args()
    for needed in ("elec2/elec2.parquet", "nycflights13/flights.parquet"):
        if not (given.data / needed).is_file():
            parser.error(
                f"--data: {given.data / needed} is not there, expected a folder with the public streams"
            )
    base = flights(given.data)
    streams = [
        elec2(given.data),
        base,
        reweighted(base, "nothing changes", drift=0.0, concept=0.0),
        reweighted(base, "inputs drift, no loss (mild)", drift=0.3, concept=0.0),
        reweighted(base, "inputs drift, no loss (strong)", drift=0.8, concept=0.0),
        reweighted(base, "labels change", drift=0.3, concept=0.1),
    ]
    for stream in streams:
        if not given.only or stream.name.startswith(tuple(given.only)):
            print(report(stream, given.environments, given.peers), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
