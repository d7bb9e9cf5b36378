"""Rows as tensors of the Open Inference Protocol, and its answers as predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from support.caller import Caller
from support.scripted_server import Scripted, Serve

from trilith import DataError
from trilith.client.tensor import prediction, tensors

TABLE: dict[str, list[Any]] = {
    "hr": [1, 2],
    "temp": [0.5, 1.0],
    "open": [True, False],
    "season": ["fall", "été"],
}
TENSORS = [
    {"name": "hr", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]},
    {"name": "temp", "shape": [2, 1], "datatype": "FP64", "data": [0.5, 1.0]},
    {"name": "open", "shape": [2, 1], "datatype": "BOOL", "data": [True, False]},
    {"name": "season", "shape": [2, 1], "datatype": "BYTES", "data": ["fall", "été"]},
]


@pytest.mark.parametrize(
    "rows",
    [
        TABLE,
        [dict(zip(TABLE, values, strict=True)) for values in zip(*TABLE.values(), strict=True)],
        {name: np.array(column) for name, column in TABLE.items()},
        {name: tuple(column) for name, column in TABLE.items()},
        pd.DataFrame(TABLE),
        pd.DataFrame(TABLE).convert_dtypes(),
        pl.DataFrame(TABLE),
    ],
    ids=["columns", "rows", "numpy", "tuples", "pandas", "pandas-nullable", "polars"],
)
def test_any_table_becomes_one_tensor_per_column(rows: Any) -> None:
    assert tensors(rows) == TENSORS


def test_rows_of_numpy_scalars_are_numbers() -> None:
    (row,) = tensors([{"a": np.float32(0.5)}])
    assert (row["datatype"], row["data"]) == ("FP64", [0.5])
    assert type(row["data"][0]) is float


@pytest.mark.parametrize(
    ("column", "datatype", "sent"),
    [
        ([1, 0.5], "FP64", [1, 0.5]),
        ([1, None], "FP64", [1, None]),  # as pandas would read it
        ([0.5, math.nan], "FP64", [0.5, None]),
        ([None, None], "FP64", [None, None]),
        (["a", None], "BYTES", ["a", None]),
        ([b"a"], "BYTES", ["a"]),
        ([True, None], "BOOL", [True, None]),
        ([2**63 - 1, -(2**63)], "INT64", [2**63 - 1, -(2**63)]),
        ([pd.NA, 1.5], "FP64", [None, 1.5]),
        ([pd.NaT, "a"], "BYTES", [None, "a"]),
    ],
)
def test_a_column_s_values_decide_its_datatype(column: list[Any], datatype: str, sent: list[Any]) -> None:
    (tensor,) = tensors({"a": column})
    assert (tensor["datatype"], tensor["data"]) == (datatype, sent)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows is empty"),
        ({}, "rows is empty"),
        ({"a": []}, "rows is empty"),
        ([{}], "rows is empty"),
        ([{"a": 1}, {"b": 1}], "row 1 has other columns than row 0 ('a', 'b')"),
        ({"a": [1], "b": [1, 2]}, "columns have unlike lengths ('a': 1, 'b': 2)"),
        ({"a": "text"}, "column 'a' is a str"),
        ({"a": 4}, "column 'a' is a int"),
        ("text", "rows is a str"),
        ([[1, 2]], "rows is a list"),
        ({"a": [2**63]}, "column 'a' holds an integer beyond 64 bits"),
        ({"a": [math.inf]}, "column 'a' holds an infinity"),
        ({"a": [1, "x"]}, "column 'a' holds int, str"),
        ({"a": [True, 1]}, "column 'a' holds bool, int"),
        ({"a": [object()]}, "column 'a' holds object"),
        ({"a": [[1, 2]]}, "column 'a' holds list"),
        ({"a": np.ones((1, 2))}, "column 'a' holds ndarray"),
        ({"a": [b"\xff"]}, "column 'a' holds bytes that are not UTF-8"),
    ],
)
def test_what_is_no_table_is_refused(rows: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        tensors(rows)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "data", "values"),
    [
        ([2], [1.5, 2.5], [1.5, 2.5]),
        ([2, 1], [1.5, 2.5], [1.5, 2.5]),
        ([2, 1], [[1.5], [2.5]], [1.5, 2.5]),
        ([2, 2], [1, 2, 3, 4], [[1, 2], [3, 4]]),
        ([2, 2], [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ([2, 1, 2], [[[1, 2]], [[3, 4]]], [[1, 2], [3, 4]]),
    ],
)
def test_an_output_has_one_value_per_row(shape: list[int], data: list[Any], values: list[Any]) -> None:
    found = prediction({"outputs": [{"name": "y", "shape": shape, "data": data}]}, "m", "")
    assert found.values == values


def test_an_output_whose_data_does_not_fill_its_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="'y' has 1 values"):
        prediction({"outputs": [{"name": "y", "shape": [2], "data": [1]}]}, "m", "")


def test_a_prediction_over_the_wire(caller: Caller, serve: Serve) -> None:
    outputs = [
        {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["yes"]},
        {"name": "probability", "shape": [1, 2], "datatype": "FP64", "data": [0.1, 0.9]},
    ]
    body = {"model_name": "churn", "model_version": "3", "outputs": outputs}
    server = serve(Scripted(body=body, headers={"x-request-id": "req_1"}))
    found = caller(server.url, lambda client: client.predict("churn", [{"a": 1}]))
    assert server.received[0].path == "/v2/models/churn/infer"
    assert server.received[0].json() == {
        "inputs": [{"name": "a", "shape": [1, 1], "datatype": "INT64", "data": [1]}]
    }
    assert found.outputs == {"label": ["yes"], "probability": [[0.1, 0.9]]}
    assert (found.model, found.version, found.request_id) == ("churn", "3", "req_1")
