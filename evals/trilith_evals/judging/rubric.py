"""What a judge is to look for, and on which scale; with the JSON schema that its reply must keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["answer", "pair"]
"""Whether one answer is judged, or which of two is better."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a verdict may be, and which number each stands for."""

    verdicts: Mapping[str | int, float]
    """In the words of the reply."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest number."""
        return min(self.verdicts.values()), max(self.verdicts.values())

    @property
    def graded(self) -> bool:
        """Whether there are more steps than yes and no."""
        return len(self.verdicts) > 2

    def value(self, verdict: Any) -> float | None:
        """Return the number that a verdict stands for; None for what is no step of the scale."""
        if isinstance(verdict, bool):
            verdict = "yes" if verdict else "no"
        if isinstance(verdict, str):
            verdict = verdict.strip().lower()
            verdict = int(verdict) if verdict.isdecimal() and len(verdict) < 4 else verdict
        if isinstance(verdict, float) and verdict.is_integer():
            verdict = int(verdict)
        return self.verdicts.get(verdict) if isinstance(verdict, str | int) else None


BINARY = Scale({"yes": 1.0, "no": 0.0})
PAIR = Scale({"first": 1.0, "second": 0.0, "tie": 0.5})
"""How well the answer that was shown first did."""


def graded(steps: int) -> Scale:
    """Return the scale from 1, the worst, to `steps`."""
    return Scale({step: float(step) for step in range(1, steps + 1)})


@dataclass(frozen=True, slots=True)
class Rubric:
    """What is asked of an answer."""

    text: str
    """In words, for example `The answer says only what the passages say.`"""
    scale: Scale = BINARY
    criteria: Mapping[str, str] = field(default_factory=dict)
    """What a step of the scale stands for, by step."""
    kind: Kind = "answer"

    def schema(self) -> dict[str, Any]:
        """Return the `response_format` of a call: reasons first, as a verdict is better for having some."""
        verdicts = list(self.scale.verdicts)
        typed = {"type": "integer" if isinstance(verdicts[0], int) else "string", "enum": verdicts}
        return {
            "type": "json_schema",
            "json_schema": {
                "name": "verdict",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"reasons": {"type": "string"}, "verdict": typed},
                    "required": ["reasons", "verdict"],
                    "additionalProperties": False,
                },
            },
        }
