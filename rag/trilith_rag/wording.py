"""Sentences and content words: what attribution and relevance are measured by. Knows no model."""

from __future__ import annotations

import re

from trilith.types import Span

_STOP = frozenset(
    (
        "a about after again all also am an and any are as at be because been before being between both "
        "but by can could did do does doing down during each few for from further had has have having he "
        "her here hers him his how i if in into is it its itself just me more most my no nor not now of "
        "off on once only or other our out over own same she should so some such than that the their them "
        "then there these they this those through to too under until up very was we were what when where "
        "which while who whom whose why will with would you your according answer question source sources "
        "text passage "
    ).split()
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|c|ca|No|Inc|Ltd|U\.S))\.$"
)
_END = re.compile(r"[.!?]+[\"'”’)\]]*(?:\s*\[\d{1,3}\])*(?=\s|$)|\n{2,}|\n(?=\s*(?:[-*#]|\d+\.)\s)")


def sentences(text: str) -> list[Span]:
    """Return where each sentence lies, without the white space around it.

    Ends at `.`, `!`, `?` (with quotes and citation markers that follow), at blank lines, and before list
    items; not after initials and common abbreviations.
    """
    found: list[Span] = []
    start = 0
    for end in _END.finditer(text):
        dotted = text[start : end.start() + 1]
        if text[end.start()] == "." and end.end() < len(text) and _ABBREVIATION.search(dotted):
            continue
        _add(found, text, start, end.end())
        start = end.end()
    _add(found, text, start, len(text))
    return found


def _add(found: list[Span], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    if piece.strip():
        found.append(Span(start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())))


def content_words(text: str) -> frozenset[str]:
    """Return the words that carry meaning: lower case, no stop words, plain plurals cut."""
    words = re.findall(r"\w+(?:[.,]\d+)*", text.lower())
    return frozenset(_stem(word) for word in words if word not in _STOP)


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
