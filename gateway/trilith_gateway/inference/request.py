"""Reads bodies of inference requests, plain or with tensors as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trilith_classical.serving import wire
from trilith_gateway import request

HEADER = wire.HEADER
"""Comes with a body that holds tensors as bytes, and goes with such an answer."""


def parse(raw: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the request's JSON object; a tensor that came as bytes has a memoryview as its `data`.

    Raises:
        BadRequestError: not a JSON object, without tensors, or its sizes do not add up.
    """
    body = wire.read(raw, headers) if HEADER in headers else request.decode(raw)
    request.check_tensors(body)
    return body
