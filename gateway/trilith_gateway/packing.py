"""Bodies that their senders packed: gzip alone, and unpacked no longer than any other body may be."""

from __future__ import annotations

import zlib

from trilith.errors import APIStatusError
from trilith_gateway.exchange import too_large
from trilith_gateway.request import refuse

_GZIP = ("gzip", "x-gzip")
_NONE = ("", "identity")


def check(encoding: str) -> None:
    """Refuse what cannot be unpacked; the body need not be read for it.

    Raises:
        APIStatusError: 415, the `Content-Encoding` is neither gzip nor none.
    """
    if encoding.lower() not in _GZIP + _NONE:
        raise APIStatusError(
            f"The body's Content-Encoding is {encoding[:40]!r}; expected gzip, or none.",
            status_code=415,
            code="unsupported_encoding",
            type="invalid_request_error",
        )


def unpacked(raw: bytes, encoding: str, most_bytes: int) -> bytes:
    """Return a body as it was before its sender packed it.

    Raises:
        APIStatusError: 413, it comes to more than `most_bytes`; 415, as `check` says.
        BadRequestError: it is not gzip, breaks off, or goes on after its end.
    """
    check(encoding)
    if encoding.lower() in _NONE:
        return raw
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(raw, most_bytes + 1)
    except zlib.error:
        refuse("The body is not gzip, as its Content-Encoding says.", None)
    if len(found) > most_bytes:
        raise too_large(most_bytes)
    if not unpacker.eof or unpacker.unused_data:
        refuse("The body breaks off, or more than one gzip stream stands in it.", None)
    return found
