"""One metric over a suite, and what the figure rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trilith_evals.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric over a suite, and what it rests on."""

    metric: str
    estimate: Estimate | None
    """None when no row was scored, or when the figure is undefined."""
    scored: int
    abstained: int
    unscored: int
    infrastructure: int
    """Of the unscored ones, those where the target is not to blame."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why rows are unscored, with counts, most frequent first."""
    higher_is_better: bool = True
    over_suite: bool = False
    """Whether it is one figure over all pairs; the rows' scores are then losses, larger is worse."""
    slice: str = ""
    """Which cases it is of, such as `language=de`; empty for all of them."""
    bounds: tuple[float, float] | None = None
    """The mean if every unscored row had got 0, and if every one had got 1; None where all rows count, or
    scores are not known to lie between 0 and 1."""
    problem: str = ""
    """Why there is no estimate although rows were scored."""
    uncorrected: Estimate | None = None
    """The judge's own mean, where `estimate` is corrected by people's labels; None where nothing was."""

    @property
    def total(self) -> int:
        """All rows."""
        return self.scored + self.abstained + self.unscored

    @property
    def coverage(self) -> float:
        """Share of the rows that were scored or abstained, between 0 and 1."""
        return (self.scored + self.abstained) / self.total

    @property
    def text(self) -> str:
        """The figure with its interval, for example `0.83 [0.55, 0.95]`."""
        if self.estimate is None:
            return "n/a"
        if self.estimate.low is None or self.estimate.high is None:
            return brief(self.estimate.value)
        return f"{brief(self.estimate.value)} [{brief(self.estimate.low)}, {brief(self.estimate.high)}]"


def brief(value: float) -> str:
    """Write a figure with about three digits that count: `0.833`, `24.6`, `1,234`."""
    size = abs(value)
    decimals = 3 if size < 1 else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"  # and no minus before a zero
