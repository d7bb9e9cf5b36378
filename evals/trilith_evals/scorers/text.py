"""Scorers over the answer's text: exact, normalised, contained, by pattern, by number, word F1, latency."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trilith.extras import need
from trilith_evals.case import Case, Output
from trilith_evals.score import Score, scored, unscored
from trilith_evals.scorer import require

NO_EXPECTED = "the case has no expected answer"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_UNIT = re.compile(r"\s?([^\W\d_]+|[^\w\s.,;:!?])")
_PARTED = re.compile(r"(?<=\d)[ '\u2019\u00a0\u202f](?=\d{3}(?!\d))")
_MARKED = re.compile(r"\d[\d.,]*\d")
_SWAPPED = str.maketrans(".,", ",.")
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
    """Take upper and lower case for the same."""
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
    """1 when the pattern is found in the text; the expected answer is not looked at."""

    pattern: str
    """In Python's syntax."""
    ignore_case: bool = False
    """Take upper and lower case for the same."""
    timeout_s: float = 1.0
    """Longest search in one answer (seconds): some patterns take ages on some texts. Then unscored."""
    name: ClassVar[str] = "regex"

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is {self.timeout_s}, expected more than 0")
        require("regex")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {error}") from None

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        library = need("regex", extra="evals")  # unlike `re` it can be stopped
        flags = library.IGNORECASE if self.ignore_case else 0
        try:
            found = library.search(self.pattern, output.text, flags, timeout=self.timeout_s)
        except TimeoutError:
            return unscored("the pattern took too long on this answer")
        return scored(found is not None)


@dataclass(frozen=True, slots=True)
class Number:
    """1 when the answer's last number is near an expected one; a text without a number scores 0."""

    abs_tolerance: float = 0.0
    """Largest difference that is forgiven."""
    rel_tolerance: float = 1e-6
    """Share of the expected number's size; the larger of the two tolerances holds."""
    units: dict[str, float] = field(default_factory=dict)
    """What the word or sign behind a number makes of it, such as `{"%": 0.01, "million": 1e6}`."""
    decimal: Literal[".", ","] = "."
    """The decimal mark; the other one, blanks and apostrophes then part thousands."""
    name: ClassVar[str] = "number"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        wanted = [number for gold in case.golds if (number := self._last(gold)) is not None]
        if not wanted:
            return unscored("the expected answer holds no number")
        said = output.value if isinstance(output.value, int | float) else self._last(output.text)
        if said is None:
            return scored(0.0)
        return scored(
            any(
                abs(said - number) <= max(self.abs_tolerance, self.rel_tolerance * abs(number))
                for number in wanted
            )
        )

    def _last(self, text: str) -> float | None:
        if self.decimal == ",":
            text = _MARKED.sub(lambda found: found[0].translate(_SWAPPED), text)
        return last_number(_PARTED.sub("", text), self.units)


def last_number(text: str, units: Mapping[str, float] | None = None) -> float | None:
    """Return the last number in a text (`1,234.5` is one number), or None.

    Args:
        text: The text.
        units: Factors of the words and signs that may stand behind a number, in any case.
    """
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    number = float(found[0].replace(",", ""))
    factors = {unit.lower(): factor for unit, factor in (units or {}).items()}
    unit = _UNIT.match(text, found.end())
    return number * factors.get(unit[1].lower(), 1.0) if unit else number


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
