"""Scorers over what an answer cost: money, tokens, and the latency that a share of the answers keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from trilith.extras import need
from trilith_evals.case import Case, Output
from trilith_evals.score import Score, abstained, scored
from trilith_evals.scorer import require


@dataclass(frozen=True, slots=True)
class Cost:
    """What the answer cost (USD), as the gateway says; abstains where nobody says."""

    name: ClassVar[str] = "cost_usd"
    higher_is_better: ClassVar[bool] = False

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if output.cost_pico_usd is None:
            return abstained("nobody says what the answer cost")
        return scored(output.cost_pico_usd / 10**12)


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many tokens the call used; abstains where the target does not say."""

    count: Literal["output", "input", "all"] = "output"
    """Which of them; output holds the model's reasoning too."""
    higher_is_better: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The metric's name, such as output_tokens."""
        return "tokens" if self.count == "all" else f"{self.count}_tokens"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        usage = output.usage
        if usage is None:
            return abstained("the target does not say what it used")
        counted = {"input": usage.input_tokens, "output": usage.output_tokens}
        return scored(sum(counted.values()) if self.count == "all" else counted[self.count])


@dataclass(frozen=True, slots=True)
class LatencyQuantile:
    """The latency (seconds) that a share of the answers keeps, as one figure with a bootstrap interval."""

    share: float = 0.95
    """0.5 is the median, 0.95 what all but one in twenty keep."""
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}, expected more than 0 and less than 1")
        require("numpy")

    @property
    def name(self) -> str:
        """The metric's name, such as latency_p95_s."""
        return f"latency_p{100 * self.share:g}_s"

    def pair(self, case: Case, output: Output) -> tuple[None, float]:
        """Return the latency; an answer kept from an earlier run was not waited for."""
        if output.cached:
            raise ValueError("the answer was kept from an earlier run")
        return None, output.latency_s

    def loss(self, truth: None, predicted: float) -> float:
        """Return the latency itself."""
        return predicted

    def value(self, truths: Sequence[None], predictions: Sequence[float]) -> float:
        """Return the figure, linear between neighbours."""
        return float(need("numpy", extra="evals").quantile(predictions, self.share))
