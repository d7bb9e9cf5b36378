"""MLflow's four forms of a table in JSON, as the Open Inference Protocol's tensors.

Columns become tensors of their own; values without names become one tensor with the rows in front.
"""

from __future__ import annotations

import itertools
from typing import Any

from trilith_gateway.request import refuse

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_SPLIT = {"columns", "data", "index"}

Body = dict[str, Any]


def request(body: Body) -> Body:
    """Return an inference request that asks the same.

    Raises:
        BadRequestError: the body is none of the forms.
    """
    forms = [form for form in _FORMS if form in body]
    if len(forms) != 1:
        found = " and ".join(forms) or "none"
        refuse(f"The body holds {found} of {', '.join(_FORMS)}; expected exactly one.", None)
    form = forms[0]
    given = body[form]
    if form == "dataframe_split":
        return _split(given)
    if form == "dataframe_records":
        return _records(given, form)
    if isinstance(given, dict):
        return _columns({name: _column(values) for name, values in given.items()}, form)
    if isinstance(given, list) and given and isinstance(given[0], dict):
        return _records(given, form)
    return _matrix(given, form)


def columns(tensors: list[Body]) -> Body:
    """Return an inference request for a table's columns.

    It says that they are a data frame (MLServer's word for it): a model takes of them what it reads.
    """
    return {"parameters": {"content_type": "pd"}, "inputs": tensors}


def _split(given: object) -> Body:
    if not isinstance(given, dict):
        refuse("`dataframe_split` is not an object with `columns` and `data`.", "dataframe_split")
    if given.keys() - _SPLIT:
        refuse("`dataframe_split` holds more than columns, data and index.", "dataframe_split")
    names, rows = given.get("columns"), given.get("data")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        refuse("`dataframe_split.data` is missing or not a list of rows.", "dataframe_split")
    index = given.get("index")
    if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
        refuse(f"`dataframe_split.index` is not a list of {len(rows)} entries.", "dataframe_split")
    if names is None:
        return _matrix(rows, "dataframe_split")
    if not isinstance(names, list) or not ({*map(type, names)} <= {str} or {*map(type, names)} <= {int}):
        refuse("`dataframe_split.columns` is not a list of names.", "dataframe_split")
    if any(len(row) != len(names) for row in rows):
        refuse(f"a row of `dataframe_split.data` has not {len(names)} values.", "dataframe_split")
    if names and type(names[0]) is int:  # so pandas counts columns that have no names
        return _matrix(rows, "dataframe_split")
    if len(set(names)) < len(names):
        refuse("`dataframe_split.columns` names a column twice.", "dataframe_split")
    values = map(list, zip(*rows, strict=True))
    return _columns(dict(zip(names, values, strict=True)), "dataframe_split")


def _records(given: object, form: str) -> Body:
    if not isinstance(given, list) or not given or not all(isinstance(row, dict) for row in given):
        refuse(f"`{form}` is not a list of objects, one for each row.", form)
    names = list(dict.fromkeys(itertools.chain.from_iterable(given)))
    if form == "instances" and any(len(row) != len(names) for row in given):
        refuse("the rows of `instances` do not all have the same columns.", form)
    # What a row of a data frame lacks is missing, as pandas reads it.
    return _columns({name: [row.get(name) for row in given] for name in names}, form)


def _columns(named: dict[str, list[Any]], form: str) -> Body:
    tensors = [_tensor(name, values, form) for name, values in named.items()]
    if len({tensor["shape"][0] for tensor in tensors}) > 1:
        refuse(f"the columns of `{form}` are not of equal length.", form)
    return columns(tensors)


def _matrix(given: object, form: str) -> Body:
    if not isinstance(given, list) or not given:
        refuse(f"`{form}` is empty or not a list of rows.", form)
    rows = given if isinstance(given[0], list) else [[value] for value in given]
    return {"parameters": {"content_type": "np"}, "inputs": [_tensor("input", rows, form)]}


def _column(values: object) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _tensor(name: str, values: list[Any], form: str) -> Body:
    shape = [len(values)]
    while values and isinstance(values[0], list):
        size = len(values[0])
        if any(type(part) is not list or len(part) != size for part in values):
            refuse(f"the rows of `{form}` are not of equal length.", form)
        values = list(itertools.chain.from_iterable(values))
        shape.append(size)
    kinds = {*map(type, values)}
    if bool in kinds and kinds <= {bool, int, float, type(None)} and kinds != {bool}:
        # Among numbers a truth is one of them, as pandas reads it.
        values = [int(value) if type(value) is bool else value for value in values]
        kinds = {*map(type, values)}
    return {"name": name, "shape": shape, "datatype": _datatype(kinds), "data": values}


def _datatype(kinds: set[type]) -> str:
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    return "FP64" if kinds <= {int, float, type(None)} else "BYTES"
