"""Reads request bodies: size, JSON, and only those fields that the gateway itself relies on.

Unknown fields are left alone and passed on: vLLM and others take many that OpenAI does not know.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from trilith.errors import BadRequestError
from trilith_gateway.exchange import Api


def parse(api: Api, raw: bytes) -> dict[str, Any]:
    """Return the request's JSON object.

    Raises:
        BadRequestError: not a JSON object, or a field that the gateway relies on is missing or malformed.
    """
    try:
        body = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(f"The body is not valid JSON: {_where(error)}.", None)
    if not isinstance(body, dict):
        _refuse(f"The body is a JSON {type(body).__name__}, expected an object.", None)
    if api is Api.PREDICT:
        _check_tensors(body)
        return body
    if not isinstance(body.get("model"), str) or not body["model"]:
        _refuse(f"`model` is {_show(body.get('model'))}, expected a model's name.", "model")
    if api is Api.CHAT:
        _check_messages(body)
    elif api is Api.EMBEDDING and not body.get("input"):
        _refuse("`input` is missing or empty, expected a text or a list of texts.", "input")
    elif api is Api.COMPLETION and "prompt" not in body:
        _refuse("`prompt` is missing, expected a text or a list of texts.", "prompt")
    for name in ("max_tokens", "max_completion_tokens", "n"):
        value = body.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            _refuse(f"`{name}` is {_show(value)}, expected a whole number of at least 1.", name)
    if not isinstance(body.get("stream", False), bool | None):
        _refuse(f"`stream` is {_show(body['stream'])}, expected true or false.", "stream")
    if not isinstance(body.get("stream_options") or {}, dict):
        _refuse("`stream_options` is not an object.", "stream_options")
    return body


def rows(body: dict[str, Any]) -> int:
    """Return how many rows an inference request holds: the first dimension of its first input."""
    return int(body["inputs"][0]["shape"][0])


def _check_messages(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        _refuse("`messages` is missing or empty, expected a list of messages.", "messages")
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            _refuse(f"`messages[{at}]` is not an object with a `role`.", f"messages[{at}]")


def _check_tensors(body: dict[str, Any]) -> None:
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(i, dict) for i in inputs):
        _refuse("`inputs` is missing or empty, expected a list of tensors.", "inputs")
    shape = inputs[0].get("shape")
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n >= 0 for n in shape):
        _refuse(f"`inputs[0].shape` is {_show(shape)}, expected a list of whole numbers.", "inputs[0].shape")
    if math.prod(shape) > _MOST_VALUES:
        _refuse(f"`inputs[0].shape` comes to more than {_MOST_VALUES:,} values.", "inputs[0].shape")


_MOST_VALUES = 10_000_000


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _where(error: Exception) -> str:
    # The parser's own message quotes nothing of the text but the position, unlike its repr.
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return (
        "it is nested too deep" if isinstance(error, RecursionError) else "it holds a number that is not JSON"
    )


def _show(value: object) -> str:
    return "missing" if value is None else repr(value)[:80]


def _refuse(message: str, param: str | None) -> NoReturn:
    raise BadRequestError(message, status_code=400, param=param, type="invalid_request_error")
