"""Holds a judge against people: reads labelled answers, takes or makes its verdicts, and calibrates it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trilith.errors import DataError, SettingsError
from trilith.types import Json
from trilith_evals.case import Case, Output
from trilith_evals.dataset import Columns, Dataset, load
from trilith_evals.judging import calibration, pairwise
from trilith_evals.judging.calibration import Calibration, Judged
from trilith_evals.judging.certificate import Certificate
from trilith_evals.judging.document import JudgeFile, LabelledSettings
from trilith_evals.judging.judge import Judge, Judgement
from trilith_evals.judging.material import human, material, step
from trilith_evals.judging.pairwise import Choice, JudgedPair, PairwiseCalibration
from trilith_evals.judging.prompt import text
from trilith_evals.purse import place
from trilith_evals.spend import Refused


@dataclass(frozen=True, slots=True)
class Hearing:
    """What came of it."""

    file: JudgeFile
    data: Dataset
    found: Calibration | PairwiseCalibration
    problems: Mapping[str, int]
    """Why there is no verdict on some rows, with counts."""
    cost_pico_usd: int
    """Of the calls (10^-12 USD), those in the journal included."""
    aside: str
    """What the judge's own repeats and panel say of it, in a line; may be empty."""
    infrastructure: int = 0
    """Rows without a verdict that may well have one next time."""

    def certificate(self, agreement: str) -> Certificate:
        """Return the judge's certificate.

        Args:
            agreement: What came of it, in one line.
        """
        settings = self.file.settings
        labelled = self.found.labelled if isinstance(self.found, Calibration) else self.found.pairs
        return Certificate(
            fingerprint=settings.fingerprint(),
            model=", ".join(settings.models),
            labelled=labelled,
            agreement=agreement,
            data=self.data.label,
            digest=self.data.digest,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            figures=asdict(self.found),
        )


@dataclass(frozen=True, slots=True)
class _Said:
    """The verdicts on one row: one on an answer, two on a pair."""

    values: tuple[float | None, ...]
    problem: str = ""
    cost_pico_usd: int = 0
    infrastructure: bool = False


def labelled(file: JudgeFile, *, limit: int | None = None) -> Dataset:
    """Read a judge's labelled answers.

    Raises:
        SettingsError: the file names none.
        DataError: they are wrong, or a column is missing.
    """
    told = _told(file)
    place = file.path.parent / told.file
    wanted = [*_names(told.human), *_names(told.output), *_names(told.verdict)]
    columns = Columns(told.input, told.expected, told.id, told.cluster, told.tags)
    data = load(place, columns, limit=limit)
    for case in data.cases:
        missing = [name for name in wanted if name not in case.fields]
        if missing:
            has = ", ".join(case.fields)
            raise DataError(f"{place}:{case.line}: no column {missing[0]!r}, expected it among {has}")
    return data


async def hold(file: JudgeFile, data: Dataset, judge: Judge | None, *, concurrency: int = 8) -> Hearing:
    """Hold a judge against people.

    Args:
        file: Its file.
        data: From `labelled`.
        judge: Asked for its verdicts; None where they are recorded.
        concurrency: Rows under way at a time.

    Raises:
        SettingsError: verdicts are neither recorded nor to be had.
        CapReached: the next call might exceed the cap of the purse that is open.
        CostUntold: there is a cap, and nobody tells prices.
        DataError: a label or a recorded verdict is not on the scale, or no row has both label and verdict.
    """
    told = _told(file)
    if told.verdict is None and judge is None:
        raise SettingsError(f"{file.path}: data.verdict is missing, and no judge is there to be asked")
    place, cases = file.path.parent / told.file, data.cases
    if file.settings.kind == "pair":  # no figure uses a pair that people have not decided
        cases = tuple(case for case in cases if _gold(case, told, place) is not None)
    if told.verdict is None and judge is not None:
        said = await _asked(file, cases, judge, concurrency)
    else:
        said = [_recorded(case, told, file) for case in cases]
    problems = Counter(one.problem for one in said if one.problem)
    if file.settings.kind == "pair":
        found: Calibration | PairwiseCalibration = _pairs(file, cases, said)
    else:
        found = _answers(file, cases, said)
    return Hearing(
        file,
        data,
        found,
        dict(problems.most_common()),
        sum(one.cost_pico_usd for one in said),
        judge.tally.text if judge else "",
        sum(one.infrastructure for one in said),
    )


def _told(file: JudgeFile) -> LabelledSettings:
    if file.data is None:
        raise SettingsError(
            f"{file.path}: data is missing, expected the labelled answers, such as "
            "`data: {file: labelled.jsonl, human: label}`"
        )
    if (file.settings.kind == "pair") != isinstance(file.data.output, tuple):
        raise SettingsError(
            f"{file.path}: data.output: expected two columns for a pair, and one for an answer"
        )
    return file.data


def _names(given: str | Sequence[str] | None) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else list(given)


async def _asked(file: JudgeFile, cases: Sequence[Case], judge: Judge, concurrency: int) -> list[_Said]:
    told, gate = _told(file), asyncio.Semaphore(concurrency)
    ended: list[Refused] = []

    async def one(case: Case) -> _Said:
        async with gate:
            if ended:
                return _Said(())
            try:
                with place(case.id, 0):
                    found = await _judged(case, file, told, judge)
            except Refused as error:  # rows under way are paid for, and come to their end
                ended.append(error)
                return _Said(())
        values = found.orders if isinstance(told.output, tuple) else (found.value,)
        return _Said(values, _unless(values, found.problem), found.cost_pico_usd, found.infrastructure)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(case)) for case in cases]
    if ended:
        raise ended[0]
    return [task.result() for task in tasks]


async def _judged(case: Case, file: JudgeFile, told: LabelledSettings, judge: Judge) -> Judgement:
    if isinstance(told.output, tuple):
        answers = case.fields[told.output[0]], case.fields[told.output[1]]
        return await judge.pair(case.id, material(case, Output(), file.settings), answers)
    output = Output(text=text(case.fields[told.output]))
    return await judge.answer(case.id, material(case, output, file.settings))


def _unless(values: Sequence[float | None], problem: str) -> str:
    return problem if None in values else ""


def _recorded(case: Case, told: LabelledSettings, file: JudgeFile) -> _Said:
    values: list[float | None] = []
    for column in _names(told.verdict):
        given = case.fields[column]
        if given is None or given == "":
            values.append(None)
            continue
        if file.settings.kind == "pair":
            value: float | None = _CHOICES.get(str(given).strip().lower())
        else:
            value = step(given, file.settings.made().scale)
        if value is None:
            raise DataError(f"{told.file}:{case.line}: the verdict in {column!r} is not on the judge's scale")
        values.append(value)
    return _Said(tuple(values), "no verdict is recorded" if None in values else "")


_CHOICES = {"1": 1.0, "2": 0.0, "tie": 0.5}
"""How well answer 1 did, by the recorded choice."""


def _answers(file: JudgeFile, cases: Sequence[Case], said: Sequence[_Said]) -> Calibration:
    told, scale = _told(file), file.settings.made().scale
    rows = []
    for case, one in zip(cases, said, strict=True):
        try:
            people = human(case.fields, _names(told.human), scale)
        except ValueError as error:
            raise DataError(f"{file.path.parent / told.file}:{case.line}: {error}") from None
        length = len(text(case.fields[_names(told.output)[0]]))
        rows.append(Judged(case.id, people, one.values[0], length, case.cluster, case.tags))
    found = calibration.calibrate(rows, scale.bounds)
    if found.labelled < 2:
        raise DataError(
            f"{file.path.parent / told.file}: {found.labelled} rows have both people's label and a verdict, "
            "expected at least 2"
        )
    return found


def _pairs(file: JudgeFile, cases: Sequence[Case], said: Sequence[_Said]) -> PairwiseCalibration:
    told = _told(file)
    one, other = _names(told.output)
    rows = []
    for case, verdicts in zip(cases, said, strict=True):
        gold = _gold(case, told, file.path.parent / told.file)
        if gold is None:
            continue
        forward, backward = (*verdicts.values, None)[:2]
        lengths = len(text(case.fields[one])), len(text(case.fields[other]))
        rows.append(
            JudgedPair(case.id, gold, _choice(forward), _choice(backward), lengths, case.cluster, case.tags)
        )
    if not rows:
        raise DataError(f"{file.path.parent / told.file}: no pair on which people prefer an answer")
    return pairwise.calibrate(rows)


def _choice(value: float | None) -> Choice | None:
    return None if value is None or value == 0.5 else 1 if value > 0.5 else 2


def _gold(case: Case, told: LabelledSettings, place: Path) -> Choice | None:
    """Return the answer that most people prefer; None where nobody looked, or as many prefer the other."""
    votes: list[Any] = []
    for column in _names(told.human):
        given: Json = case.fields[column]
        votes += given if isinstance(given, list) else [given]
    cast = [_CHOICES.get(str(vote).strip().lower()) for vote in votes if vote not in (None, "")]
    if None in cast:
        raise DataError(f"{place}:{case.line}: people's choice is not 1, 2 or tie")
    total = sum((value or 0.0) - 0.5 for value in cast)
    return None if not total else 1 if total > 0 else 2
