"""Restores placeholders in text that arrives in pieces, however it is cut."""

from __future__ import annotations

from collections.abc import Iterable


class StreamRestorer:
    """Puts originals back while text streams.

    Holds back only the longest end of the text that could still become a live placeholder, so a stream
    without a `<` is never delayed, and never more than one placeholder's length is held.
    """

    def __init__(self, originals: dict[str, str]) -> None:
        """Take placeholder to original; read at each step, so later additions count."""
        self._originals = originals
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what of the text so far is certain."""
        text = self._held + text
        parts: list[str] = []
        at = 0
        while (start := text.find("<", at)) >= 0:
            parts.append(text[at:start])
            match = _live(text, start, self._originals)
            if match is not None:
                parts.append(self._originals[match])
                at = start + len(match)
            elif _beginning(text[start:], self._originals):
                self._held = text[start:]
                return "".join(parts)
            else:
                parts.append("<")
                at = start + 1
        self._held = ""
        return "".join((*parts, text[at:]))

    def flush(self) -> str:
        """Return what was held back; the text has ended."""
        held, self._held = self._held, ""
        return held


def _live(text: str, start: int, placeholders: Iterable[str]) -> str | None:
    return next((p for p in placeholders if text[start : start + len(p)].upper() == p), None)


def _beginning(text: str, placeholders: Iterable[str]) -> bool:
    return any(len(text) < len(p) and p.startswith(text.upper()) for p in placeholders)
