"""The suite file: what may stand in `evals.yaml`, and how it becomes suites that can run.

A wrong file is refused before anything is called; the message names file, line, key and expectation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trilith.errors import DataError, SettingsError
from trilith.money import PICO_PER_USD
from trilith.settings.document import Document
from trilith.settings.fault import refusal
from trilith_evals.dataset import Columns, Dataset, load
from trilith_evals.document import fault as fault_at
from trilith_evals.document import read
from trilith_evals.gate import Gate, Threshold, refuse_intervals
from trilith_evals.means import Executor, Means
from trilith_evals.repeat import passes
from trilith_evals.runner import Decided, Suite
from trilith_evals.schema import SchemaSettings
from trilith_evals.scorer import AnyScorer, build, metric_name
from trilith_evals.sidecar import SplitSettings
from trilith_evals.target import DIGEST, Target, Task, known_parameters, shown, unfit
from trilith_evals.trial import refuse_early, spelled


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TargetSettings(_Section):
    """What is judged."""

    model: str = Field(min_length=1)
    """A public model name behind the gateway."""
    release: str | None = Field(None, pattern=DIGEST)
    """Digest of the release that must answer, also one without traffic; None: whichever the gateway takes."""
    version: str | None = Field(None, min_length=1)
    """A predictor's version, as its registry numbers it; None: whichever is live."""


class FieldSettings(_Section):
    """Which column of the data is which part of a case."""

    id: str | None = None
    """None takes `id` where the data has it, else the row's number."""
    input: str | tuple[str, ...] = "input"
    """What the target gets; several columns become features by name."""
    expected: str | None = None
    """The right answer or a list of right ones; None takes `expected` where the data has it."""
    cluster: str | None = None
    """What the case came from; intervals count cases with one cluster as dependent."""
    tags: tuple[str, ...] = ()
    """What the case belongs to; figures are given for every value of these columns too."""


class ScorerSettings(_Section):
    """One scorer."""

    scorer: str
    """Its name, built in or from the entry-point group `trilith.scorers`."""
    params: dict[str, Any] = {}
    """What the scorer takes."""
    name: str | None = Field(None, min_length=1)
    """Another name for its metric."""
    k: int | None = Field(None, ge=1)
    """Also give the chance that one of k tries is right, and that all are, as the metrics `NAME pass@k` and
    `NAME pass^k`; takes repeats of k or more."""


class ThresholdSettings(_Section):
    """A condition on one metric."""

    metric: str
    """The metric's name."""
    min: float | None = None
    """Smallest value that passes."""
    max: float | None = None
    """Largest value that passes."""
    on: Literal["mean", "interval"] = "mean"
    """mean: the figure itself; interval: its whole 95 % interval, and no evidence where that straddles."""

    @model_validator(mode="after")
    def _bounded(self) -> ThresholdSettings:
        if self.min is None and self.max is None:
            raise ValueError("expected min, max, or both")
        return self


class GateSettings(_Section):
    """A condition that fails only beyond doubt: one of min and max, not_worse_by, or better."""

    metric: str
    """The metric's name."""
    min: float | None = None
    """Smallest value of the metric."""
    max: float | None = None
    """Largest value of the metric."""
    not_worse_by: float | None = Field(None, ge=0)
    """So much worse than the run of `--against` is no harm, in the metric's unit."""
    better: bool = False
    """Must be better than the run of `--against`."""
    slice: str = ""
    """Only these cases: `language=de`; `language` makes a gate of each of its values."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Chance of an error, both sides together; all gates of a run share it."""
    power: float = Field(0.8, gt=0, lt=1)
    """Chance of telling a difference, for what is said about the cases needed."""
    min_rows: int = Field(20, ge=2)
    """A slice with fewer scored rows is no evidence either way."""
    unproven: Literal["no evidence", "pass", "fail"] = "no evidence"
    """What it counts as when no test says anything; with pass, only what is surely bad stops a change."""

    @model_validator(mode="after")
    def _one_kind(self) -> GateSettings:
        self.gate()
        return self

    def gate(self) -> Gate:
        """Return the gate."""
        return Gate(**self.model_dump())


class SuiteSettings(_Section):
    """One suite."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Letters, digits and `. _ -`, at most 64."""
    target: TargetSettings
    """What is judged."""
    task: Task = "chat"
    """How it is asked."""
    data: str
    """JSONL, CSV or Parquet file, relative to the suite file."""
    promised: SchemaSettings | None = Field(None, alias="schema")
    """What its columns hold, in place of the schema beside the file."""
    split: str | SplitSettings | None = None
    """The part of it to run: a name that NAME.schema.yaml beside the file knows, or a part of its own."""
    fields: FieldSettings = FieldSettings()
    """Which column is what."""
    system: str | None = None
    """System message before every conversation (chat only)."""
    parameters: dict[str, Any] = {}
    """Sent with every call, such as max_tokens and temperature."""
    limit: int | None = Field(None, ge=1)
    """Run so many cases only."""
    shuffle: bool = False
    """Draw them at random by `seed`, and run them in that order, instead of taking the first."""
    repeats: int = Field(1, ge=1)
    """How often every case is run."""
    concurrency: int = Field(4, ge=1, le=1000)
    """Cases under way at a time."""
    timeout_s: float = Field(120, gt=0)
    """Longest time for one case (seconds)."""
    scorers: tuple[ScorerSettings, ...] = Field(min_length=1)
    """What is measured."""
    thresholds: tuple[ThresholdSettings, ...] = ()
    """What must hold."""
    several_releases: bool = False
    """Whether rows that different releases answered may be added up."""
    gates: tuple[GateSettings, ...] = ()
    """What must hold beyond doubt, also against the run before (`--against`) and for slices."""
    stop_early: bool = False
    """Stop as soon as all gates have passed or one has failed; intervals are always-valid ones then."""
    min_coverage: float = Field(0.95, ge=0, le=1)
    """Smallest share of rows that every metric must be able to judge."""
    max_abstained: float = Field(0.2, ge=0, le=1)
    """Largest share of rows on which a scorer may abstain."""
    seed: int = 0
    """Of the bootstrap and of `shuffle`."""
    max_cost_usd: Decimal | None = Field(None, gt=0)
    """Most that target and judges may cost; the run stops before it."""
    max_call_cost_usd: Decimal | None = Field(None, gt=0)
    """Most that one call can cost; without it a call is reserved at twice the dearest so far."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Calls that begin in a minute, evenly spread."""
    max_retries: int = Field(2, ge=0, le=20)
    """Further attempts at one call, for causes that may pass."""
    attempt_timeout_s: float | None = Field(None, gt=0)
    """Longest time for one attempt (seconds), after which another is made; `timeout_s` bounds them all."""
    tokens_per_minute: float | None = Field(None, gt=0)
    """Tokens, read and written, that calls may use in a minute, as far as answers tell them."""
    run_timeout_s: float | None = Field(None, gt=0)
    """Longest time for the whole suite (seconds)."""
    executor: Literal["local", "ray"] = "local"
    """Where cases are run: in this process, or on Ray's workers."""

    @model_validator(mode="after")
    def _version_is_for_predictors(self) -> SuiteSettings:
        if self.target.version is not None and self.task != "predictor":
            raise ValueError(f"target.version is for the task predictor, found the task {self.task}")
        return self

    @model_validator(mode="after")
    def _system_is_for_chat(self) -> SuiteSettings:
        if self.system is not None and self.task != "chat":
            raise ValueError(f"system is for the task chat, found the task {self.task}")
        return self

    @model_validator(mode="after")
    def _enough_repeats(self) -> SuiteSettings:
        k = max((scorer.k or 1 for scorer in self.scorers), default=1)
        if k > self.repeats:
            raise ValueError(f"repeats is {self.repeats}, expected {k} or more as a scorer has k: {k}")
        return self


class SuiteFile(_Section):
    """A whole suite file."""

    suites: tuple[SuiteSettings, ...] = Field(min_length=1)
    """Run in this order."""

    @field_validator("suites")
    @classmethod
    def _one_name_each(cls, suites: tuple[SuiteSettings, ...]) -> tuple[SuiteSettings, ...]:
        names = [suite.name for suite in suites]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two suites are called {twice[0]!r}, expected every name once")
        return suites


@dataclass(frozen=True, slots=True)
class Plan:
    """A suite that only lacks its target."""

    settings: SuiteSettings
    data: Dataset
    scorers: Mapping[str, AnyScorer]
    """By metric."""
    k: Mapping[str, int]
    """By metric, of pass@k and pass^k."""

    @property
    def gates(self) -> list[Gate]:
        """The gates, one for every value of a tag where one names the tag alone."""
        return spelled([gate.gate() for gate in self.settings.gates], self.data.cases)

    def refuse_unfit(self) -> None:
        """Refuse cases that a model cannot be asked with, before any is paid for.

        Raises:
            DataError: one of them is none; it names its line.
        """
        named = self.settings.fields.input
        columns = named if isinstance(named, str) else ", ".join(named)
        for case in self.data.cases:
            if problem := unfit(case.input, self.settings.task):
                place = f"suite {self.settings.name}: {self.data.label}:{case.line}"
                raise DataError(f"{place}: the input ({columns}) {problem}")

    def suite(self, target: Target, decided: Decided | None = None, means: Means | None = None) -> Suite:
        """Join plan and target; `decided` says when the run may stop."""
        s = self.settings
        return Suite(
            name=s.name,
            target=target,
            data=self.data,
            scorers=self.scorers,
            thresholds=tuple(Threshold(t.metric, t.min, t.max, t.on) for t in s.thresholds),
            min_coverage=s.min_coverage,
            max_abstained=s.max_abstained,
            concurrency=s.concurrency,
            timeout_s=s.timeout_s,
            repeats=s.repeats,
            task=s.task,
            parameters=shown(s.parameters),
            seed=s.seed,
            several_releases=s.several_releases,
            decided=decided,
            k=self.k,
            configuration=[scorer.model_dump(mode="json") for scorer in s.scorers],
            means=means or self.means(),
        )

    def means(self, max_cost_pico_usd: int | None = None, executor: str | None = None) -> Means:
        """Return what the file allows, with another cap or executor where one is given.

        Raises:
            MissingExtra: the executor is Ray, which is not installed.
        """
        s = self.settings
        cap, ceiling = s.max_cost_usd, s.max_call_cost_usd
        own = None if cap is None else int(cap * PICO_PER_USD)
        return Means(
            max_cost_pico_usd=own if max_cost_pico_usd is None else max_cost_pico_usd,
            max_call_cost_pico_usd=None if ceiling is None else math.ceil(ceiling * PICO_PER_USD),
            requests_per_minute=s.requests_per_minute,
            max_retries=s.max_retries,
            attempt_timeout_s=s.attempt_timeout_s,
            tokens_per_minute=s.tokens_per_minute,
            run_timeout_s=s.run_timeout_s,
            executor=_executor(executor or s.executor),
        )


def _executor(name: str) -> Executor | None:
    if name == "local":
        return None
    from trilith_evals.ray_crew import executor  # Ray is imported where it is asked for

    return executor()


def read_plans(path: Path, only: Sequence[str] = ()) -> list[Plan]:
    """Read a suite file, its scorers and its datasets.

    Args:
        path: The file.
        only: Names of suites to take; empty takes all.

    Raises:
        SettingsError: the file is wrong, or holds no suite of such a name.
        DataError: a dataset is wrong.
        MissingExtra: a scorer or a reader needs a library that is not installed.
    """
    file, document = read(path, SuiteFile)
    names = [suite.name for suite in file.suites]
    for name in only:
        if name not in names:
            raise SettingsError(f"{path}: no suite {name!r}, expected one of {', '.join(names)}")
    return [
        _plan(suite, number, document, path)
        for number, suite in enumerate(file.suites)
        if not only or suite.name in only
    ]


def _plan(suite: SuiteSettings, number: int, document: Document, path: Path) -> Plan:
    def fault(at: tuple[str | int, ...], message: str) -> SettingsError:
        return refusal([fault_at(("suites", number, *at), message, document, path)])

    known = known_parameters(suite.task)
    for key in suite.parameters:
        if key not in known:
            expected = ", ".join(sorted(known))
            message = f"is not among the parameters of a {suite.task} model, expected one of {expected}"
            raise fault(("parameters", key), message)
    scorers: dict[str, AnyScorer] = {}
    k: dict[str, int] = {}
    for place, given in enumerate(suite.scorers):
        try:
            scorer = build(given.scorer, given.params, path.parent)
        except (SettingsError, DataError) as error:
            raise fault(("scorers", place), str(error)) from None
        metric = given.name or metric_name(scorer)
        if metric in scorers:
            raise fault(
                ("scorers", place), f"makes the metric {metric!r} a second time; give it another name"
            )
        scorers[metric] = scorer
        k |= {metric: given.k} if given.k else {}
    metrics = [*scorers, *(name for metric, n in k.items() for name in passes(metric, n))]
    for place, threshold in enumerate(suite.thresholds):
        if threshold.metric not in metrics:
            measured = ", ".join(metrics)
            message = f"{threshold.metric!r} is not measured here, expected one of {measured}"
            raise fault(("thresholds", place, "metric"), message)
    for place, gate in enumerate(suite.gates):
        if gate.metric not in metrics:
            measured = ", ".join(metrics)
            message = f"{gate.metric!r} is not measured here, expected one of {measured}"
            raise fault(("gates", place, "metric"), message)
    if suite.stop_early:
        try:
            refuse_early({gate.metric: scorers.get(gate.metric) for gate in suite.gates})
            refuse_intervals(Threshold(t.metric, t.min, t.max, t.on) for t in suite.thresholds)
        except ValueError as error:
            raise fault(("stop_early",), str(error)) from None
    data = _data(suite, path, fault)
    _refuse_unknown_slices(suite, data, fault)
    return Plan(suite, data, scorers, k)


def _refuse_unknown_slices(suite: SuiteSettings, data: Dataset, fault: Any) -> None:
    for place, gate in enumerate(suite.gates):
        tag, _, value = gate.slice.partition("=")
        values = sorted({case.tags[tag] for case in data.cases if tag in case.tags})
        if gate.slice and not values:
            tags = ", ".join(suite.fields.tags) or "none"
            message = f"no case has the tag {tag!r}; the tags of the data (fields.tags) are {tags}"
            raise fault(("gates", place, "slice"), message)
        if value and value not in values:
            raise fault(
                ("gates", place, "slice"), f"no case has {gate.slice}, expected one of {', '.join(values)}"
            )


def _data(suite: SuiteSettings, path: Path, fault: Any) -> Dataset:
    fields = suite.fields
    file = path.parent / suite.data
    if not file.is_file():
        raise fault(("data",), f"{suite.data!r} is not a file; it counts from the folder of {path.name}")
    try:
        return load(
            file,
            Columns(fields.input, fields.expected, fields.id, fields.cluster, fields.tags),
            limit=suite.limit,
            shuffle_seed=suite.seed if suite.shuffle else None,
            schema=suite.promised,
            split=suite.split.made() if isinstance(suite.split, SplitSettings) else suite.split,
        )
    except DataError as error:
        raise DataError(f"suite {suite.name}: {error}") from None
