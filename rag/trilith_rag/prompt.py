"""The prompt that asks a small model to answer from numbered sources, within its window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trilith.types import Hit, Message
from trilith_rag.attribution import Source
from trilith_rag.wording import sentences

INSTRUCTION = (
    "Answer the question with the facts in the sources, in one or two short sentences. "
    "If they do not hold the answer, say that you don't know."
)

PROMPT_CHARS = 4500
"""Longest prompt, about 1,300 tokens of English: with 256 for the answer it fits a window of 2,048."""
_HISTORY_CHARS = 1000
_SOURCE_CHARS = 1200
_LEAST_CHARS = 600
"""What the sources get even beside a very long question."""
_WIDE = 3
"""How many characters one character outside ASCII counts for: it takes that many more tokens."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to the generator, and what the answer is checked against."""

    messages: list[dict[str, str]]
    sources: list[Source]


def build_prompt(
    question: str,
    history: Sequence[Message],
    hits: Sequence[Hit],
    *,
    masked: Callable[[str], str],
) -> Prompt:
    """Lay out the sources, best first, then the question.

    Args:
        question: As the model may see it: already masked.
        history: Earlier turns, oldest first, already masked; the newest that fit are kept.
        hits: The passages; those that do not fit are cut at a sentence or left out.
        masked: Puts placeholders into a passage.
    """
    turns = _newest(history)
    room = PROMPT_CHARS - _size(question) - sum(_size(turn.content) for turn in turns) - _size(INSTRUCTION)
    room = max(room, _LEAST_CHARS)
    sources: list[Source] = []
    lines: list[str] = []
    for hit in hits:
        shown = _fitting(hit.chunk.text, min(room, _SOURCE_CHARS))
        if not shown:
            break
        sources.append(Source(hit, shown))
        text = " ".join(hit.chunk.text[:shown].split())
        line = f"[{len(sources)}] {masked(f'{hit.chunk.title}: {text}')}"
        room -= _size(line)
        lines.append(line)
    asked = "Sources:\n" + "\n".join(lines) + f"\n\nQuestion: {question}"
    messages = [{"role": "system", "content": INSTRUCTION}]
    messages += [{"role": turn.role, "content": turn.content} for turn in turns]
    return Prompt([*messages, {"role": "user", "content": asked}], sources)


def _newest(history: Sequence[Message]) -> list[Message]:
    kept: list[Message] = []
    room = _HISTORY_CHARS
    for turn in reversed(history):
        room -= _size(turn.content)
        if room < 0:
            break
        kept.insert(0, turn)
    return kept


def _fitting(text: str, room: int) -> int:
    """Return how many characters of a passage fit: all, or whole sentences; the cut first one at worst."""
    if _size(text) <= room:
        return len(text)
    fitting = 0
    for span in sentences(text):
        if _size(text[: span.end]) > room:
            break
        fitting = span.end
    return fitting or (_prefix(text, room) if room >= _LEAST_CHARS // 2 else 0)


def _prefix(text: str, room: int) -> int:
    low, high = 0, min(len(text), room)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _size(text[:middle]) <= room else (low, middle - 1)
    return low


def _size(text: str) -> int:
    return sum(1 if char.isascii() else _WIDE for char in text)
