"""Heads of requests that come again: a client sends the same one each time, but for the body's length.

Reading a head costs as much as admitting the request. One that the parser has accepted is known again by its
bytes; everything else is the parser's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trilith_gateway.wire.route import Found

_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})\r\n", re.IGNORECASE)
_DIGITS = 9


class KnownHead:
    """One head, cut where its length stands."""

    __slots__ = ("_after", "_before", "_cut", "found", "headers", "url")

    def __init__(
        self, before: bytes, after: bytes, url: bytes, found: Found, headers: dict[str, str]
    ) -> None:
        self._before = before
        self._cut = len(before)
        self._after = after
        self.url = url
        self.found = found
        self.headers = headers
        """As all requests with this head see them: nobody may change them. The length is the first one's."""

    def read(self, data: bytes) -> tuple[int, int] | None:
        """Return where the body begins and its length, if `data` begins with this head; else None."""
        if not data.startswith(self._before):
            return None
        cut = self._cut
        end = data.find(b"\r", cut, cut + _DIGITS + 1)
        length = data[cut:end]
        if end < 0 or not length.isdigit() or not data.startswith(self._after, end):
            return None
        return end + len(self._after), int(length)


def known_head(
    data: bytes, url: bytes, found: Found, headers: Sequence[tuple[bytes, bytes]]
) -> KnownHead | None:
    """Return what knows a head again; None for one that is not simple enough.

    Args:
        data: What came: at its start a head that the parser has accepted.
        url: Its target.
        found: What it asks for.
        headers: Its headers, with lower-case names.
    """
    given = [value for name, value in headers if name == b"content-length"]
    if len(given) != 1 or any(name in _NOT_SIMPLE for name, _ in headers):
        return None
    end = data.find(b"\r\n\r\n")
    lines = data.count(b"\r\n", 0, end)  # of which the first is no header: it must end where the parser says
    if end < 0 or lines != len(headers) or lines != data.count(b"\n", 0, end):
        return None
    places = list(_LENGTH.finditer(data, 0, end + 2))
    if len(places) != 1 or places[0][1] != given[0]:
        return None
    start, stop = places[0].span(1)
    return KnownHead(data[:start], data[stop : end + 4], url, found, readable(headers))


def readable(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers as texts by name."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def small(headers: Sequence[tuple[bytes, bytes]], most_bytes: int) -> bool:
    """Say whether headers announce a body of at most `most_bytes`, and nothing that may refuse it unread."""
    found = False
    for name, value in headers:
        if name == b"content-length":
            found = value.isdigit() and len(value) < _DIGITS and int(value) <= most_bytes
        elif name == b"content-encoding":
            return False
    return found


_NOT_SIMPLE = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
