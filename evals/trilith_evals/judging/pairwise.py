"""Calibrates a judge of pairs: which of two answers is better, asked in both orders, held against people.

Accuracy is the mean over both orders, as a judge that is asked once meets either. A verdict that could not be
read is not right and not consistent; it is counted, and never left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from trilith_evals import estimate
from trilith_evals.estimate import Estimate
from trilith_evals.judging.agreement import kappa
from trilith_evals.judging.linear import gap

Choice: TypeAlias = Literal[1, 2]


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """Two answers, which of them people prefer, and which the judge did."""

    id: str
    gold: Choice
    forward: Choice | None
    """The judge's choice where answer 1 was shown first; None: nothing that could be read."""
    backward: Choice | None
    """Its choice where answer 2 was shown first."""
    lengths: tuple[int, int] | None = None
    """Of the answers (characters)."""
    cluster: str | None = None
    """What the pair came from."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairwiseCalibration:
    """What a judge of pairs is worth."""

    pairs: int
    unread: int
    """Verdicts, of two a pair, that could not be read."""
    accuracy: Estimate
    """Share of the verdicts that are people's, mean of both orders."""
    both_right: Estimate
    """Share of the pairs that are right in both orders."""
    consistency: Estimate
    """Share of the pairs on which both orders come to the same answer."""
    picks_first: Estimate | None
    """How often the answer shown first wins, of the verdicts that could be read; without bias 0.5."""
    position_bias: Estimate
    """Right where the right answer is first, less right where it is second; from -1 to 1."""
    length_bias: Estimate | None
    """Right where the right answer is the longer, less right where it is the shorter; None: not known."""
    kappa: Estimate | None
    """Cohen's, over the verdicts that could be read."""
    slices: Mapping[str, PairwiseCalibration] = field(default_factory=dict)
    """The same for parts of the pairs, such as `set=natural`."""


def calibrate(pairs: Sequence[JudgedPair]) -> PairwiseCalibration:
    """Hold a judge's verdicts on at least one pair against people's."""
    found: dict[str, list[JudgedPair]] = {}
    for pair in pairs:
        for key, value in pair.tags.items():
            found.setdefault(f"{key}={value}", []).append(pair)
    slices = {name: _calibrated(part, {}) for name, part in sorted(found.items())}
    return _calibrated(pairs, slices)


def _calibrated(
    pairs: Sequence[JudgedPair], slices: Mapping[str, PairwiseCalibration]
) -> PairwiseCalibration:
    clustered = any(pair.cluster is not None for pair in pairs)
    clusters = [_cluster(pair) for pair in pairs] if clustered else None

    def share(of: Callable[[JudgedPair], float]) -> Estimate:
        return estimate.mean([of(pair) for pair in pairs], clusters)

    given = [(pair, c, first) for pair in pairs for c, first in ((pair.forward, 1), (pair.backward, 2)) if c]
    owners = [_cluster(pair) for pair, _, _ in given]
    return PairwiseCalibration(
        pairs=len(pairs),
        unread=2 * len(pairs) - len(given),
        accuracy=share(_right),
        both_right=share(lambda pair: float(_right(pair) == 1)),
        consistency=share(lambda pair: float(pair.forward is not None and pair.forward == pair.backward)),
        picks_first=estimate.mean([float(c == first) for _, c, first in given], owners) if given else None,
        position_bias=share(_position),
        length_bias=_length_bias(pairs, clusters),
        kappa=kappa([pair.gold for pair, _, _ in given], [c for _, c, _ in given], owners) if given else None,
        slices=slices,
    )


def _cluster(pair: JudgedPair) -> Hashable:
    return ("pair", pair.id) if pair.cluster is None else ("cluster", pair.cluster)


def _right(pair: JudgedPair) -> float:
    return ((pair.forward == pair.gold) + (pair.backward == pair.gold)) / 2


def _position(pair: JudgedPair) -> float:
    first, second = pair.forward == pair.gold, pair.backward == pair.gold
    return float(first - second) if pair.gold == 1 else float(second - first)


def _length_bias(pairs: Sequence[JudgedPair], clusters: Sequence[Hashable] | None) -> Estimate | None:
    told = [at for at, pair in enumerate(pairs) if pair.lengths and pair.lengths[0] != pair.lengths[1]]
    longer = [_longer(pairs[at]) == pairs[at].gold for at in told]
    of = None if clusters is None else [clusters[at] for at in told]
    return gap([_right(pairs[at]) for at in told], longer, [0] * len(told), of) if told else None


def _longer(pair: JudgedPair) -> Choice:
    assert pair.lengths is not None  # asked for those that have them only
    return 1 if pair.lengths[0] > pair.lengths[1] else 2
