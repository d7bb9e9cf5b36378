"""Bodies of the Open Inference Protocol: JSON, or JSON followed by tensors as bytes (Triton's extension).

Needs neither numpy nor a model, so that a gateway can read what it only passes on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import orjson

from trilith.errors import BadRequestError, PermissionDeniedError

HEADER = "inference-header-content-length"
"""Says how many bytes of a body are JSON; what follows them are tensors."""
SIZE = "binary_data_size"
"""A tensor's parameter: how many of those bytes are its own."""

MOST_VALUES = 10_000_000
"""Largest tensor that is read."""
MOST_DIMENSIONS = 32
"""numpy has 64 at most, and no model reads so many."""

Body = dict[str, Any]


def refuse(message: str) -> NoReturn:
    """Raise the error that answers a malformed request."""
    raise BadRequestError(message, status_code=400, type="invalid_request_error")


def count(shape: Sequence[int]) -> int | None:
    """Return how many values a tensor of this shape has; None: too many, or in too many dimensions.

    It is not multiplied to its end: the product of what one body can hold has millions of digits.
    """
    if len(shape) > MOST_DIMENSIONS:
        return None
    total = 1
    for size in shape:
        total *= size or 1
        if total > MOST_VALUES:
            return None
    return 0 if 0 in shape else total


def uncontrolled(name: str) -> PermissionDeniedError:
    """Return the error for a caller who would load or unload a model, and may not."""
    return PermissionDeniedError(
        f"{name!r} is loaded and unloaded by its settings alone (models.NAME.control is off)",
        status_code=403,
    )


def read(raw: bytes, headers: Mapping[str, str]) -> Body:
    """Return a request's JSON object.

    Tensors that came as bytes get them as `data`: a memoryview of little-endian values, row by row; BYTES
    tensors get a list of texts, so that whoever looks for personal data sees them.

    Args:
        raw: The whole body.
        headers: Lower-case names.

    Raises:
        BadRequestError: not a JSON object, or the sizes do not add up.
    """
    length = headers.get(HEADER)
    if length is None:
        return _object(raw)
    if not (length.isascii() and length.isdigit() and len(length) <= 12) or int(length) > len(raw):
        refuse(
            f"`Inference-Header-Content-Length` is {length[:20]!r}, expected at most the body's {len(raw)}"
        )
    end = int(length)
    body = _object(raw[:end])
    rest = memoryview(raw)[end:]
    inputs = body.get("inputs")
    at = 0
    for tensor in inputs if isinstance(inputs, list) else ():
        size = _size(tensor)
        if size is None:
            continue
        if size > len(rest) - at:
            refuse(f"input {tensor.get('name')!r}: `{SIZE}` {size} is more than the body holds")
        part = rest[at : at + size]
        at += size
        tensor["data"] = unpack(part) if tensor.get("datatype") == "BYTES" else part
    if at != len(rest):
        refuse(f"the body holds {len(rest)} bytes after its JSON, `{SIZE}` accounts for {at}")
    return body


def write(answer: Body, parts: Iterable[bytes]) -> tuple[bytes, dict[str, str]]:
    """Return an answer's body, and the headers that it needs, from its JSON object and its binary tensors."""
    head = orjson.dumps(answer)
    tail = b"".join(parts)
    if not tail and not any(SIZE in (one.get("parameters") or ()) for one in answer.get("outputs", ())):
        return head, {"content-type": "application/json"}
    return head + tail, {"content-type": "application/octet-stream", HEADER: str(len(head))}


def pack(texts: Iterable[str | bytes]) -> bytes:
    """Return BYTES elements as the extension has them: each after its length in four bytes."""
    parts = []
    for text in texts:
        element = text.encode() if isinstance(text, str) else text
        parts.append(struct.pack("<I", len(element)) + element)
    return b"".join(parts)


def unpack(data: memoryview) -> list[str]:
    """Return the texts of a packed BYTES tensor.

    Raises:
        BadRequestError: cut off, or not UTF-8.
    """
    texts = []
    at, end = 0, len(data)
    try:
        while at < end:
            (size,) = struct.unpack_from("<I", data, at)
            at += 4 + size
            if at > end:
                refuse("a BYTES tensor is cut off within an element")
            texts.append(str(data[at - size : at], "utf-8"))
    except struct.error:
        refuse("a BYTES tensor is cut off within a length")
    except UnicodeDecodeError:
        refuse(
            "a BYTES tensor holds an element that is not UTF-8; send bytes as base64 with its content_type"
        )
    return texts


def _size(tensor: object) -> int | None:
    parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
    size = parameters.get(SIZE) if isinstance(parameters, dict) else None
    if size is None:
        return None
    if type(size) is not int or size < 0:
        refuse(f"`{SIZE}` is {size!r}, expected a number of bytes")
    return size


def _object(raw: bytes) -> Body:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        refuse("the body is not valid JSON")
    if type(body) is not dict:
        refuse("the body is not a JSON object")
    return body
