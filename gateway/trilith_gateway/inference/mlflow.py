"""MLflow's scoring protocol (`POST /invocations`), said in the Open Inference Protocol and back."""

from __future__ import annotations

from typing import Any

import orjson

from trilith.errors import APIError
from trilith_gateway import fault, request
from trilith_gateway.request import refuse

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}

Body = dict[str, Any]


def to_inference(raw: bytes) -> bytes:
    """Return an inference request that asks the same.

    Columns become tensors of their own; values without names become one tensor `[rows, columns]`.

    Raises:
        BadRequestError: the body is none of MLflow's forms.
    """
    body = request.decode(raw)
    forms = [form for form in _FORMS if form in body]
    if len(forms) != 1:
        found = " and ".join(forms) or "none"
        refuse(f"The body holds {found} of {', '.join(_FORMS)}; expected exactly one.", None)
    given = body[forms[0]]
    if forms[0] == "dataframe_split":
        made = _split(given)
    elif forms[0] == "dataframe_records":
        made = _records(given, forms[0])
    elif isinstance(given, dict):
        made = {"inputs": [_tensor(name, values) for name, values in given.items()]}
    elif isinstance(given, list) and given and isinstance(given[0], dict):
        made = _records(given, forms[0])
    else:
        made = _matrix(given, forms[0])
    return orjson.dumps(made)


def to_predictions(answer: bytes) -> bytes:
    """Return an inference answer as MLflow's: the model's `predict`, one value or list of values per row."""
    outputs = orjson.loads(answer)["outputs"]
    output = next((one for one in outputs if one["name"] == "predict"), outputs[0])
    values, shape = output["data"], output["shape"]
    if len(shape) > 1 and shape[1:] != [1] and not (values and isinstance(values[0], list)):
        width = len(values) // shape[0] if shape[0] else 1
        values = [values[at : at + width] for at in range(0, len(values), width)]
    return orjson.dumps({"predictions": values})


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


def _split(given: object) -> Body:
    table: Body = given if isinstance(given, dict) else {}
    columns, rows = table.get("columns"), table.get("data")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        refuse("`dataframe_split.data` is missing or not a list of rows.", "dataframe_split")
    if columns is None:
        return _matrix(rows, "dataframe_split")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        refuse("`dataframe_split.columns` is not a list of names.", "dataframe_split")
    if any(len(row) != len(columns) for row in rows):
        refuse(f"a row of `dataframe_split.data` has not {len(columns)} values.", "dataframe_split")
    return {
        "inputs": [
            _tensor(*column) for column in zip(columns, map(list, zip(*rows, strict=True)), strict=True)
        ]
    }


def _records(given: object, form: str) -> Body:
    if not isinstance(given, list) or not given or not all(isinstance(row, dict) for row in given):
        refuse(f"`{form}` is not a list of objects, one for each row.", form)
    names = list(given[0])
    if any(row.keys() != given[0].keys() for row in given):
        refuse(f"the rows of `{form}` do not all have the same columns.", form)
    return {"inputs": [_tensor(name, [row[name] for row in given]) for name in names]}


def _matrix(given: object, form: str) -> Body:
    if not isinstance(given, list) or not given:
        refuse(f"`{form}` is empty or not a list of rows.", form)
    rows = [row if isinstance(row, list) else [row] for row in given]
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        refuse(f"the rows of `{form}` are not of equal length.", form)
    values = [value for row in rows for value in row]
    tensor = {"name": "input", "shape": [len(rows), width], "datatype": _datatype(values), "data": values}
    return {"parameters": {"content_type": "np"}, "inputs": [tensor]}


def _tensor(name: str, values: object) -> Body:
    column: list[Any] = values if isinstance(values, list) else [values]
    if column and all(isinstance(value, list) and len(value) == 1 for value in column):
        column = [value for one in column for value in one]
    return {"name": name, "shape": [len(column)], "datatype": _datatype(column), "data": column}


def _datatype(values: list[Any]) -> str:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    return "BYTES" if str in kinds else "FP64"
