"""MLflow's protocol in the Open Inference Protocol's words and back, where no model of ours would show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from support.gateway import Gateway

from trilith.errors import APIConnectionError, BadRequestError
from trilith_classical.manifest import InputColumn
from trilith_classical.serving.reader import Reader
from trilith_gateway.inference import mlflow, sheet


def tensors(body: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = orjson.loads(mlflow.to_inference(orjson.dumps(body)))["inputs"]
    return made


def predictions(*outputs: dict[str, Any]) -> Any:
    return orjson.loads(mlflow.to_predictions(orjson.dumps({"outputs": outputs})))["predictions"]


def output(name: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": "FP64", "shape": shape, "data": data}


def test_pictures_keep_their_shape() -> None:
    (tensor,) = tensors({"inputs": [[[1, 2, 3], [4, 5, 6]]]})
    assert (tensor["shape"], tensor["data"]) == ([1, 2, 3], [1, 2, 3, 4, 5, 6])
    (named,) = tensors({"inputs": {"picture": [[[1.5]], [[2]]]}})
    assert (named["shape"], named["datatype"]) == ([2, 1, 1], "FP64")


@pytest.mark.parametrize(
    ("column", "datatype", "data"),
    [
        ([True, 2], "INT64", [1, 2]),
        ([True, 2.5], "FP64", [1, 2.5]),
        ([True, None], "FP64", [1, None]),
        ([True, False], "BOOL", [True, False]),
        (["a", None], "BYTES", ["a", None]),
        ([None, None], "FP64", [None, None]),
    ],
)
def test_a_column_has_the_type_that_holds_all_its_values(
    column: list[Any], datatype: str, data: list[Any]
) -> None:
    (tensor,) = tensors({"inputs": {"x": column}})
    assert (tensor["datatype"], tensor["data"]) == (datatype, data)


def test_answers_are_nested_as_their_shape_says() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert predictions(output("y", [2, 2, 2], values)) == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert predictions(output("y", [2, 4], values)) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert predictions(output("y", [2, 1], [1, 2])) == [1, 2]


def test_of_several_outputs_none_is_lost_unless_one_is_the_prediction() -> None:
    one, two = output("mean", [1], [1]), output("spread", [1], [2])
    assert predictions(one, two) == {"mean": [1], "spread": [2]}
    assert predictions(one, output("predict", [1], [3])) == [3]


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"outputs": [{"name": "y", "data": [NaN]}]}'])
def test_what_is_no_inference_answer_is_the_servers_fault(answer: bytes) -> None:
    with pytest.raises(APIConnectionError):
        mlflow.to_predictions(answer)


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN, 1e400", "NaN, -1e999"])
def test_an_infinite_number_does_not_become_a_missing_one(number: str) -> None:
    with pytest.raises(BadRequestError):
        mlflow.to_inference(b'{"inputs": {"x": [%b]}}' % number.encode())


def test_a_deep_body_with_nan_in_it_is_refused_as_any_other() -> None:
    with pytest.raises(BadRequestError):
        mlflow.to_inference(b'{"inputs": NaN, "x": ' + b"[" * 100_000)


def test_a_table_of_a_server_that_says_nothing_of_its_columns_is_read_by_its_cells() -> None:
    made = sheet.request(b"a,b\n1,x\n,2\n", {})["inputs"]
    assert [(tensor["datatype"], tensor["data"]) for tensor in made] == [
        ("FP64", [1, None]),
        ("BYTES", ["x", "2"]),
    ]


def test_cells_are_written_as_the_models_own_columns_are() -> None:
    columns = sheet.described(
        {
            "inputs": [
                {"name": "id", "datatype": "BYTES", "shape": [-1, 1]},
                {"name": "x", "datatype": "FP32", "shape": [-1]},
            ],
            "parameters": {"entity": "who"},
        }
    )
    made = sheet.request(b"id,x,who,spare\n007,1,42,9\n", columns)["inputs"]
    assert [(tensor["name"], tensor["shape"], tensor["data"]) for tensor in made] == [
        ("id", [1, 1], ["007"]),
        ("x", [1], [1]),
        ("who", [1], ["42"]),
    ]


@pytest.mark.parametrize(
    "table", ["a,a\n1,2\n", 'a\n"1\n', "a\n1,2\n", "a\n", "x\n1\n", "a\n1_0\n", "a\n1e999\n", "a\n٣\n"]
)
def test_what_is_no_table_of_the_model_is_refused(table: str) -> None:
    with pytest.raises(BadRequestError):
        sheet.request(table.encode(), {"a": sheet.Column("FP64")})


class TestSpareColumns:
    """A data frame may have more columns than the model reads; tensors may not."""

    @pytest.fixture
    def reader(self) -> Reader:
        return Reader([InputColumn(name="x", datatype="FP32")])

    def asked(self, *spare: Any, **request: Any) -> dict[str, Any]:
        named = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 2]}
        other = {"name": "y", "shape": [len(spare)], "datatype": "INT64", "data": list(spare)}
        return {"inputs": [other, named], **request}

    def test_of_a_data_frame_the_model_takes_its_own(self, reader: Reader) -> None:
        found = reader.read(self.asked(7, 8, parameters={"content_type": "pd"}))
        assert found.keys() == {"x"}
        assert np.array_equal(found["x"], np.array([[1], [2]], dtype=np.float32))

    def test_a_tensor_that_the_model_does_not_read_is_refused(self, reader: Reader) -> None:
        with pytest.raises(BadRequestError, match="unknown inputs"):
            reader.read(self.asked(7, 8))

    def test_a_shorter_one_does_not_make_many_rows_few(self, reader: Reader) -> None:
        with pytest.raises(BadRequestError, match="equal length"):
            reader.read(self.asked(7, parameters={"content_type": "pd"}))


def test_a_table_is_read_by_the_columns_of_a_model_elsewhere(
    serve: Callable[..., Gateway], inputs: Any
) -> None:
    near = serve()
    front = serve("rides", upstream={"url": near.url, "model": "bike", "api_key": near.token})
    asked = inputs(2)
    rows = zip(*(tensor["data"] for tensor in asked), strict=True)
    lines = [",".join(tensor["name"] for tensor in asked), *(",".join(map(str, row)) for row in rows)]
    with front.client(headers={"content-type": "text/csv"}) as client:
        answer = client.post("/invocations", content="\n".join(lines))
    with near.client() as client:
        expected = client.post("/v2/models/bike/infer", json={"inputs": asked}).json()
    assert answer.json() == {"predictions": expected["outputs"][0]["data"]}
