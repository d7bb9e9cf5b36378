"""Scorers over an answer's citations: do they point at the right document and the right place.

The retrieved list is the answer's citations in their order, cut at `k`. The gold is in the case's row:
a document (by path or id), or spans of characters within it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from trilith.types import Citation, Json
from trilith_evals.case import Case, Output
from trilith_evals.score import Score, abstained, scored, unscored


@dataclass(frozen=True, slots=True)
class Gold:
    """What a citation must hit to count: a document, or a span of characters in it."""

    document: str
    start: int | None = None
    end: int | None = None

    def hit_by(self, citation: Citation) -> bool:
        """Say whether the citation is of this document and, where a span is known, overlaps it."""
        if self.document not in (citation.path, citation.document_id):
            return False
        if self.start is None or self.end is None:
            return True
        return citation.start < self.end and self.start < citation.end


@dataclass(frozen=True, slots=True)
class _Retrieval:
    """Where the gold stands in the row, and how many citations are looked at."""

    k: int = 10
    """Citations beyond this rank are ignored."""
    document: str = "path"
    """Column with the gold document's path or id, or a list of them."""
    start: str | None = None
    """Column with the first character of the gold span, or a list; None: the whole document counts."""
    end: str | None = None
    """Column with the end of the gold span (exclusive), or a list."""
    stem: ClassVar[str]

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}, expected 1 or more")
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end name the gold span together; expected both or neither")

    @property
    def name(self) -> str:
        """The metric's name, for example `recall_span@5`."""
        span = "_span" if self.start is not None else ""
        return f"{self.stem}{span}@{self.k}"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if case.fields.get(self.document) == []:
            return abstained("nothing is relevant to this case")
        try:
            golds = self._golds(case)
        except ValueError as error:
            return unscored(str(error))
        ranked = [_found(citation, golds) for citation in output.citations[: self.k]]
        return scored(_MEASURES[self.stem](ranked, len(golds), self.k))

    def _golds(self, case: Case) -> list[Gold]:
        documents = _column(case, self.document)
        if not documents:
            raise ValueError(f"the case names no gold document in {self.document!r}")
        if self.start is None or self.end is None:
            return [Gold(str(document)) for document in documents]
        starts, ends = _column(case, self.start), _column(case, self.end)
        if len(documents) == 1:
            documents = documents * len(starts)
        if not starts or not len(documents) == len(starts) == len(ends):
            raise ValueError(f"the gold spans in {self.start!r} and {self.end!r} do not pair up")
        return [Gold(str(d), _offset(s), _offset(e)) for d, s, e in zip(documents, starts, ends, strict=True)]


def _column(case: Case, name: str) -> list[Json]:
    value = case.fields.get(name)
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _offset(value: Json) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise ValueError("a gold span's start or end is not a whole number")


def _found(citation: Citation, golds: Sequence[Gold]) -> frozenset[int]:
    return frozenset(i for i, gold in enumerate(golds) if gold.hit_by(citation))


def recall(ranked: Sequence[frozenset[int]], golds: int, k: int) -> float:
    """Return the share of the golds that the first `k` entries hit at all."""
    return len(frozenset().union(*ranked[:k])) / golds


def reciprocal_rank(ranked: Sequence[frozenset[int]], golds: int, k: int) -> float:
    """Return 1 / rank of the first entry that hits a gold; 0 when none of the first `k` does."""
    return next((1 / rank for rank, hits in enumerate(ranked[:k], start=1) if hits), 0.0)


def ndcg(ranked: Sequence[frozenset[int]], golds: int, k: int) -> float:
    """Return the normalised discounted cumulative gain at `k`, binary; a gold counts at its first hit."""
    seen: set[int] = set()
    gain = 0.0
    for rank, hits in enumerate(ranked[:k], start=1):
        gain += bool(hits - seen) / math.log2(rank + 1)
        seen |= hits
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(golds, k) + 1))
    return gain / ideal


def precision(ranked: Sequence[frozenset[int]], golds: int, k: int) -> float:
    """Return the share of the first `k` ranks that hit a gold not hit before; ranks left empty count."""
    return sum(_gains(ranked[:k])) / k


def average_precision(ranked: Sequence[frozenset[int]], golds: int, k: int) -> float:
    """Return the mean, over the golds that `k` ranks can hold, of the precision where each is first hit.

    As trec_eval's `map_cut`, but divided by no more golds than fit, so that 1 can be reached.
    """
    found, total = 0, 0.0
    for rank, gain in enumerate(_gains(ranked[:k]), start=1):
        found += gain
        total += gain * found / rank
    return total / min(golds, k)


def hit(ranked: Sequence[frozenset[int]], golds: int, k: int) -> float:
    """Return 1 when one of the first `k` entries hits a gold."""
    return float(any(ranked[:k]))


def r_precision(ranked: Sequence[frozenset[int]], golds: int, k: int) -> float:
    """Return the precision at as many ranks as there are golds, and at most `k`."""
    return precision(ranked, golds, min(golds, k))


def _gains(ranked: Sequence[frozenset[int]]) -> list[int]:
    """Return 1 for every rank that hits a gold for the first time: citing one twice finds nothing new."""
    seen: set[int] = set()
    gains = []
    for hits in ranked:
        gains.append(int(bool(hits - seen)))
        seen |= hits
    return gains


_MEASURES: Mapping[str, Callable[[Sequence[frozenset[int]], int, int], float]] = {
    "recall": recall,
    "mrr": reciprocal_rank,
    "ndcg": ndcg,
    "precision": precision,
    "map": average_precision,
    "hit": hit,
    "r_precision": r_precision,
}


@dataclass(frozen=True, slots=True)
class Recall(_Retrieval):
    """Share of the gold documents (or spans) among the first `k` citations."""

    stem: ClassVar[str] = "recall"


@dataclass(frozen=True, slots=True)
class Mrr(_Retrieval):
    """Reciprocal rank of the first citation that hits a gold."""

    stem: ClassVar[str] = "mrr"


@dataclass(frozen=True, slots=True)
class Ndcg(_Retrieval):
    """Normalised discounted cumulative gain of the citations; relevance is binary unless grades are given."""

    grades: str | None = None
    """Column with the relevance of each gold (numbers of 0 or more); a citation's gain is its grade."""
    stem: ClassVar[str] = "ndcg"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if self.grades is None:
            return _Retrieval.__call__(self, case, output)
        if case.fields.get(self.document) == []:
            return abstained("nothing is relevant to this case")
        try:
            golds = self._golds(case)
            grades = [_grade(value) for value in _column(case, self.grades)]
        except ValueError as error:
            return unscored(str(error))
        if len(grades) != len(golds):
            return unscored(f"the grades in {self.grades!r} and the golds do not pair up")
        if not any(grades):
            return abstained("nothing is relevant to this case")
        return scored(graded_ndcg([_found(c, golds) for c in output.citations[: self.k]], grades, self.k))


def graded_ndcg(ranked: Sequence[frozenset[int]], grades: Sequence[float], k: int) -> float:
    """Return the normalised discounted cumulative gain at `k`; each gold's grade counts at its first hit."""
    seen: set[int] = set()
    gain = 0.0
    for rank, hits in enumerate(ranked[:k], start=1):
        gain += max((grades[at] for at in hits - seen), default=0.0) / math.log2(rank + 1)
        seen |= hits
    best = enumerate(sorted(grades, reverse=True)[:k], start=1)
    return gain / sum(grade / math.log2(rank + 1) for rank, grade in best)


def _grade(value: Json) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and math.isfinite(value):
        return float(value)
    raise ValueError("a gold's grade is not a number of 0 or more")


@dataclass(frozen=True, slots=True)
class Precision(_Retrieval):
    """Share of the first `k` ranks whose citation hits a gold that none above it hit."""

    stem: ClassVar[str] = "precision"


@dataclass(frozen=True, slots=True)
class AveragePrecision(_Retrieval):
    """Average precision of the citations; its mean over the suite is MAP."""

    stem: ClassVar[str] = "map"


@dataclass(frozen=True, slots=True)
class Hit(_Retrieval):
    """1 when at least one of the first `k` citations hits a gold."""

    stem: ClassVar[str] = "hit"


@dataclass(frozen=True, slots=True)
class RPrecision(_Retrieval):
    """Precision at as many ranks as the case has golds."""

    stem: ClassVar[str] = "r_precision"


@dataclass(frozen=True, slots=True)
class Cited:
    """1 when the answer rests on at least one citation."""

    name: ClassVar[str] = "cited"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        return scored(bool(output.citations))


@dataclass(frozen=True, slots=True)
class Supported:
    """Share of the citations that their sentence's words support; abstains where nothing is cited."""

    name: ClassVar[str] = "supported"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not output.citations:
            return abstained("the answer cites nothing")
        return scored(sum(c.supported for c in output.citations) / len(output.citations))
