"""A judge: one model or a panel, asked once or several times, about one answer or a pair in both orders."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import pvariance, variance
from typing import TypeVar

from trilith.telemetry import names, span
from trilith.types import Json
from trilith_evals.judging import prompt
from trilith_evals.judging.asking import Asker, Sample
from trilith_evals.judging.settings import JudgeSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge came to on one case."""

    value: float | None
    """None when it came to nothing; `problem` says why."""
    problem: str = ""
    abstained: bool = False
    """Whether it looked, and the verdicts cancelled out."""
    samples: tuple[Sample, ...] = ()
    within: float | None = None
    """Variance between a model's own repeats; None without any."""
    between: float | None = None
    """Variance between the panel's models; None for one alone."""
    consistent: bool | None = None
    """Whether both orders of a pair came to the same; None for single answers."""
    orders: tuple[float | None, float | None] = (None, None)
    """How well the first of a pair did where it was shown first, and where it was shown second."""

    @property
    def cost_pico_usd(self) -> int:
        """What all calls cost (10^-12 USD)."""
        return sum(sample.cost_pico_usd for sample in self.samples)

    @property
    def infrastructure(self) -> bool:
        """Whether network, gateway or engine are why there is no value."""
        failed = [sample for sample in self.samples if sample.value is None]
        return self.value is None and any(sample.infrastructure for sample in failed)

    @property
    def reasons(self) -> str:
        """The judge's reasons, one line a verdict."""
        return "\n".join(f"{s.model}: {s.reasons}" for s in self.samples if s.reasons)


@dataclass
class Tally:
    """What a judge's verdicts of one run have in common."""

    calls: int = 0
    asked_again: int = 0
    unpriced: int = 0
    cost_pico_usd: int = 0
    within: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    pairs: int = 0
    consistent: int = 0

    def note(self, found: Judgement) -> None:
        """Count one judgement."""
        for sample in found.samples:
            self.calls += sample.calls
            self.asked_again += sample.asked_again
            self.unpriced += sample.unpriced
        self.cost_pico_usd += found.cost_pico_usd
        if found.within is not None:
            self.within.append(found.within)
        if found.between is not None:
            self.between.append(found.between)
        if found.consistent is not None:
            self.pairs += 1
            self.consistent += found.consistent

    @property
    def text(self) -> str:
        """In a line; empty when there is nothing to say."""
        parts = []
        if self.asked_again:
            parts.append(f"asked again {self.asked_again} of {self.calls} calls")
        if self.within:
            parts.append(f"variance of repeats {math.fsum(self.within) / len(self.within):.3f}")
        if self.between:
            parts.append(f"variance within the panel {math.fsum(self.between) / len(self.between):.3f}")
        if self.pairs:
            parts.append(f"both orders alike on {self.consistent} of {self.pairs} pairs")
        return ", ".join(parts)


class Judge:
    """Judges through an asker; what is the same for every case is made once."""

    def __init__(self, settings: JudgeSettings, asker: Asker) -> None:
        """Take what the judge is made of, and what carries its calls."""
        self.settings = settings
        self.tally = Tally()
        self._asker = asker
        self._rubric = settings.made()
        self._opening = prompt.standing(self._rubric)
        options = {"response_format": self._rubric.schema(), **settings.sent}
        # A repeat asks for another sample; a cache in front of the model must not give it the first one's.
        self._options = [options | ({"seed": at} if at else {}) for at in range(settings.repeats)]

    async def answer(self, case_id: str, material: Mapping[str, Json]) -> Judgement:
        """Judge one answer.

        Args:
            case_id: For the span.
            material: What the judge sees, by name: question, answer, and what is known of the right one.
        """
        with span("evaluate", "judge", self._attributes(case_id)) as current:
            samples = await self._samples(prompt.messages(self._opening, material))
            found = self._joined(samples)
            if found.value is not None:
                current.set_attribute(names.EVALUATION_SCORE, found.value)
        self.tally.note(found)
        return found

    async def pair(self, case_id: str, material: Mapping[str, Json], answers: tuple[Json, Json]) -> Judgement:
        """Judge which of two answers is better, in both orders.

        Args:
            case_id: For the span.
            material: What the judge sees besides, by name.
            answers: Both.

        Returns:
            1 where the first is better in both orders, 0 where the second is, 0.5 for a tie; where the orders
            disagree, what the settings say.
        """
        with span("evaluate", "judge", self._attributes(case_id)) as current:
            asked = (
                prompt.messages(self._opening, {**material, "first answer": one, "second answer": other})
                for one, other in (answers, answers[::-1])
            )
            forward, backward = await _all(self._samples(messages, at) for at, messages in enumerate(asked))
            found = self._both(forward, backward)
            if found.value is not None:
                current.set_attribute(names.EVALUATION_SCORE, found.value)
        self.tally.note(found)
        return found

    def _attributes(self, case_id: str) -> dict[str, str]:
        return {names.EVALUATION_NAME: "judge", names.EVAL_CASE_ID: case_id}

    async def _samples(self, messages: list[dict[str, str]], order: int = 0) -> list[Sample]:
        scale, models = self._rubric.scale, self.settings.models
        return await _all(
            self._asker.sample(model, messages, scale, options, (order, models[:seat].count(model), at))
            for seat, model in enumerate(models)
            for at, options in enumerate(self._options)
        )

    def _both(self, forward: Sequence[Sample], backward: Sequence[Sample]) -> Judgement:
        one, other = self._joined(forward), self._joined(backward)
        samples = (*forward, *backward)
        if one.value is None or other.value is None:
            lacking = one if one.value is None else other
            orders = one.value, None if other.value is None else 1 - other.value
            return Judgement(None, lacking.problem, lacking.abstained, samples, orders=orders)
        values = one.value, 1 - other.value
        alike = _winner(values[0]) == _winner(values[1])
        if not alike and self.settings.inconsistent == "abstain":
            why = "the two orders disagree"
            return Judgement(None, why, True, samples, consistent=False, orders=values)
        value = sum(values) / 2 if alike else 0.5
        within = [spread for spread in (one.within, other.within) if spread is not None]
        between = [spread for spread in (one.between, other.between) if spread is not None]
        return Judgement(
            value,
            samples=samples,
            within=sum(within) / 2 if within else None,
            between=sum(between) / 2 if between else None,
            consistent=alike,
            orders=values,
        )

    def _joined(self, samples: Sequence[Sample]) -> Judgement:
        """Let several verdicts come to one; more than half of them must be there."""
        values = [sample.value for sample in samples if sample.value is not None]
        if 2 * len(values) <= len(samples):
            problems = Counter(sample.problem for sample in samples if sample.value is None)
            return Judgement(None, problems.most_common(1)[0][0], samples=tuple(samples))
        by_model: dict[str, list[float]] = {}
        for sample in samples:
            if sample.value is not None:
                by_model.setdefault(sample.model, []).append(sample.value)
        repeated = [variance(given) for given in by_model.values() if len(given) > 1]
        means = [math.fsum(given) / len(given) for given in by_model.values()]
        within = math.fsum(repeated) / len(repeated) if repeated else None
        between = pvariance(means) if len(means) > 1 else None
        # A model whose repeats failed in part counts as much as any other.
        value: float | None = math.fsum(means) / len(means)
        if (self.settings.combine or ("mean" if self._rubric.scale.graded else "majority")) == "majority":
            value = _majority(values)
        if value is None:
            split = "the panel is split" if len(by_model) > 1 else "the repeats are split"
            return Judgement(None, split, True, tuple(samples), within, between)
        return Judgement(value, samples=tuple(samples), within=within, between=between)


async def _all(asked: Iterable[Awaitable[T]]) -> list[T]:
    """Await all, and only then raise: an answer that is on its way is paid for, and is kept for later."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [one for one in found if not isinstance(one, BaseException)]


def _majority(values: Sequence[float]) -> float | None:
    (first, most), *others = Counter(values).most_common()
    return None if others and others[0][1] == most else first


def _winner(value: float) -> int:
    return (value > 0.5) - (value < 0.5)
