"""What a judge is made of, and the fingerprint that its certificate goes by."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trilith_evals.judging import prompt
from trilith_evals.judging.rubric import BINARY, PAIR, Kind, Rubric, graded


class JudgeSettings(BaseModel):
    """A judge."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: str = Field(min_length=1)
    """The judging model's public name."""
    panel: tuple[str, ...] = ()
    """More models that judge the same; the majority, or the mean, counts."""
    rubric: str = Field(min_length=1)
    """What an answer must be or do."""
    scale: Literal["binary"] | int = "binary"
    """`binary` is yes or no; a number k is the steps from 1, the worst, to k."""
    criteria: dict[str, str] = {}
    """What each step of the scale stands for."""
    kind: Kind = "answer"
    """answer: one answer is judged. pair: which of two is better, asked in both orders."""
    expected: bool = True
    """Whether the judge sees the right answer, where one is known."""
    passages: str | None = None
    """Column with the passages that the answer is to rest on; where a case has none, those that it cites."""
    columns: tuple[str, ...] = ()
    """More columns of the case that the judge sees."""
    repeats: int = Field(1, ge=1, le=20)
    """How often each model is asked; more than once makes sense at a temperature above 0."""
    combine: Literal["majority", "mean"] | None = None
    """What several verdicts come to; None: majority for yes and no, else the mean."""
    inconsistent: Literal["tie", "abstain"] = "tie"
    """What a pair is on which the two orders disagree: half a win, or nothing to judge."""
    parameters: dict[str, Any] = {}
    """Sent with every call; the temperature is 0 where none is given."""
    timeout_s: float = Field(60.0, gt=0)
    """Longest time for one call (seconds); a run's `timeout_s` bounds the call with its retries."""

    @model_validator(mode="after")
    def _fits(self) -> JudgeSettings:
        if isinstance(self.scale, int) and not 2 < self.scale <= 100:
            raise ValueError(f"scale is {self.scale}, expected binary or a number of steps from 3 to 100")
        if self.kind == "pair" and self.scale != "binary":
            raise ValueError("a pair has no scale, as its verdict is first, second or tie")
        steps = {str(verdict) for verdict in self.made().scale.verdicts}
        unknown = sorted(set(self.criteria) - steps)
        if unknown:
            raise ValueError(
                f"criteria name the step {unknown[0]!r}, expected {', '.join(sorted(steps))} "
                "(yes and no in quotes)"
            )
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """All models that judge."""
        return (self.model, *self.panel)

    @property
    def sent(self) -> dict[str, Any]:
        """The parameters of every call."""
        return {"temperature": 0, **self.parameters}

    def made(self) -> Rubric:
        """Return the rubric with its scale."""
        scale = PAIR if self.kind == "pair" else graded(self.scale) if isinstance(self.scale, int) else BINARY
        return Rubric(self.rubric, scale, self.criteria, self.kind)

    def fingerprint(self) -> str:
        """Return the sha256 of all that may change a verdict; how long one waits for it does not."""
        told = self.model_dump(mode="json", exclude={"timeout_s", "parameters"})
        told |= {"parameters": self.sent, "prompt": prompt.VERSION}
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
