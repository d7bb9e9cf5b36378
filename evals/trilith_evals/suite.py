"""The suite file: what may stand in `evals.yaml`, and how it becomes suites that can run.

A wrong file is refused before anything is called; the message names file, line, key and expectation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trilith.errors import DataError, SettingsError
from trilith.money import PICO_PER_USD
from trilith.settings.document import Document, read_document
from trilith.settings.fault import Fault, Origin, refusal
from trilith_evals.dataset import Columns, Dataset, load
from trilith_evals.gate import Threshold
from trilith_evals.means import Means
from trilith_evals.runner import Suite
from trilith_evals.scorer import AnyScorer, build, metric_name
from trilith_evals.target import Target, Task, known_parameters


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TargetSettings(_Section):
    """What is judged."""

    model: str = Field(min_length=1)
    """A public model name behind the gateway."""


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
    run_timeout_s: float | None = Field(None, gt=0)
    """Longest time for the whole suite (seconds)."""

    @model_validator(mode="after")
    def _system_is_for_chat(self) -> SuiteSettings:
        if self.system is not None and self.task != "chat":
            raise ValueError(f"system is for the task chat, found the task {self.task}")
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

    def suite(self, target: Target, means: Means | None = None) -> Suite:
        """Join plan and target."""
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
            parameters=s.parameters,
            seed=s.seed,
            configuration=[scorer.model_dump(mode="json") for scorer in s.scorers],
            means=means or self.means(),
        )

    def means(self, max_cost_usd: Decimal | None = None) -> Means:
        """Return what the file allows, with another cap where one is given."""
        s = self.settings
        cap = max_cost_usd or s.max_cost_usd
        ceiling = s.max_call_cost_usd
        return Means(
            max_cost_pico_usd=None if cap is None else int(cap * PICO_PER_USD),
            max_call_cost_pico_usd=None if ceiling is None else math.ceil(ceiling * PICO_PER_USD),
            requests_per_minute=s.requests_per_minute,
            max_retries=s.max_retries,
            run_timeout_s=s.run_timeout_s,
        )


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
    document = read_document(path, os.environ, extra="evals")
    try:
        file = SuiteFile.model_validate(_plain(document.data))
    except ValidationError as error:
        raise refusal([*document.faults, *_faults(error, document, path)]) from None
    if document.faults:
        raise refusal(document.faults)
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
        return refusal([_fault(("suites", number, *at), message, document, path)])

    known = known_parameters(suite.task)
    for key in suite.parameters:
        if key not in known:
            expected = ", ".join(sorted(known))
            message = f"is not among the parameters of a {suite.task} model, expected one of {expected}"
            raise fault(("parameters", key), message)
    scorers: dict[str, AnyScorer] = {}
    for place, given in enumerate(suite.scorers):
        try:
            scorer = build(given.scorer, given.params)
        except SettingsError as error:
            raise fault(("scorers", place), str(error)) from None
        metric = given.name or metric_name(scorer)
        if metric in scorers:
            raise fault(
                ("scorers", place), f"makes the metric {metric!r} a second time; give it another name"
            )
        scorers[metric] = scorer
    for place, threshold in enumerate(suite.thresholds):
        if threshold.metric not in scorers:
            measured = ", ".join(scorers)
            message = f"{threshold.metric!r} is not measured here, expected one of {measured}"
            raise fault(("thresholds", place, "metric"), message)
    return Plan(suite, _data(suite, path, fault), scorers)


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
        )
    except DataError as error:
        raise DataError(f"suite {suite.name}: {error}") from None


def _faults(error: ValidationError, document: Document, path: Path) -> list[Fault]:
    return [_fault(fault["loc"], _words(fault), document, path) for fault in error.errors(include_url=False)]


def _fault(loc: Sequence[str | int], message: str, document: Document, path: Path) -> Fault:
    at = tuple(str(step) for step in loc)
    known = next((at[:n] for n in range(len(at), 0, -1) if at[:n] in document.origins), None)
    origin = document.origins[known] if known is not None else Origin(str(path))
    return Fault(origin, ".".join(at), message)


def _words(fault: Any) -> str:
    """Say what pydantic found in the form that all of Trilith's errors have."""
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        return "is missing"
    if fault["type"] == "extra_forbidden":
        return "is not a key that may stand here"
    if fault["type"] == "value_error":
        return message
    shown = "a mapping" if isinstance(fault["input"], dict) else repr(fault["input"])
    return f"found {shown}, expected {message.removeprefix('Input should be ')}"


def _plain(value: Any) -> Any:
    """Turn the file's decimals into floats: nothing here is money."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
