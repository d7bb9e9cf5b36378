"""The same bodies to `mlflow models serve` and to us, over the same models: one answer, but for a list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from support.gateway import Gateway, Running
from support.mlflow_server import Learned, mlflow_server

pytestmark = [
    # MLflow's own models use what SQLAlchemy 2.1 and Python deprecate; nothing of ours can change that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    # What MLflow says of models with whole numbers, and of inputs without an example.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

NAMES = ["area", "rooms", "city", "furnished"]
"""Of `flat`: a number that may be missing, a whole number, a text and a truth."""
ROWS: list[list[Any]] = [[50.0, 2, "Oslo", True], [70.5, 3, "Rome", False]]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
COLUMNS = {name: [row[at] for row in ROWS] for at, name in enumerate(NAMES)}
POINTS = [[0.1, 0.2], [0.9, 0.9]]
"""Of `leaf`, whose model in MLflow reads a matrix without names."""
CSV = "area,rooms,city,furnished\n50.0,2,Oslo,True\n70.5,3,Rome,False\n"
LARGE = '{"dataframe_split":{"columns":["area","rooms","city","furnished"],"data":[[%s,2,"Oslo",true]]}}'


def split(*rows: list[Any], names: Any = NAMES, **more: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": names, "data": list(rows), **more}}


def first(**changed: Any) -> dict[str, Any]:
    """Two rows, the first with other values."""
    return split(list({**RECORDS[0], **changed}.values()), ROWS[1])


def only(**changed: Any) -> dict[str, Any]:
    """The first row with other values, and no second."""
    return split(list({**RECORDS[0], **changed}.values()))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in RECORDS[1].items() if key != name}


FLAT: dict[str, Any] = {
    "a table": split(*ROWS),
    "columns in another order": split(*(row[::-1] for row in ROWS), names=NAMES[::-1]),
    "an index": split(*ROWS, index=[5, 6]),
    "an index of another length": split(*ROWS, index=[5]),
    "an unknown field in the table": split(*ROWS, names_of="x"),
    "a spare column": split(*([*row, 1] for row in ROWS), names=[*NAMES, "spare"]),
    "a column too few": split(*(row[:3] for row in ROWS), names=NAMES[:3]),
    "a column twice": split(*([*row, 1.0] for row in ROWS), names=[*NAMES, "area"]),
    "columns without names": {"dataframe_split": {"data": ROWS}},
    "columns that are counted": split(*ROWS, names=[0, 1, 2, 3]),
    "a table without data": {"dataframe_split": {"columns": NAMES}},
    "a table without rows": split(),
    "a table that is a list": {"dataframe_split": ROWS},
    "a row too short": split(ROWS[0], ROWS[1][:2]),
    "a truth among numbers": first(area=True),
    "a truth among whole numbers": first(rooms=True),
    "a whole number among truths": first(furnished=0),
    "zeros and ones for truths": split([50.0, 2, "Oslo", 1], [70.5, 3, "Rome", 0]),
    "a whole number for a real one": only(area=50),
    "a whole number with a point": only(rooms=2.0),
    "a missing number": first(area=None),
    "nothing but missing numbers": only(area=None),
    "NaN, as Python writes it": LARGE % "NaN",
    "a missing whole number": first(rooms=None),
    "a missing truth": first(furnished=None),
    "a text for a number": only(area="fifty"),
    "a city that training has not seen": only(city="Paris"),
    "records": {"dataframe_records": RECORDS},
    "records in another order": {"dataframe_records": [RECORDS[0], dict(reversed(RECORDS[1].items()))]},
    "a record that lacks a number": {"dataframe_records": [RECORDS[0], without("area")]},
    "a record that lacks a whole number": {"dataframe_records": [RECORDS[0], without("rooms")]},
    "one record alone": {"dataframe_records": RECORDS[0]},
    "no records": {"dataframe_records": []},
    "records that are lists": {"dataframe_records": ROWS},
    "instances": {"instances": RECORDS},
    "an instance that lacks a number": {"instances": [RECORDS[0], without("area")]},
    "instances by column": {"instances": COLUMNS},
    "instances that are lists": {"instances": ROWS},
    "inputs": {"inputs": COLUMNS},
    "inputs by row": {"inputs": RECORDS},
    "inputs of one row": {"inputs": RECORDS[0]},
    "inputs of other lengths": {"inputs": {**COLUMNS, "area": [1.0]}},
    "inputs with a spare column": {"inputs": {**COLUMNS, "spare": [1, 2]}},
    "params that the model does not know": {**split(*ROWS), "params": {"top_k": 1}},
    "params that are null": {**split(*ROWS), "params": None},
    "an unknown field": {**split(*ROWS), "whatever": 1},
    "two forms": {**split(*ROWS), "instances": RECORDS},
    "no form": {},
    "a list": [1],
    "null": None,
    "no JSON": "{",
    "no body": "",
    "no UTF-8": b'{"dataframe_split": "\xff"}',
}
LEAF: dict[str, Any] = {
    "a matrix": {"inputs": POINTS},
    "instances of a matrix": {"instances": POINTS},
    "a table without names": {"dataframe_split": {"data": POINTS}},
    "a table whose columns are counted": {"dataframe_split": {"columns": [0, 1], "data": POINTS}},
    "a tensor of three dimensions": {"inputs": [[row] for row in POINTS]},
    "a matrix that is too narrow": {"inputs": [[0.1], [0.2]]},
    "a vector": {"inputs": [0.1, 0.2]},
    "a number": {"inputs": 0.1},
    "rows of other lengths": {"inputs": [[0.1, 0.2], [0.1]]},
    "texts in a matrix": {"inputs": [["a", "b"]]},
}
SHEETS: dict[str, tuple[str, str | bytes]] = {
    "CSV": ("text/csv", CSV),
    "CSV that says UTF-8": ("text/csv; charset=utf-8", CSV),
    "CSV that says Latin 1": ("text/csv; charset=latin-1", CSV),
    "CSV from Windows": ("text/csv", "\ufeff" + CSV.replace("\n", "\r\n")),
    "an empty cell": ("text/csv", CSV.replace("50.0", "")),
    "a cell that says NA": ("text/csv", CSV.replace("50.0", "NA")),
    "a row that ends early": ("text/csv", "city,furnished,rooms,area\nOslo,True,2\n"),
    "a row that goes on": ("text/csv", CSV.replace("True", "True,6,7")),
    "truths as numbers": ("text/csv", CSV.replace("True", "1").replace("False", "0")),
    "truths in small letters": ("text/csv", CSV.replace("True", "true").replace("False", "false")),
    "a quoted city": ("text/csv", CSV.replace("Oslo", '"Os, lo"')),
    "a city that is called NA": ("text/csv", CSV.replace("Oslo", "NA")),
    "a city of digits": ("text/csv", CSV.replace("Oslo", "007")),
    "an index in front": ("text/csv", ",area,rooms,city,furnished\n0,50.0,2,Oslo,True\n"),
    "a cell that is no number": ("text/csv", CSV.replace("50.0", "fifty")),
    "a whole number that is missing": ("text/csv", CSV.replace(",2,", ",,")),
    "a missing column": ("text/csv", "area,rooms,city\n50.0,2,Oslo\n"),
    "a head without rows": ("text/csv", "area,rooms,city,furnished\n"),
    "nothing": ("text/csv", ""),
    "CSV that is no UTF-8": ("text/csv", b"area\n\xff\n"),
    "XML": ("application/xml", "<a/>"),
    "a form": ("application/x-www-form-urlencoded", json.dumps(split(*ROWS))),
    "JSON as MLflow 1 took it": ("application/json; format=pandas-split", json.dumps(split(*ROWS))),
    "JSON that says UTF-8": ("application/json; charset=UTF-8", json.dumps(split(*ROWS))),
}
KEPT: Mapping[str, tuple[str, Any, int, str]] = {
    "a missing text": (
        "flat",
        first(city=None),
        400,
        "a categorical column is `required` in its contract; MLflow scores it as none of the known ones",
    ),
    "a missing cell of texts": ("flat", CSV.replace("Oslo", ""), 400, "the same, in CSV"),
    "a record that lacks a text": ("flat", {"dataframe_records": [RECORDS[0], without("city")]}, 400, "same"),
    "a number for a text": ("flat", first(city=7), 400, "MLflow scores it as none of the known ones"),
    "a text that says a number": ("flat", first(area="50"), 400, "a text is none, whatever it says"),
    "a broken number for a whole one": ("flat", only(rooms=2.5), 400, "MLflow cuts it down to 2 unsaid"),
    "an infinite number": ("flat", LARGE % "Infinity", 400, "the model was never trained on one"),
    "a number beyond 32 bits": ("flat", only(area=1e300), 400, "it would be infinite to the ONNX graph"),
    "a missing number that must be there": (
        "leaf",
        {"inputs": [[None, 0.2]]},
        400,
        "the column is `required` in its contract",
    ),
    "columns that are nested": (
        "flat",
        {"inputs": {name: [[value] for value in values] for name, values in COLUMNS.items()}},
        200,
        "they are tensors of shape [rows, 1], as they are where MLflow's signature has tensors",
    ),
    "names to a matrix": (
        "leaf",
        {"inputs": {"a": [0.1, 0.9], "b": [0.2, 0.9]}},
        200,
        "our columns always have names; MLflow's signature of this model has none",
    ),
}
"""By name: model, body, our status, and why it is not MLflow's."""


class Pair:
    """MLflow's servers, and the gateway with the same models."""

    def __init__(self, peers: Mapping[str, str], gateway: Gateway) -> None:
        self.peers = peers
        self.gateway = gateway

    def theirs(self, model: str, body: bytes | str, kind: str = "application/json") -> httpx.Response:
        headers = {"content-type": kind}
        return httpx.post(f"{self.peers[model]}/invocations", content=body, headers=headers, timeout=60)

    def ours(self, model: str, body: bytes | str, kind: str = "application/json") -> httpx.Response:
        with self.gateway.client(headers={"content-type": kind}) as client:
            return client.post(f"/models/{model}/invocations", content=body)


@pytest.fixture(scope="session")
def pair(learned: Learned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    settings = learned.settings(tmp_path_factory.mktemp("pair") / "home")
    one, two = (mlflow_server(learned.logged[name]) for name in ("flat", "leaf"))
    with one as flat, two as leaf, Running(settings, {}) as gateway:
        yield Pair({"flat": flat, "leaf": leaf}, gateway)


def written(body: Any) -> bytes | str:
    return body if isinstance(body, str | bytes) else json.dumps(body)


def check(ours: httpx.Response, theirs: httpx.Response) -> None:
    assert ours.status_code == theirs.status_code, (ours.text, theirs.text)
    if theirs.status_code == 200:
        found, expected = ours.json()["predictions"], theirs.json()["predictions"]
        # MLflow scores with scikit-learn in 64 bits, we with ONNX in 32.
        assert found == (expected if isinstance(expected[0], str) else pytest.approx(expected, rel=1e-4))
        return
    said = ours.json()
    assert said.keys() == {"error_code", "message"}
    assert all(isinstance(part, str) and part for part in said.values())


@pytest.mark.parametrize("name", FLAT)
def test_named_columns_are_answered_as_mlflow_does(pair: Pair, name: str) -> None:
    body = written(FLAT[name])
    check(pair.ours("flat", body), pair.theirs("flat", body))


@pytest.mark.parametrize("name", LEAF)
def test_matrices_are_answered_as_mlflow_does(pair: Pair, name: str) -> None:
    body = written(LEAF[name])
    check(pair.ours("leaf", body), pair.theirs("leaf", body))


@pytest.mark.parametrize("name", SHEETS)
def test_other_media_are_answered_as_mlflow_does(pair: Pair, name: str) -> None:
    kind, body = SHEETS[name]
    check(pair.ours("flat", body, kind), pair.theirs("flat", body, kind))


@pytest.mark.parametrize("name", KEPT)
def test_where_we_differ_it_is_on_purpose(pair: Pair, name: str) -> None:
    model, body, status, _ = KEPT[name]
    kind = "text/csv" if body is not None and isinstance(body, str) and body[0] != "{" else "application/json"
    ours, theirs = (ask(model, written(body), kind) for ask in (pair.ours, pair.theirs))
    assert (ours.status_code, theirs.status_code) == (status, 600 - status)  # 200 here is 400 there


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_a_probe_hears_that_the_server_runs(pair: Pair, path: str) -> None:
    asked = [httpx.get(url + path) for url in (pair.gateway.url, pair.peers["flat"])]
    assert [answer.status_code for answer in asked] == [200, 200]


def test_parquet_is_refused_and_said_to_be(pair: Pair) -> None:
    answer = pair.ours("flat", b"PAR1", "application/vnd.apache.parquet")
    assert (answer.status_code, "text/csv" in answer.json()["message"]) == (415, True)


def test_what_a_table_lacks_is_told_by_column_and_row(pair: Pair) -> None:
    for body in (first(city=None), only(city=None)):
        assert "'city': row 0 (from 0) is missing" in pair.ours("flat", written(body)).json()["message"]
