"""Puts records into windows, looks at each window when its time has come, and says what it found.

Inputs, predictions and metrics are looked at when a window ends; its loss when its labels have had their
time. Drift is a notice. Alarms come from sequential tests that share the budget of alarms, and from stated
conditions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from trilith.errors import DataError
from trilith_evals.online import cause, estimated
from trilith_evals.online.classifier import ClassifierTest
from trilith_evals.online.finding import Finding, Kind
from trilith_evals.online.incident import Watch, losses
from trilith_evals.online.label import LabelJoiner, LabelState
from trilith_evals.online.multivariate import Mmd, embeddings, numeric
from trilith_evals.online.notice import Episodes
from trilith_evals.online.record import WEIGHT, Detector, Floats, Record, Reference, Window, is_number
from trilith_evals.online.setting import MonitorSettings
from trilith_evals.online.twosample import FeatureDrift

_PREDICTION = "score"
_MOST_COPIES = 1000


class Monitor:
    """Watches one model. Not for several threads at once."""

    def __init__(self, settings: MonitorSettings, reference: Sequence[Record] | None = None) -> None:
        """Begin; without a reference the first windows become it, and nothing is judged until then."""
        self.settings = settings
        wait = settings.label_wait_hours * 3600
        self._labels = LabelJoiner(wait + settings.window_s)
        self._open: dict[int, dict[str, Record]] = {}
        self._unlabelled: dict[int, list[Record]] = {}
        self._looked = -math.inf
        """End of the last window that was looked at (Unix seconds)."""
        self._moment = -math.inf
        """When windows were last looked at (Unix seconds)."""
        self.late = 0
        """Records that came after their window was looked at."""
        self._watched: _Watched | None = None
        if reference is not None:
            self._watched = _Watched(
                settings, Reference(tuple(sorted(reference, key=lambda r: (r.at, r.id))))
            )

    @property
    def learning(self) -> bool:
        """Whether there is no reference yet."""
        return self._watched is None

    @property
    def labels(self) -> LabelState:
        """How far the labels have come."""
        return self._labels.state()

    def observe(self, record: Record) -> None:
        """Take a record; a second one with its id is the same, and ignored."""
        if record.at < self._looked:
            self.late += 1
            return
        window = self._open.setdefault(self._number(record.at), {})
        if record.id not in window:
            window[record.id] = record
            self._labels.observe(record)

    def label(self, id: str, value: float, at: float) -> None:
        """Take a label that became known at a time (Unix seconds)."""
        self._labels.label(id, value, at)

    def advance(self, now: float) -> list[Finding]:
        """Look at all windows whose time has come by now (Unix seconds)."""
        found: list[Finding] = []
        while (moment := self._next()) <= now:
            self._labels.advance(moment)
            self._moment = moment
            found += self._at(moment)
        self._labels.advance(now)
        return found

    def _next(self) -> float:
        """Return when a window is due next (Unix seconds)."""
        width, wait = self.settings.window_s, self.settings.label_wait_hours * 3600
        due = [(number + 1) * width for number in self._open]
        due += [(number + 1) * width + wait for number in self._unlabelled]
        return min((moment for moment in due if moment > self._moment), default=math.inf)

    def _at(self, moment: float) -> list[Finding]:
        width, wait = self.settings.window_s, self.settings.label_wait_hours * 3600
        found: list[Finding] = []
        for number in sorted(n for n in self._open if (n + 1) * width <= moment):
            records = sorted(self._open.pop(number).values(), key=lambda r: (r.at, r.id))
            self._unlabelled[number] = records
            self._looked = max(self._looked, (number + 1) * width)
            if self._watched is not None:
                found += self._watched.inputs(Window(number * width, (number + 1) * width, tuple(records)))
        if self._watched is None:
            self._learn(moment)
            return found
        for number in sorted(n for n in self._unlabelled if (n + 1) * width + wait <= moment):
            records = self._unlabelled.pop(number)
            found += self._watched.outcome(Window(number * width, (number + 1) * width, tuple(records)))
            self._labels.settle((number + 1) * width)
        return found

    def _learn(self, moment: float) -> None:
        wait = self.settings.label_wait_hours * 3600
        ready = [n for n in self._unlabelled if (n + 1) * self.settings.window_s + wait <= moment]
        if len(ready) < self.settings.reference_windows:
            return
        chosen = sorted(ready)[: self.settings.reference_windows]
        self._watched = _Watched(
            self.settings, Reference(tuple(r for number in chosen for r in self._unlabelled.pop(number)))
        )
        self._labels.settle((chosen[-1] + 1) * self.settings.window_s)

    def _number(self, at: float) -> int:
        return math.floor(at / self.settings.window_s)

    def reference(self) -> list[dict[str, Any]] | None:
        """Return the reference as plain data, which does not change; None while it is still learnt."""
        return None if self._watched is None else [_plain(r) for r in self._watched.reference.records]

    def state(self, *, reference: bool = True) -> dict[str, Any]:
        """Return what a restart needs, as plain data. Holds features and labels, and no text.

        Args:
            reference: Whether the reference is in it; without it, put `reference()` back before `restored`.
        """
        return {
            "looked": None if self._looked == -math.inf else self._looked,
            "moment": None if self._moment == -math.inf else self._moment,
            "late": self.late,
            "open": [_plain(r) for window in self._open.values() for r in window.values()],
            "unlabelled": [_plain(r) for records in self._unlabelled.values() for r in records],
            "labels": self._labels.pending(),
            "reference": self.reference() if reference else None,
            "watches": {} if self._watched is None else self._watched.state(),
        }

    @classmethod
    def restored(cls, settings: MonitorSettings, state: dict[str, Any]) -> Monitor:
        """Go on where a state was taken.

        Raises:
            DataError: the state is of another form.
        """
        try:
            reference = state["reference"]
            made = cls(settings, None if reference is None else [Record(**row) for row in reference])
            for row in state["unlabelled"]:
                record = Record(**row)
                made._unlabelled.setdefault(made._number(record.at), []).append(record)
                made._labels.observe(record)
            for row in state["open"]:
                made.observe(Record(**row))
            for id, value, at in state["labels"]:
                made.label(id, value, at)
            made._looked = -math.inf if state["looked"] is None else state["looked"]
            made._moment = -math.inf if state["moment"] is None else state["moment"]
            made.late = state["late"]
            if made._watched is not None:
                made._watched.restore(state["watches"])
        except (KeyError, TypeError) as error:
            raise DataError(
                f"the monitor's state cannot be read ({error}); remove it to begin anew"
            ) from None
        return made


class _Watched:
    """Everything that needs a reference."""

    def __init__(self, settings: MonitorSettings, reference: Reference) -> None:
        self.settings, self.reference = settings, reference
        if len(reference.records) < 40:
            raise DataError(f"the reference has {len(reference.records)} records, expected 40 or more")
        self._loss = {"error": estimated.zero_one, "absolute": estimated.absolute}.get(settings.loss)
        self._features = FeatureDrift(
            reference, fdr=settings.fdr, least_psi=settings.least_psi, seed=settings.seed
        )
        self._unseen: dict[str, float] = {}
        self._episodes = Episodes()
        self._prediction = self._scores()
        self._whole = self._multivariate()
        blocks = reference.blocks(settings.window_s)
        self._estimator = self._made_estimator(blocks)
        self._watches: dict[str, Watch] = {}
        if self._loss is not None:
            self._watch(
                "performance", settings.loss, [self._seen(block) for block in blocks], settings.tolerance
            )
        if self._estimator is not None:
            rows = [self._expected(block) for block in blocks]
            self._watch("estimated", settings.loss, rows, settings.tolerance, estimated.ASSUMPTION)
        for metric in settings.metrics:
            usual = self._metric(metric.name, reference.records)
            values = [losses(self._metric(metric.name, block), metric.worse, usual) for block in blocks]
            self._watch("metric", metric.name, values, metric.tolerance)
        self._before = [(r, loss) for r in reference.records if (loss := self._row_loss(r)) is not None]
        self._usual_loss = float(np.mean([loss for _, loss in self._before])) if self._before else math.nan
        self._fields = cause.slices(reference.records, self._topics())

    def inputs(self, window: Window) -> list[Finding]:
        """Look at what is known when a window ends."""
        found = self._episodes.of(self._moved(window))
        if (most := self.settings.alarm_on.unseen) is not None:
            found += [self._incident(finding) for finding in self._features.unseen(window, most)]
        if self._prediction is not None:
            moved = self._prediction.update(_of(window, self._predicted(window.records)))
            found += self._episodes.of(replace(finding, source="prediction") for finding in moved)
        for whole in self._whole:
            found += self._episodes.of(whole.update(window))
        if self._estimator is not None and (watch := self._watches.get("estimated/" + self.settings.loss)):
            say = self._estimator.estimate(window.records)
            rows = say.rows if say.rows is not None else np.array([])
            finding = watch.update(rows, window.start, window.end, shown=say.value)
            found.append(self._with_causes(replace(finding, low=say.low, high=say.high), window, rows))
        for metric in self.settings.metrics:
            if (watch := self._watches.get("metric/" + metric.name)) is not None:
                usual = self._metric(metric.name, self.reference.records)
                values = self._metric(metric.name, window.records)
                turned = losses(values, metric.worse, usual)
                found.append(
                    self._turned(watch.update(turned, window.start, window.end), metric.worse, usual)
                )
        return found

    def _moved(self, window: Window) -> list[Finding]:
        """Say which features moved, by their spread or by values never seen, and whether most of them did."""
        found = self._features.update(window)
        if found[:1] == [] or found[0].kind is Kind.NO_EVIDENCE:
            return found
        unseen = self._features.unseen(window, self.settings.notice_unseen, Kind.NOTICE)
        moved = {finding.subject for finding in (*found, *unseen) if finding.kind is Kind.NOTICE}
        if self.settings.alarm_on.unseen is None:
            found += unseen
        share = len(moved) / len(unseen)
        most = Finding(
            Kind.NOTICE if share >= self.settings.notice_share and len(unseen) > 1 else Kind.QUIET,
            "inputs",
            "share",
            window.start,
            window.end,
            f"{len(moved)} of {len(unseen)} features moved",
            value=share,
            n=len(window.records),
        )
        return [*found, most]

    def outcome(self, window: Window) -> list[Finding]:
        """Look at a window's loss, now that its labels have had their time."""
        watch = self._watches.get("performance/" + self.settings.loss)
        if watch is None or self._loss is None:
            return []
        rows = [(record, loss) for record in window.records if (loss := self._loss(record)) is not None]
        share = len(rows) / len(window.records) if window.records else 0.0
        if share < self.settings.min_labelled:
            message = f"{share:.0%} of the records have labels, expected {self.settings.min_labelled:.0%}"
            kind = Kind.NO_EVIDENCE
            return [Finding(kind, "performance", self.settings.loss, window.start, window.end, message)]
        finding = watch.update(np.array([loss for _, loss in rows]), window.start, window.end)
        if finding.kind is not Kind.ALARM:
            return [finding]
        causes = cause.causes(self._before, rows, self._fields)
        return [replace(finding, causes=causes, message=finding.message + self._explained(window))]

    def _explained(self, window: Window) -> str:
        if self._estimator is None or self._loss is None:
            return ""
        found = estimated.explained(window.records, self._estimator, self._usual_loss, self._loss)
        return f"; {found.verdict}" if found is not None else ""

    def _with_causes(self, finding: Finding, window: Window, rows: Floats) -> Finding:
        if finding.kind is not Kind.ALARM or self._estimator is None:
            return finding
        scored = [record for record in window.records if record.score is not None]
        old = [record for record in self.reference.records if record.score is not None]
        usual = self._expected(old)
        before, now = (
            list(zip(old, map(float, usual), strict=True)),
            list(zip(scored, map(float, rows), strict=True)),
        )
        return replace(finding, causes=cause.causes(before, now, self._fields))

    def _turned(self, finding: Finding, worse: str, usual: Floats) -> Finding:
        """Give a metric where less is worse its own direction back."""
        if worse == "higher" or finding.value is None or finding.low is None or finding.high is None:
            return finding
        top = float(usual.max())
        message = f"{finding.subject} is {top - finding.value:.4g}, usual {float(usual.mean()):.4g}"
        low, high = top - finding.high, top - finding.low
        return replace(finding, value=top - finding.value, low=low, high=high, message=message)

    def _incident(self, finding: Finding) -> Finding:
        """Make one alarm of a stated condition that holds on."""
        if finding.kind is not Kind.ALARM:
            closed = self._unseen.pop(finding.subject, None) is not None
            return replace(finding, kind=Kind.CLOSED) if closed else finding
        if finding.subject in self._unseen:
            return replace(finding, kind=Kind.OPEN)
        self._unseen[finding.subject] = finding.start
        return finding

    def _watch(
        self, source: str, subject: str, blocks: Sequence[Floats], tolerance: float, assumption: str = ""
    ) -> None:
        try:
            self._watches[f"{source}/{subject}"] = Watch.over(
                source, subject, blocks, alpha=self.settings.alpha, tolerance=tolerance, assumption=assumption
            )
        except ValueError as error:
            raise DataError(f"{self.settings.name}: {subject} cannot be watched: {error}") from None

    def _made_estimator(self, blocks: Sequence[Sequence[Record]]) -> estimated.LossEstimator | None:
        if self._loss is None or not self.settings.estimate:
            return None
        try:
            return estimated.Cbpe(blocks) if self.settings.loss == "error" else estimated.LossModel(blocks)
        except ValueError as error:
            raise DataError(
                f"{self.settings.name}: the loss cannot be estimated: {error}; or set estimate: false"
            ) from None

    def _scores(self) -> FeatureDrift | None:
        rows = self._predicted(self.reference.records)
        return FeatureDrift(Reference(rows), seed=self.settings.seed) if len(rows) >= 40 else None

    def _predicted(self, records: Iterable[Record]) -> tuple[Record, ...]:
        """Return predictions as features: the score, and of a classifier the class that is said."""
        found = []
        for r in records:
            if r.score is not None:
                said: dict[str, Any] = {_PREDICTION: r.score}
                if self.settings.loss == "error":
                    said["class"] = "1" if r.score >= 0.5 else "0"
                found.append(Record(r.id, r.at, said))
        return tuple(found)

    def _multivariate(self) -> list[Detector]:
        records = self.reference.records
        found: list[Detector] = []
        columns = {n: [r.features.get(n) for r in records] for n in self.reference.features}
        names = tuple(n for n, column in columns.items() if is_number(column))
        if len(names) > 1:
            middles = np.array([np.median([v for v in columns[n] if v is not None]) for n in names])
            rows = numeric(names, middles)
            found.append(Mmd(self.reference, rows, source="multivariate", seed=self.settings.seed))
        given = self.reference.embeddings
        if given is not None and len(given) >= 40:
            found.append(Mmd(self.reference, embeddings, source="text", seed=self.settings.seed))
        if self.settings.classifier is not None:
            try:
                found.append(
                    ClassifierTest(self.reference, self.settings.classifier, seed=self.settings.seed)
                )
            except ValueError as error:
                raise DataError(f"{self.settings.name}: {error}; or leave out classifier") from None
        return found

    def _topics(self) -> Callable[[Record], str] | None:
        given, text = self.reference.embeddings, self.settings.text
        if given is None or len(given) < 2 * text.topics:
            return None
        return cause.Topics(self.reference.records, text.topics, words=text.words, seed=self.settings.seed)

    def _row_loss(self, record: Record) -> float | None:
        return self._loss(record) if self._loss is not None else None

    def _seen(self, records: Sequence[Record]) -> Floats:
        return np.array([loss for record in records if (loss := self._row_loss(record)) is not None])

    def _expected(self, records: Sequence[Record]) -> Floats:
        rows = self._estimator.estimate(records).rows if self._estimator is not None else None
        return rows if rows is not None else np.array([])

    @staticmethod
    def _metric(name: str, records: Sequence[Record]) -> Floats:
        given = [record for record in records if name in record.values]
        values = np.array([record.values[name] for record in given], float)
        # a score speaks for as many answers as its sampling rate says: where rates differ, so do its copies
        weights = np.array([record.values.get(WEIGHT, 1.0) for record in given], float)
        if not len(given) or weights.min() == weights.max():
            return values
        copies = np.minimum(np.round(weights / weights.min()), _MOST_COPIES).astype(int)
        repeated: Floats = np.repeat(values, copies)
        return repeated

    def state(self) -> dict[str, Any]:
        return {
            "unseen": self._unseen,
            "notices": self._episodes.state(),
            "tests": {name: watch.state() for name, watch in self._watches.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._unseen = dict(state["unseen"])
        self._episodes.restore(state.get("notices", {}))
        for name, kept in state["tests"].items():
            if name in self._watches:  # a metric that is no longer in the settings is let go
                self._watches[name].restore(kept)


def _of(window: Window, records: tuple[Record, ...]) -> Window:
    return Window(window.start, window.end, records)


def _plain(record: Record) -> dict[str, Any]:
    row = asdict(record) | {"text": "", "exchange": None}  # content stays out of the state
    row["embedding"] = list(record.embedding) if record.embedding is not None else None
    return row
