"""Reads multipart/form-data where it lies: fields are found, never copied; files stay bytes in their place.

RFC 7578, with the boundary rules of RFC 2046 section 5.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import Any, TypeAlias

from trilith_gateway import request

_MOST_PARTS = 64
_MOST_HEAD_BYTES = 4096
_MOST_FIELD_BYTES = 1024 * 1024
"""Longest value that is not a file."""
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'(?<![a-z*])name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILENAME = re.compile(rb'filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE)

Source: TypeAlias = bytes | mmap


@dataclass(frozen=True, slots=True)
class Part:
    """One field or file."""

    name: str
    filename: str | None
    """None: a field."""
    start: int
    end: int
    """Where its value stands in the body, `[start, end)`."""


def parts(raw: Source, content_type: str) -> Iterator[Part]:
    """Yield the parts of a body in order.

    Raises:
        BadRequestError: it is not multipart/form-data, breaks off, or has too many parts.
    """
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        request.refuse("The body is not multipart/form-data with a boundary.", None)
    mark = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    at = raw.find(mark)
    if at < 0 or (at > 0 and raw[at - 2 : at] != b"\r\n"):
        request.refuse("The body does not begin with its boundary.", None)
    for _ in range(_MOST_PARTS):
        at += len(mark)
        if raw[at : at + 2] == b"--":
            return
        head_end = raw.find(b"\r\n\r\n", at, at + _MOST_HEAD_BYTES)
        if head_end < 0:
            request.refuse("A part of the body has no head, or one that is too long.", None)
        value = head_end + 4
        end = raw.find(b"\r\n" + mark, head_end + 2)
        if end < 0:
            request.refuse("The body breaks off before its last boundary.", None)
        yield _part(bytes(raw[at:head_end]), value, max(value, end))
        at = end + 2
    request.refuse(f"The body has more than {_MOST_PARTS} parts.", None)


def _part(head: bytes, start: int, end: int) -> Part:
    name, filename = _NAME.search(head), _FILENAME.search(head)
    if name is None:
        request.refuse("A part of the body has no name.", None)
    written = filename[1].decode("utf-8", "replace") if filename else None
    return Part(name[1].decode("utf-8", "replace"), written, start, end)


def read(raw: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return a body's fields as texts, and its files as `(start, end)` in it; of equal names the last counts.

    Raises:
        BadRequestError: the body cannot be read, or a field is too long or not UTF-8.
    """
    found: dict[str, Any] = {}
    for part in parts(raw, headers.get("content-type", "")):
        if part.filename is not None:
            found[part.name] = (part.start, part.end)
        else:
            found[part.name] = text(raw, part)
    return found


def text(raw: Source, part: Part) -> str:
    """Return a field's value.

    Raises:
        BadRequestError: it is too long or not UTF-8.
    """
    if part.end - part.start > _MOST_FIELD_BYTES:
        request.refuse(f"`{part.name}` is longer than {_MOST_FIELD_BYTES:,} bytes.", part.name)
    try:
        return raw[part.start : part.end].decode()
    except UnicodeDecodeError:
        request.refuse(f"`{part.name}` is not a text in UTF-8.", part.name)


def splice(raw: bytes, headers: Mapping[str, str], changes: Mapping[str, object]) -> bytes:
    """Return `raw` with the fields of `changes` replaced; all other bytes stay. Fields are never added.

    Raises:
        BadRequestError: a field that must be changed is given twice; which of them counts is anyone's guess.
    """
    out: list[bytes] = []
    at = 0
    seen: set[str] = set()
    for part in parts(raw, headers.get("content-type", "")):
        if part.name not in changes:
            continue
        if part.name in seen:
            request.refuse(f"The body gives {part.name!r} twice.", part.name)
        seen.add(part.name)
        out += (raw[at : part.start], str(changes[part.name]).encode())
        at = part.end
    out.append(raw[at:])
    return b"".join(out)
