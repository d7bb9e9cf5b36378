"""MLflow's scoring protocol (`POST /invocations`), said in the Open Inference Protocol and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from trilith.errors import APIConnectionError, APIError, APIStatusError, BadRequestError
from trilith_gateway import fault, request
from trilith_gateway.inference import frame, sheet

_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CSV = "text/csv"
_JSON = "application/json"

Body = dict[str, Any]


def in_csv(headers: Mapping[str, str]) -> bool:
    """Say whether a body is a table in CSV; otherwise it is JSON.

    Raises:
        APIStatusError: 415, it is neither, or says of itself what nobody here reads.
    """
    kind, _, rest = headers.get("content-type", _JSON).partition(";")
    kind = kind.strip().lower()
    if kind not in (_CSV, _JSON):
        _unread(f"The body's Content-Type is neither {_JSON} nor {_CSV}.")
    for parameter in filter(None, map(str.strip, rest.split(";"))):
        name, _, value = parameter.partition("=")
        if name.strip().lower() != "charset" or value.strip(' "').lower() not in ("utf-8", "utf8"):
            _unread("The body's Content-Type says more than its kind; expected charset=utf-8, or nothing.")
    return kind == _CSV


def to_inference(raw: bytes) -> bytes:
    """Return an inference request that asks the same as a JSON body.

    Raises:
        BadRequestError: the body is none of MLflow's forms.
    """
    return orjson.dumps(frame.request(_decoded(raw)))


def csv_to_inference(raw: bytes, columns: Mapping[str, sheet.Column]) -> bytes:
    """Return an inference request that asks the same as a table in CSV.

    Args:
        raw: The table, its columns' names in the first line.
        columns: What the model reads, by name; empty: it does not say.

    Raises:
        BadRequestError: it is not a table, or holds what a column cannot.
    """
    return orjson.dumps(sheet.request(raw, columns))


def to_predictions(answer: bytes) -> bytes:
    """Return an inference answer as MLflow's: the model's `predict`, one value or list of values per row.

    A model that gives several outputs and none of that name answers with all of them, by name.

    Raises:
        APIConnectionError: it is no inference answer.
    """
    try:
        outputs = orjson.loads(answer)["outputs"]
        given = {str(output["name"]): _nested(output["data"], output["shape"]) for output in outputs}
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise APIConnectionError("the model's server gave an answer that is not of its protocol") from None
    if "predict" in given:
        return orjson.dumps({"predictions": given["predict"]})
    return orjson.dumps({"predictions": next(iter(given.values())) if len(given) == 1 else given})


def to_error(answer: bytes, status: int) -> bytes:
    """Return an inference error's body in MLflow's words."""
    try:
        said = orjson.loads(answer)
    except orjson.JSONDecodeError:  # an upstream's own
        said = None
    message = said.get("error", "") if isinstance(said, dict) else ""
    return orjson.dumps(_error(status, message if isinstance(message, str) else ""))


def error(error: APIError) -> Body:
    """Return an error in MLflow's words."""
    return _error(fault.status(error), error.message)


def _error(status: int, message: str) -> Body:
    other = "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR"
    return {"error_code": _CODES.get(status, other), "message": message}


def _unread(message: str) -> NoReturn:
    raise APIStatusError(
        message, status_code=415, code="unsupported_media_type", type="invalid_request_error"
    )


def _decoded(raw: bytes) -> Body:
    """Return the body's object; NaN, which Python writes for a missing number and JSON has not, is null."""
    try:
        return request.decode(raw)
    except BadRequestError as refused:
        if b"NaN" not in raw and b"Infinity" not in raw:
            raise
        try:
            found = json.loads(raw.decode(), parse_constant=_constant, parse_float=_finite)
            return request.decode(orjson.dumps(found))
        except (ValueError, RecursionError, TypeError):  # orjson's errors are of these
            raise refused from None


def _constant(name: str) -> None:
    if name != "NaN":
        request.refuse("The body holds an infinite number, which no model reads.", None)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        request.refuse("The body holds a number that is too large.", None)
    return number


def _nested(values: list[Any], shape: list[int]) -> list[Any]:
    """Return a tensor's flat values as lists in lists; what has one value per row is a list of values."""
    if values and isinstance(values[0], list):
        return values
    if math.prod(shape) != len(values):
        raise ValueError(f"{shape} is not the shape of {len(values)} values")
    if shape[1:] == [1]:
        return values
    for size in reversed(shape[1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)] if size else []
    return values
