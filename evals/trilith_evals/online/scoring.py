"""Scores a sample of what a monitor reads, with the scorers of suites; the scores become watched series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trilith.errors import SettingsError
from trilith_evals.case import Case, Output
from trilith_evals.journal import Journal
from trilith_evals.online.record import Record
from trilith_evals.online.sampling import DailyBudget, OnlineScorer, Sampler
from trilith_evals.online.setting import MetricSettings
from trilith_evals.scorer import AnyScorer, build, higher_is_better, metric_name

_PICO = 10**12


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class StratumSettings(_Section):
    """Answers of which another share is scored; their scores weigh accordingly in every mean."""

    release: str = ""
    """Only this release; empty: any."""
    tenant: str = ""
    """Only this tenant; empty: any."""
    sample: float = Field(ge=0, le=1)
    """Share of them that is scored."""


class ScorerOf(_Section):
    """One scorer, as in a suite."""

    scorer: str
    """Its name, built in or from the entry-point group `trilith.scorers`."""
    params: dict[str, Any] = {}
    """What it takes; files count from the monitor's folder."""
    name: str | None = Field(None, min_length=1)
    """Another name for its series."""


class ScoreSettings(_Section):
    """Which answers are scored, by what, and for how much money."""

    scorers: tuple[ScorerOf, ...] = Field(min_length=1)
    """Each makes a series of its name, watched for getting worse; state it in `metrics` for a tolerance."""
    sample: float = Field(0.05, ge=0, le=1)
    """Share of the answers; chosen by the request's id, so the same in every run."""
    strata: tuple[StratumSettings, ...] = ()
    """Releases and tenants of which another share is scored; both named counts before one."""
    daily_usd: Decimal | None = Field(None, gt=0)
    """Most that a day (UTC) may cost, all runs and processes together; None: no cap."""
    answer_usd: Decimal | None = Field(None, gt=0)
    """Most that scoring one answer can cost, all scorers together; reserved before it is scored."""
    spend: str = "monitor.spend.db"
    """Where the days' spending is kept."""
    base_url: str | None = None
    """Where judges are asked; the key is TRILITH_API_KEY. None: TRILITH_BASE_URL."""
    concurrency: int = Field(8, ge=1)
    """Answers that are scored at a time."""

    @model_validator(mode="after")
    def _bounded(self) -> ScoreSettings:
        if (self.daily_usd is None) != (self.answer_usd is None):
            raise ValueError(
                "daily_usd and answer_usd go together: the budget is kept by setting answer_usd aside first"
            )
        return self


class Scoring:
    """Scores what is read, before the monitor sees it."""

    def __init__(self, settings: ScoreSettings, folder: Path, model: str | None, journal: Path) -> None:
        """Make the scorers; nothing is asked yet.

        Args:
            settings: The section `score`.
            folder: What files count from.
            model: Whose answers are watched.
            journal: File of scores that the monitor's state does not hold yet.

        Raises:
            SettingsError: a scorer is wrong, or judges would be asked about their own answers.
            MissingExtra: it needs a library that is not installed.
        """
        self._settings, self._journal = settings, journal
        self.scorers: dict[str, AnyScorer] = {}
        for place, given in enumerate(settings.scorers):
            try:
                scorer = build(given.scorer, given.params, folder)
            except SettingsError as error:
                raise SettingsError(f"score.scorers.{place}: {error}") from None
            name = given.name or metric_name(scorer)
            if name in self.scorers:
                raise SettingsError(f"score.scorers.{place}: makes {name!r} a second time; give it a name")
            self.scorers[name] = scorer
            if (connect := getattr(scorer, "connect", None)) is not None:
                self._refuse_circles(place, scorer, model)
                connect(settings.base_url, None)
        rates = {(s.release, s.tenant): s.sample for s in settings.strata}
        self._sampler = Sampler(settings.sample, rates)
        self._budget = None
        if settings.daily_usd is not None:
            self._budget = DailyBudget(folder / settings.spend, int(settings.daily_usd * _PICO))

    @staticmethod
    def _refuse_circles(place: int, scorer: AnyScorer, model: str | None) -> None:
        made = getattr(scorer, "settings", None)
        asked = {getattr(made, "model", None), *getattr(made, "panel", ())}
        if model is None or model in asked:
            raise SettingsError(
                f"score.scorers.{place}: it asks a model, whose own answers may be among those that "
                "are watched; name another model in `model`"
            )

    def metrics(self, stated: Sequence[MetricSettings]) -> tuple[MetricSettings, ...]:
        """Return what is watched: the stated series, and one a scorer that is not among them."""
        known = {metric.name for metric in stated}
        added = [
            MetricSettings(name=name, worse="lower" if higher_is_better(scorer) else "higher")
            for name, scorer in self.scorers.items()
            if name not in known
        ]
        return (*stated, *added)

    def score(self, records: Sequence[Record]) -> Mapping[str, int]:
        """Score the sample among some records, in place; return what became of them.

        A score is in the journal before it counts; a run that was killed finds it there, and pays once.
        """
        journal = Journal(self._journal, "monitor")
        most = 0 if self._settings.answer_usd is None else int(self._settings.answer_usd * _PICO)
        try:
            scorer = OnlineScorer(
                self.scorers,
                self._sampler,
                lambda record: None,
                budget=self._budget,
                most_pico_usd=most,
                journal=journal,
                configuration=self._settings.model_dump(mode="json", include={"scorers"}),
                concurrency=self._settings.concurrency,
            )
            try:
                for record in records:
                    if record.exchange is not None:
                        asked = record.exchange
                        case = Case(record.id, asked.input, asked.expected, fields=asked.fields)
                        output = Output(
                            asked.answer,
                            latency_s=record.values.get("latency_s", 0.0),
                            request_id=record.id,
                        )
                        scorer.take(case, output, record)
            finally:
                scorer.close()
        finally:
            journal.close()
        counts = scorer.counts
        return {
            "scored_total": counts.scored,
            "unscored_total": counts.unscored,
            "abstained_total": counts.abstained,
            "unpaid_total": counts.unpaid,
        }

    def settled(self) -> None:
        """Let go of the journal: the monitor's state holds what it held."""
        self._journal.unlink(missing_ok=True)
