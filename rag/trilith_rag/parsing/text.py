"""Plain text: the file as it is; a short first line that stands alone is its title."""

from __future__ import annotations

from trilith_rag.parsing.parsed import Parsed, decoded

_TITLE_CHARS = 120


def parse_text(data: bytes) -> Parsed:
    """Read UTF-8 text; offsets are those of the file."""
    text = decoded(data)
    first, _, rest = text.lstrip("\n").partition("\n")
    alone = rest.startswith("\n") or not rest.strip()
    titled = alone and 0 < len(first.strip()) <= _TITLE_CHARS and not first.rstrip().endswith((".", ",", ";"))
    return Parsed(title=first.strip() if titled else "", text=text)
