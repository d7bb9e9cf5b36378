"""A monitor that runs: its file, what it reads, the state that a restart goes on from, and what it writes."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from pydantic import Field

from trilith.errors import DataError
from trilith_evals import atomic
from trilith_evals.document import read
from trilith_evals.online import source
from trilith_evals.online.finding import Finding, Kind
from trilith_evals.online.monitor import Monitor
from trilith_evals.online.record import Record
from trilith_evals.online.scoring import ScoreSettings, Scoring
from trilith_evals.online.setting import MonitorSettings

_FORM = 1
"""Of the state's file; another one is refused, and not guessed at."""


class MonitorFile(MonitorSettings):
    """A whole monitor file; paths count from its folder."""

    sources: tuple[str, ...] = Field(min_length=1)
    """Prediction logs (`.jsonl`, or a folder of them), and the gateway's `traces.db` and `trilith.db`."""
    model: str | None = None
    """Only this model's records, where a source is the gateway's."""
    reference: str | None = None
    """A log that is the reference; without it the first `reference_windows` windows are."""
    score: ScoreSettings | None = None
    """Score a sample of the answers; needs their text (a log's `answer`, a gateway's `telemetry.content`)."""
    state: str = "monitor.state.json"
    """Where the state is kept."""
    findings: str | None = None
    """JSON lines that findings are appended to; they are printed as well."""
    prometheus: str | None = None
    """Text file for Prometheus' node exporter (`.prom`), written anew each time."""


class Watching:
    """Reads, looks, writes."""

    def __init__(self, file: MonitorFile, folder: Path) -> None:
        """Take a checked file and the folder that its paths count from."""
        self._folder = folder
        self._scoring: Scoring | None = None
        if file.score is not None:
            journal = folder / (file.state + ".scores")
            self._scoring = Scoring(file.score, folder, file.model, journal)
            file = file.model_copy(update={"metrics": self._scoring.metrics(file.metrics)})
        self._file = file
        self._counts: dict[str, int] = {}
        self._position: source.Position = {}
        self._last: dict[str, Finding] = {}
        self._open: set[str] = set()
        self._alarms = 0
        self._state = folder / file.state
        self._reference_file = folder / (file.state + ".reference")
        self._kept_reference = ""
        """Digest of the reference that is on disk."""
        self._monitor = self._restored() or Monitor(file, self._reference())

    @classmethod
    def opened(cls, path: Path) -> Watching:
        """Read a monitor file.

        Raises:
            SettingsError: it is wrong.
            DataError: the reference or the state is.
        """
        file, _ = read(path, MonitorFile)
        return cls(file, path.parent)

    def look(self, now: float) -> list[Finding]:
        """Read what is new, look at the windows that are due, and keep the state."""
        records = []
        for name in self._file.sources:
            for row in source.read(self._folder / name, self._position):
                if isinstance(row, source.Label):
                    self._monitor.label(row.id, row.value, row.at)
                elif self._file.model in (None, row.features.get("model", self._file.model)):
                    records.append(row)
        for record in self._embedded(self._scored(records)):
            self._monitor.observe(record)
        found = self._monitor.advance(now)
        for finding in found:
            subject = f"{finding.source}/{finding.subject}"
            self._last[subject] = finding
            if finding.kind is Kind.ALARM:
                self._open.add(subject)
                self._alarms += 1
            elif finding.kind is Kind.CLOSED:
                self._open.discard(subject)
        self._keep()
        if self._scoring is not None:
            self._scoring.settled()
        self._expose()
        return found

    @property
    def exit_code(self) -> int:
        """1 an incident is open, 2 nothing could be judged yet, else 0."""
        if self._open:
            return 1
        return 0 if self._last and not self._monitor.learning else 2

    def write(self, finding: Finding, *, quiet: bool = False) -> None:
        """Print a finding as a line of JSON, and append it to the file of findings."""
        if finding.kind is Kind.QUIET and not quiet:
            return
        line = json.dumps({"monitor": self._file.name, **finding.to_json()}, allow_nan=False, default=str)
        print(line)
        if self._file.findings is not None:
            with (self._folder / self._file.findings).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def _reference(self) -> list[Record] | None:
        if self._file.reference is None:
            return None
        rows = list(source.read(self._folder / self._file.reference, {}))
        records = {row.id: row for row in rows if isinstance(row, Record)}
        for row in rows:
            if isinstance(row, source.Label) and row.id in records:
                records[row.id].label = row.value
        return self._embedded(self._scored(list(records.values())))

    def _scored(self, records: list[Record]) -> list[Record]:
        """Score the sample among new records, and let go of what was asked and answered."""
        if self._scoring is not None:
            for name, count in self._scoring.score(records).items():
                self._counts[name] = self._counts.get(name, 0) + count
        for record in records:
            record.exchange = None
        return records

    def _embedded(self, records: list[Record]) -> list[Record]:
        """Embed texts in one batch, and let go of them unless topics are called by their words."""
        bare = [record for record in records if record.embedding is None and record.text.strip()]
        if self._file.text.embed and bare:
            from trilith_evals.scorers.semantic import MiniLm

            for record, vector in zip(bare, MiniLm(64, 1).embed([r.text for r in bare]), strict=True):
                record.embedding = vector
        if not self._file.text.words:
            for record in records:
                record.text = ""
        return records

    def _keep(self) -> None:
        # The reference is most of the state and never changes: it is written once, and before what names it.
        if not self._kept_reference and (reference := self._monitor.reference()) is not None:
            text = json.dumps(reference)
            atomic.write(self._reference_file, text, durable=True)
            self._kept_reference = _digest(text)
        state = {
            "form": _FORM,
            "position": self._position,
            "open": sorted(self._open),
            "alarms": self._alarms,
            "counts": self._counts,
            "reference": self._kept_reference,
            "monitor": self._monitor.state(reference=False),
        }
        atomic.write(self._state, json.dumps(state), durable=True)

    def _restored(self) -> Monitor | None:
        if not self._state.exists():
            return None
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if state["form"] != _FORM:
                raise DataError(
                    f"{self._state} has form {state['form']}, expected {_FORM}; remove it to begin anew"
                )
            self._position = dict(state["position"])
            if named := state.get("reference"):
                text = self._reference_file.read_text(encoding="utf-8")
                if _digest(text) != named:
                    raise DataError(
                        f"{self._reference_file} is not the reference of {self._state}; "
                        "remove both to begin anew"
                    )
                state["monitor"]["reference"] = json.loads(text)
                self._kept_reference = named
            self._counts = dict(state.get("counts", {}))
            self._open, self._alarms = set(state["open"]), int(state["alarms"])
            return Monitor.restored(self._file, state["monitor"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{self._state} cannot be read ({type(error).__name__}); remove it to begin anew"
            ) from None

    def _expose(self) -> None:
        if self._file.prometheus is not None:
            labels = self._monitor.labels
            counts = {
                "alarms_total": self._alarms,
                "incidents_open": len(self._open),
                "records_late_total": self._monitor.late,
                "labels_never_share": labels.never_share,
                "labels_waiting": labels.waiting,
                **self._counts,
            }
            text = exposition(self._file.name, counts, list(self._last.values()))
            atomic.write(self._folder / self._file.prometheus, text)


def exposition(monitor: str, counts: dict[str, float], findings: list[Finding]) -> str:
    """Return what Prometheus reads."""
    own = f'monitor="{_escaped(monitor)}"'
    lines = []
    for name, value in counts.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# TYPE trilith_monitor_{name} {kind}", f"trilith_monitor_{name}{{{own}}} {value:g}"]
    for name in ("value", "evidence", "p"):
        lines.append(f"# TYPE trilith_monitor_{name} gauge")
        for finding in findings:
            value = getattr(finding, name)
            if value is not None and math.isfinite(value):
                labels = f'{own},source="{finding.source}",subject="{_escaped(finding.subject)}"'
                lines.append(f"trilith_monitor_{name}{{{labels}}} {value:g}")
    return "\n".join(lines) + "\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
