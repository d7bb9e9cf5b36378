"""The result of scoring one output: a value, an abstention, or nothing with a reason; never NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What became of one row under one scorer."""

    SCORED = "scored"
    ABSTAINED = "abstained"
    """The scorer looked and had nothing to judge, for example no citation to check."""
    UNSCORED = "unscored"
    """No judgement could be made: the target failed, or the scorer did."""


@dataclass(frozen=True, slots=True)
class Score:
    """One row under one scorer. Make it with `scored`, `abstained` or `unscored`."""

    state: State
    value: float | None = None
    """Finite; set exactly when `state` is scored."""
    reason: str = ""
    """Why there is no value. Short, the same for the same cause, and free of the case's content."""
    detail: str = ""
    """More about it; may quote the case, so reports without content leave it out."""
    infrastructure: bool = False
    """Whether the network, the gateway or an engine was at fault, and not the target's answer."""
    cost_pico_usd: int = 0
    """What scoring it cost (10^-12 USD), as a judge's calls do."""

    def __post_init__(self) -> None:
        finite = self.value is not None and math.isfinite(self.value)
        if finite != (self.state is State.SCORED):
            raise ValueError(f"a score that is {self.state.value} cannot have the value {self.value!r}")
        if self.state is not State.SCORED and not self.reason:
            raise ValueError(f"a score that is {self.state.value} needs a reason")


def scored(value: float, *, detail: str = "") -> Score:
    """Return a score with a value; a value that is not finite becomes `unscored`."""
    number = float(value)
    if not math.isfinite(number):
        return unscored(f"the scorer gave {number}", detail=detail)
    return Score(State.SCORED, number, detail=detail)


def abstained(reason: str) -> Score:
    """Return "nothing to judge here"; it counts as covered, and is shown and limited apart."""
    return Score(State.ABSTAINED, reason=reason)


def unscored(reason: str, *, detail: str = "", infrastructure: bool = False) -> Score:
    """Return "no judgement could be made"; it lowers the coverage that a gate demands."""
    return Score(State.UNSCORED, reason=reason, detail=detail, infrastructure=infrastructure)
