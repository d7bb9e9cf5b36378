"""What a caller asks of the cache: `cache-control` in a request, by the words of RFC 9111, section 5.2.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants."""

    stored: bool = True
    """False (`no-store`): nothing of this request is kept, and nothing kept answers it."""
    fresh: bool = False
    """True (`no-cache`): the model is asked; what it says is kept for others."""
    max_age_s: float | None = None
    """Oldest answer that will do (seconds); also allows a kept one where the model answers differently each
    time."""


NO_WISH = Wish()


def read(headers: Mapping[str, str]) -> Wish:
    """Read the header; what cannot be understood counts as not said."""
    given = headers.get("cache-control")
    if given is None:
        return NO_WISH
    words = {}
    for part in given.lower().split(","):
        name, _, value = part.partition("=")
        words[name.strip()] = value.strip().strip('"')
    age = words.get("max-age", "")
    return Wish(
        stored="no-store" not in words,
        fresh="no-cache" in words,
        max_age_s=float(age) if age.isascii() and age.isdecimal() and len(age) < 12 else None,
    )
