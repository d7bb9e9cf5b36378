"""What repeats of a case tell: how much of the spread is the target's own wavering, and pass@k and pass^k."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from trilith_evals import estimate
from trilith_evals.comparison import pass_at_k, pass_hat_k
from trilith_evals.figure import Figure, brief


@dataclass(frozen=True, slots=True)
class Repeated:
    """One metric of a suite that ran its cases several times."""

    metric: str
    between: float
    """Variance of the cases' own means, the wavering taken out (method of moments)."""
    within: float
    """Variance of the repeats of a case."""
    flaky: float
    """Share of the cases whose repeats do not all have the same score."""
    flakiest: tuple[str, ...] = ()
    """Ids of the cases that waver most, most first; at most ten."""
    figures: tuple[Figure, ...] = ()
    """pass@k and pass^k, where k was asked for."""

    @property
    def text(self) -> str:
        """Say it in one line."""
        total = self.between + self.within
        share = f"{self.within / total:.0%} of the variance is between repeats" if total else "no variance"
        passes = "".join(f"; {figure.metric} {figure.text}" for figure in self.figures)
        return f"{self.metric}: {self.flaky:.0%} of the cases waver, {share}{passes}"


def passes(metric: str, k: int) -> tuple[str, str]:
    """Return the names of the metrics that `k` makes: one of k tries is right, all of k tries are."""
    return f"{metric} pass@{k}", f"{metric} pass^{k}"


def chances(values: Sequence[float], k: int) -> tuple[float, float] | None:
    """Return one case's pass@k and pass^k, unbiased; None where fewer than `k` tries are scored.

    Raises:
        ValueError: a score is neither 0 nor 1.
    """
    if any(value not in (0, 1) for value in values):
        raise ValueError("scores that are neither 0 nor 1 have no pass@k")
    if len(values) < k:
        return None
    right = round(math.fsum(values))
    return pass_at_k(right, len(values), k), pass_hat_k(right, len(values), k)


def repeated(
    metric: str,
    tries: Mapping[str, Sequence[float]],
    clusters: Mapping[str, Hashable],
    k: int | None = None,
) -> Repeated | None:
    """Return what the tries of every case tell of a metric; None where no case was scored twice.

    Args:
        metric: Its name.
        tries: The scores of each case; of a case without any, an empty list.
        clusters: What each case came from.
        k: Of pass@k and pass^k; None makes neither.
    """
    several = {case: values for case, values in tries.items() if len(values) > 1}
    if not several:
        return None
    means = {case: math.fsum(values) / len(values) for case, values in several.items()}
    squares = {
        case: math.fsum((value - means[case]) ** 2 for value in values) for case, values in several.items()
    }
    within = math.fsum(squares.values()) / sum(len(values) - 1 for values in several.values())
    between = 0.0
    if len(several) > 1:
        centre = math.fsum(means.values()) / len(means)
        of_means = math.fsum((mean - centre) ** 2 for mean in means.values()) / (len(means) - 1)
        less = within * math.fsum(1 / len(values) for values in several.values()) / len(several)
        between = max(0.0, of_means - less)
    wavering = [case for case, square in squares.items() if square > 0]
    flakiest = sorted(wavering, key=lambda case: -squares[case] / (len(several[case]) - 1))
    figures = () if k is None else _figures(metric, tries, clusters, k)
    share = len(wavering) / len(several)
    return Repeated(metric, between, within, share, tuple(flakiest[:10]), figures)


def _figures(
    metric: str, tries: Mapping[str, Sequence[float]], clusters: Mapping[str, Hashable], k: int
) -> tuple[Figure, ...]:
    names = passes(metric, k)
    try:
        found = {case: chance for case, values in tries.items() if (chance := chances(values, k)) is not None}
    except ValueError as error:
        return tuple(Figure(name, None, len(tries), 0, 0, 0, problem=str(error)) for name in names)
    missing = len(tries) - len(found)
    reasons = {f"fewer than {k} tries are scored": missing} if missing else {}
    of = [clusters.get(case, ("case", case)) for case in found]
    return tuple(
        Figure(
            name,
            estimate.mean([chance[at] for chance in found.values()], of) if found else None,
            scored=len(found),
            abstained=0,
            unscored=missing,
            infrastructure=0,
            reasons=reasons,
        )
        for at, name in enumerate(names)
    )


def table(found: Sequence[Repeated]) -> list[str]:
    """Say it in a line per metric, with the cases that waver most."""
    lines = []
    for one in found:
        most = f"; most: {', '.join(one.flakiest[:3])}" if one.flakiest else ""
        lines.append(f"{one.text}{most} (standard deviation between repeats {brief(math.sqrt(one.within))})")
    return lines
