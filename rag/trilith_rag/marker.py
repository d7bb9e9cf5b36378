"""Citation markers such as `[2]` in a text that may still be arriving."""

from __future__ import annotations

import re

_MARKER = re.compile(r"(\s*)\[\s*(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\s*\]")
_UNFINISHED = re.compile(r"\[[\d\s,;]{0,16}$")


class Markers:
    """Gives sources their numbers, from 1 by first use, and rewrites the model's own markers to them.

    The model numbers sources as its prompt does; a number that is no source of it is taken out.
    """

    def __init__(self, sources: int) -> None:
        """Take how many sources the prompt has."""
        self._sources = sources
        self._held = ""
        self.ordered: list[int] = []
        """Cited sources (position in the prompt, from 0) in the order of their numbers."""

    def number(self, source: int) -> int:
        """Return the number of a source, which gets the next one at its first use."""
        if source not in self.ordered:
            self.ordered.append(source)
        return self.ordered.index(source) + 1

    def feed(self, text: str) -> str:
        """Return the text so far with markers rewritten; an unfinished marker waits for the rest."""
        text = self._held + text
        waiting = _UNFINISHED.search(text)
        cut = waiting.start() if waiting else len(text)
        self._held = text[cut:]
        return _MARKER.sub(self._rewritten, text[:cut])

    def rest(self) -> str:
        """Return what waited for an end that did not come."""
        held, self._held = self._held, ""
        return held

    def _rewritten(self, marker: re.Match[str]) -> str:
        told = [int(number) for number in re.findall(r"\d+", marker.group(2))]
        known = dict.fromkeys(self.number(n - 1) for n in told if 1 <= n <= self._sources)
        return marker.group(1) + "".join(f"[{n}]" for n in known) if known else ""


def plain(text: str) -> tuple[str, list[int]]:
    """Return a text without its markers, and the markers' numbers."""
    numbers = [int(n) for marker in _MARKER.finditer(text) for n in re.findall(r"\d+", marker.group(2))]
    return _MARKER.sub("", text), list(dict.fromkeys(numbers))
