"""Scorers that count shared n-grams with the expected answers: BLEU, chrF, ROUGE; and edit distance.

The numbers are those of the reference implementations to 1e-6 (sacrebleu over 100, rouge-score), so they may
stand beside published ones; the work is done with integers in numpy and bit rows instead of nested loops.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from trilith.extras import need
from trilith_evals.case import Case, Output
from trilith_evals.score import Score, scored, unscored
from trilith_evals.scorer import require
from trilith_evals.scorers.stem import stem
from trilith_evals.scorers.text import NO_EXPECTED, normalise

_ORDERS = 4
"""BLEU counts n-grams of one to four words."""

_PUNCTUATED = (
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),  # unless a digit stands before
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),  # unless a digit stands behind
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ALPHANUMERIC = re.compile(r"[a-z0-9]+")
_MARKS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


@functools.lru_cache(maxsize=4096)
def bleu_words(text: str) -> tuple[str, ...]:
    """Cut a text into words as mteval-v13a.pl does, the tokeniser of the machine-translation contests."""
    line = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    if "&" in line:
        for entity, sign in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
            line = line.replace(entity, sign)
    line = f" {line} "
    for pattern, replacement in _PUNCTUATED:
        line = pattern.sub(replacement, line)
    return tuple(line.split())


@functools.lru_cache(maxsize=4096)
def rouge_words(text: str, stemmed: bool = False) -> tuple[str, ...]:
    """Return the runs of a-z and 0-9 in lower case; words of four letters and more stemmed if wanted."""
    words = _ALPHANUMERIC.findall(text.lower())
    return tuple(stem(word) if len(word) > 3 else word for word in words) if stemmed else tuple(words)


def _ngrams(words: Sequence[str], order: int) -> Counter[Any]:
    return Counter(words if order == 1 else zip(*(words[at:] for at in range(order)), strict=False))


@dataclass(frozen=True, slots=True)
class Matches:
    """What BLEU needs of one answer: lengths in words, and n-grams shared and in all, by order."""

    said: int
    wanted: int
    """Length of the expected answer whose length is nearest."""
    shared: tuple[int, ...]
    total: tuple[int, ...]


def bleu_matches(answer: str, golds: Sequence[str]) -> Matches:
    """Count the answer's n-grams against all of the expected answers together."""
    said = bleu_words(answer)
    wanted = [bleu_words(gold) for gold in golds]
    shared: list[int] = []
    for order in range(1, _ORDERS + 1):
        allowed = _ngrams(wanted[0], order)
        for other in wanted[1:]:
            allowed |= _ngrams(other, order)
        shared.append(
            sum(min(n, allowed[gram]) for gram, n in _ngrams(said, order).items() if gram in allowed)
        )
    total = tuple(max(0, len(said) - order) for order in range(_ORDERS))
    nearest = min((len(words) for words in wanted), key=lambda size: (abs(size - len(said)), size))
    return Matches(len(said), nearest, tuple(shared), total)


def bleu(found: Matches, *, sentence: bool = True) -> float:
    """Return BLEU between 0 and 1 (Papineni et al. 2002), smoothed as mteval does for orders without a match.

    Args:
        found: Counts of one answer, or summed over many.
        sentence: Leave out orders that the answer is too short for, as sacrebleu's `sentence_bleu` does.
    """
    if not any(found.shared):
        return 0.0
    logs, halving, used = 0.0, 1.0, 0
    for shared, total in zip(found.shared, found.total, strict=True):
        if total == 0:
            if not sentence:
                return 0.0
            break
        used += 1
        if not shared:
            halving *= 2
        logs += math.log(shared / total if shared else 1 / (halving * total))
    brevity = 1.0 if found.said >= found.wanted else math.exp(1 - found.wanted / found.said)
    return brevity * math.exp(logs / used)


@dataclass(frozen=True, slots=True)
class Bleu:
    """BLEU of the answer against the expected ones, between 0 and 1: sacrebleu's `sentence_bleu` over 100."""

    name: ClassVar[str] = "bleu"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not case.golds:
            return unscored(NO_EXPECTED)
        return scored(bleu(bleu_matches(output.text, case.golds)))


@dataclass(frozen=True, slots=True)
class CorpusBleu:
    """BLEU of all answers together, between 0 and 1: sacrebleu's `corpus_bleu` over 100.

    It is one figure over the suite, and no mean of the rows' own BLEU, which stand beside it as losses.
    """

    name: ClassVar[str] = "corpus_bleu"
    higher_is_better: ClassVar[bool] = True

    def pair(self, case: Case, output: Output) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the counts of the case: what is wanted, and what was said and shared."""
        if not case.golds:
            raise ValueError(NO_EXPECTED)
        found = bleu_matches(output.text, case.golds)
        return (found.wanted,), (found.said, *found.shared, *found.total)

    def loss(self, truth: tuple[int, ...], predicted: tuple[int, ...]) -> float:
        """Return 1 less the row's own BLEU."""
        return 1 - bleu(_summed(truth, predicted))

    def value(self, truths: Sequence[tuple[int, ...]], predictions: Sequence[tuple[int, ...]]) -> float:
        """Return the figure."""
        numpy = need("numpy", extra="evals")
        sums = (tuple(map(int, numpy.array(counts).sum(axis=0))) for counts in (truths, predictions))
        return bleu(_summed(*sums), sentence=False)


def _summed(wanted: tuple[int, ...], said: tuple[int, ...]) -> Matches:
    return Matches(said[0], wanted[0], said[1 : 1 + _ORDERS], said[1 + _ORDERS :])


_CHARACTERS = 6
"""chrF counts n-grams of one to six characters, blanks left out."""


def chrf(answer: str, gold: str, *, words: int = 0) -> float:
    """Return the character n-gram F2 between 0 and 1 (Popović 2015); with `words=2` it is chrF++ (2017)."""
    counts = _character_counts("".join(answer.split()), "".join(gold.split()))
    if words:
        said, wanted = _chrf_words(answer), _chrf_words(gold)
        for order in range(1, words + 1):
            a, b = _ngrams(said, order), _ngrams(wanted, order)
            shared = sum(min(n, b[gram]) for gram, n in a.items() if gram in b)
            counts.append((a.total(), b.total(), shared))
    usable = [(a, b, both) for a, b, both in counts if a and b]
    if not usable:
        return 0.0
    precision = math.fsum(both / a for a, _, both in usable) / len(usable)
    recall = math.fsum(both / b for _, b, both in usable) / len(usable)
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def _character_counts(said: str, wanted: str) -> list[tuple[int, int, int]]:
    """Return per order how many n-grams each text has, and how many they share.

    An n-gram becomes one integer: ten bits a character, and its order above them. Texts with more than a
    thousand different characters do not fit and are counted one by one.
    """
    numpy = need("numpy", extra="evals")
    both = said + wanted
    points = numpy.frombuffer(both.encode("utf-32-le", "surrogatepass"), dtype=numpy.uint32)
    alphabet = numpy.unique(points)
    if len(alphabet) > 1024:
        return [_counted_apart(said, wanted, order) for order in range(1, _CHARACTERS + 1)]
    letters = numpy.searchsorted(alphabet, points).astype(numpy.int64)
    sides = [_packed(numpy, side) for side in (letters[: len(said)], letters[len(said) :])]
    (a, a_counts), (b, b_counts) = (numpy.unique(side, return_counts=True) for side in sides)
    if len(a) and len(b):
        at = numpy.minimum(numpy.searchsorted(b, a), len(b) - 1)
        least = numpy.where(b[at] == a, numpy.minimum(a_counts, b_counts[at]), 0)
        shared = numpy.bincount(a >> 60, weights=least, minlength=_CHARACTERS + 1)
    else:
        shared = numpy.zeros(_CHARACTERS + 1)
    return [
        (max(0, len(said) - order + 1), max(0, len(wanted) - order + 1), int(shared[order]))
        for order in range(1, _CHARACTERS + 1)
    ]


def _packed(numpy: Any, letters: Any) -> Any:
    grams, packed = [], letters
    for order in range(1, _CHARACTERS + 1):
        if order > 1:
            packed = (packed[:-1] << 10) | letters[order - 1 :]
        if not len(packed):
            break
        grams.append(packed | (order << 60))
    return numpy.concatenate(grams) if grams else letters


def _counted_apart(said: str, wanted: str, order: int) -> tuple[int, int, int]:
    a, b = (Counter(text[at : at + order] for at in range(len(text) - order + 1)) for text in (said, wanted))
    return a.total(), b.total(), sum(min(n, b[gram]) for gram, n in a.items() if gram in b)


def _chrf_words(text: str) -> list[str]:
    """Cut one punctuation mark off a word, behind or else before, as chrF++ does."""
    words: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _MARKS:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in _MARKS:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words


@dataclass(frozen=True, slots=True)
class Chrf:
    """Character n-gram F2 against the best of the expected answers, between 0 and 1: sacrebleu's over 100."""

    words: int = 0
    """Count n-grams of so many words too; 2 makes it chrF++."""

    def __post_init__(self) -> None:
        if not 0 <= self.words <= 4:
            raise ValueError(f"words is {self.words}, expected 0 to 4")
        require("numpy")

    @property
    def name(self) -> str:
        """The metric's name: chrf, chrf++, or chrf and the order of words."""
        return {0: "chrf", 2: "chrf++"}.get(self.words, f"chrf_{self.words}")

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not case.golds:
            return unscored(NO_EXPECTED)
        return scored(max(chrf(output.text, gold, words=self.words) for gold in case.golds))


RougeKind: TypeAlias = Literal["1", "2", "3", "4", "L", "Lsum"]


@dataclass(frozen=True, slots=True)
class Rouge:
    """ROUGE against the best of the expected answers, between 0 and 1, as Google's rouge-score counts it.

    It knows the letters a to z and digits only, so texts in other scripts score 0; `chrf` serves those.
    """

    kind: RougeKind = "L"
    """1 to 4: shared n-grams; L: longest common subsequence; Lsum: the same by lines, for summaries."""
    stem: bool = False
    """Compare words by their Porter stem."""
    measure: Literal["f1", "precision", "recall"] = "f1"
    """Of the expected answer with the best f1; recall does not mind a long answer, precision a short one."""

    def __post_init__(self) -> None:
        if self.kind == "L":
            require("rapidfuzz")

    @property
    def name(self) -> str:
        """The metric's name, such as rouge_l or rouge_1_recall."""
        return f"rouge_{self.kind.lower()}" + ("" if self.measure == "f1" else f"_{self.measure}")

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not case.golds:
            return unscored(NO_EXPECTED)
        found = (self._shares(output.text, gold) for gold in case.golds)
        precision, recall, f1 = max(found, key=lambda shares: shares[2])
        return scored({"f1": f1, "precision": precision, "recall": recall}[self.measure])

    def _shares(self, answer: str, gold: str) -> tuple[float, float, float]:
        if self.kind == "Lsum":
            shared, said, wanted = _union_matches(self._lines(answer), self._lines(gold))
        else:
            a, b = rouge_words(answer, self.stem), rouge_words(gold, self.stem)
            if self.kind == "L":
                shared, said, wanted = _common(a, b), len(a), len(b)
            else:
                order = int(self.kind)
                grams, others = _ngrams(a, order), _ngrams(b, order)
                shared = sum(min(n, others[gram]) for gram, n in grams.items() if gram in others)
                said, wanted = grams.total(), others.total()
        if not shared:
            return 0.0, 0.0, 0.0
        precision, recall = shared / said, shared / wanted
        return (
            precision,
            recall,
            2 * precision * recall / (precision + recall),
        )  # rounded as the reference does

    def _lines(self, text: str) -> list[tuple[str, ...]]:
        return [rouge_words(line, self.stem) for line in text.split("\n") if line]


def _common(said: Sequence[str], wanted: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    if not said or not wanted:
        return 0
    return int(need("rapidfuzz.distance", extra="evals").LCSseq.similarity(said, wanted))


def _union_matches(said: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> tuple[int, int, int]:
    """Count the words of each expected line that a subsequence shared with any line of the answer holds.

    A word counts at most as often as it stands in both texts (Lin 2004, section 3.2, and ROUGE 1.5.5).
    """
    left_said = Counter(word for line in said for word in line)
    left_wanted = Counter(word for line in wanted for word in line)
    lengths = left_said.total(), left_wanted.total()
    shared = 0
    for line in wanted:
        for at in sorted(set().union(*(_subsequence(line, other) for other in said))):
            word = line[at]
            if left_said[word] > 0 and left_wanted[word] > 0:
                shared += 1
                left_said[word] -= 1
                left_wanted[word] -= 1
    return shared, *lengths


def _subsequence(first: Sequence[str], second: Sequence[str]) -> set[int]:
    """Return where in `first` a longest common subsequence stands; which one is as rouge-score picks it.

    A row of the table of lengths is one integer, bit j clear where the length grows at column j (Hyyrö 2004),
    so a cell is a count of clear bits below it.
    """
    width = len(second)
    places: dict[str, int] = {}
    for at, word in enumerate(second):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << width) - 1
    rows = [full]
    for word in first:
        row = rows[-1]
        hits = row & places.get(word, 0)
        rows.append((row + hits | row - hits) & full)

    def length(i: int, j: int) -> int:
        return j - (rows[i] & ((1 << j) - 1)).bit_count()

    found: set[int] = set()
    i, j = len(first), width
    while i and j:
        if first[i - 1] == second[j - 1]:
            found.add(i - 1)
            i, j = i - 1, j - 1
        elif length(i, j - 1) > length(i - 1, j):
            j -= 1
        else:
            i -= 1
    return found


@dataclass(frozen=True, slots=True)
class Edit:
    """How near the answer is to the best of the expected ones by edits of characters; 1 means equal."""

    measure: Literal["levenshtein", "damerau", "jaro", "jaro_winkler"] = "levenshtein"
    """damerau: swapped neighbours are one edit; jaro and jaro_winkler: for names and other short texts."""
    normalised: bool = False
    """Forgive case, punctuation, English articles and blanks first."""

    def __post_init__(self) -> None:
        require("rapidfuzz")

    @property
    def name(self) -> str:
        """The metric's name, such as edit or edit_jaro."""
        return "edit" if self.measure == "levenshtein" else f"edit_{self.measure}"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not case.golds:
            return unscored(NO_EXPECTED)
        alike = getattr(need("rapidfuzz.distance", extra="evals"), _DISTANCES[self.measure])
        read = normalise if self.normalised else str.strip
        answer = read(output.text)
        return scored(max(alike.normalized_similarity(answer, read(gold)) for gold in case.golds))


_DISTANCES = {
    "levenshtein": "Levenshtein",
    "damerau": "DamerauLevenshtein",
    "jaro": "Jaro",
    "jaro_winkler": "JaroWinkler",
}
