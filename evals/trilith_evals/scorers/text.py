"""Scorers over the answer's text: exact, normalised, contained, by pattern, by number, word F1, latency."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from trilith_evals.case import Case, Output
from trilith_evals.score import Score, scored, unscored

NO_EXPECTED = "the case has no expected answer"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def normalise(text: str) -> str:
    """Lower the case and drop punctuation, English articles and repeated blanks, as SQuAD's scorer does."""
    lowered = unicodedata.normalize("NFKC", text).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


def word_f1(answer: str, gold: str) -> float:
    """Return the F1 of shared words between 0 and 1, after `normalise`; SQuAD 2's definition."""
    said, wanted = normalise(answer).split(), normalise(gold).split()
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True, slots=True)
class Exact:
    """1 when the answer equals one of the expected ones, apart from blanks around it."""

    name: ClassVar[str] = "exact"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not case.golds:
            return unscored(NO_EXPECTED)
        return scored(output.text.strip() in {gold.strip() for gold in case.golds})


@dataclass(frozen=True, slots=True)
class Match:
    """1 when the answer equals one of the expected ones after `normalise`."""

    name: ClassVar[str] = "match"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not case.golds:
            return unscored(NO_EXPECTED)
        return scored(normalise(output.text) in {normalise(gold) for gold in case.golds})


@dataclass(frozen=True, slots=True)
class Contains:
    """1 when one of the expected answers stands in the text."""

    ignore_case: bool = True
    words: bool = True
    """Only whole words count: "four" is not in "fourteen"."""
    name: ClassVar[str] = "contains"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not case.golds:
            return unscored(NO_EXPECTED)
        return scored(any(self._holds(output.text, gold.strip()) for gold in case.golds))

    def _holds(self, text: str, gold: str) -> bool:
        pattern = rf"(?<!\w){re.escape(gold)}(?!\w)" if self.words else re.escape(gold)
        return re.search(pattern, text, re.IGNORECASE if self.ignore_case else 0) is not None


@dataclass(frozen=True, slots=True)
class Regex:
    """1 when the pattern is found in the text. Python's syntax; the expected answer is not looked at."""

    pattern: str
    ignore_case: bool = False
    name: ClassVar[str] = "regex"

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {error}") from None

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        flags = re.IGNORECASE if self.ignore_case else 0
        return scored(re.search(self.pattern, output.text, flags) is not None)


@dataclass(frozen=True, slots=True)
class Number:
    """1 when the answer's last number is near an expected one; a text without a number scores 0."""

    abs_tolerance: float = 0.0
    rel_tolerance: float = 1e-6
    """Share of the expected number's size; the larger of the two tolerances holds."""
    name: ClassVar[str] = "number"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        wanted = [number for gold in case.golds if (number := last_number(gold)) is not None]
        if not wanted:
            return unscored("the expected answer holds no number")
        said = output.value if isinstance(output.value, int | float) else last_number(output.text)
        if said is None:
            return scored(0.0)
        return scored(
            any(
                abs(said - number) <= max(self.abs_tolerance, self.rel_tolerance * abs(number))
                for number in wanted
            )
        )


def last_number(text: str) -> float | None:
    """Return the last number in a text (`1,234.5` is one number), or None."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


@dataclass(frozen=True, slots=True)
class F1:
    """Word F1 against the best of the expected answers, as SQuAD defines it."""

    name: ClassVar[str] = "f1"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not case.golds:
            return unscored(NO_EXPECTED)
        return scored(max(word_f1(output.text, gold) for gold in case.golds))


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the complete answer took (seconds), the client's retries included."""

    name: ClassVar[str] = "latency_s"
    higher_is_better: ClassVar[bool] = False

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        return scored(output.latency_s)
