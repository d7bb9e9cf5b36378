"""Tensors of every datatype survive every way in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilith.errors import BadRequestError
from trilith_classical.manifest import InputColumn
from trilith_classical.serving import codec, wire
from trilith_classical.serving.reader import Reader
from trilith_gateway import request

SHAPES = st.lists(st.integers(0, 4), min_size=1, max_size=3)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BYTES":
        return st.text('aZ0 "\\\0\né漢😀', max_size=8)
    if datatype == "BOOL":
        return st.booleans()
    if datatype.startswith("FP"):
        return st.floats(width=int(datatype[2:]), allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    bounds = np.iinfo(codec.DTYPES[datatype])
    return st.integers(int(bounds.min), int(bounds.max))


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    datatype = draw(st.sampled_from(sorted(codec.DTYPES)))
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    data = draw(st.lists(elements(datatype), min_size=count, max_size=count))
    return {"name": "x", "datatype": datatype, "shape": shape, "data": data}


def nested(values: list[Any], shape: list[int]) -> list[Any]:
    for size in reversed(shape[1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)]
    return values


def in_bytes(tensor: dict[str, Any], payload: bytes) -> dict[str, Any]:
    head = {"name": "x", "datatype": tensor["datatype"], "shape": tensor["shape"]}
    head["parameters"] = {"binary_data_size": len(payload)}
    body = orjson.dumps({"inputs": [head]})
    read = wire.read(body + payload, {wire.HEADER: str(len(body))})
    found: dict[str, Any] = read["inputs"][0]
    return found


@settings(deadline=None)
@given(tensors())
def test_values_come_back_from_json_as_they_went(tensor: dict[str, Any]) -> None:
    array = codec.decode(orjson.loads(orjson.dumps(tensor)))
    assert (list(array.shape), codec.to_values(array)) == (tensor["shape"], tensor["data"])
    assert array.dtype == codec.DTYPES[tensor["datatype"]]


@settings(deadline=None)
@given(tensors())
def test_values_come_back_from_bytes_as_they_went(tensor: dict[str, Any]) -> None:
    payload = codec.to_bytes(codec.decode(tensor), tensor["datatype"])
    back = codec.decode(in_bytes(tensor, payload))
    assert (list(back.shape), codec.to_values(back)) == (tensor["shape"], tensor["data"])
    assert codec.to_bytes(back, tensor["datatype"]) == payload


@settings(deadline=None)
@given(tensors().filter(lambda tensor: 0 not in tensor["shape"]))
def test_nested_data_is_the_same_as_flat(tensor: dict[str, Any]) -> None:
    folded = {**tensor, "data": nested(tensor["data"], tensor["shape"])}
    assert np.array_equal(codec.decode(folded), codec.decode(tensor))


@settings(deadline=None)
@given(st.lists(st.floats(width=64), min_size=1, max_size=5))
def test_real_numbers_as_bytes_keep_every_bit(values: list[float]) -> None:
    payload = np.array(values, dtype="<f8").tobytes()
    tensor = {"datatype": "FP64", "shape": [len(values)]}
    assert codec.to_bytes(codec.decode(in_bytes(tensor, payload)), "FP64") == payload


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("INT8", [128], "range"),
        ("UINT16", [-1], "range"),
        ("INT32", [1.5], "not a whole number"),
        ("INT64", [True], "not a whole number"),
        ("FP16", [70000.0], "too large"),
        ("FP32", ["1"], "not a number"),
        ("BOOL", [1], "not a boolean"),
        ("BYTES", [1], "not a text"),
        ("INT64", [1, 2], "asks for 1 values"),
        ("FP8", [1], "expected one of"),
    ],
)
def test_a_value_that_is_not_of_its_datatype_is_refused(datatype: str, data: list[Any], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        codec.decode({"name": "x", "datatype": datatype, "shape": [1], "data": data})


@pytest.mark.parametrize(
    ("length", "size", "payload", "said"),
    [
        ("x", 8, b"\0" * 8, "expected at most"),
        ("9999", 8, b"\0" * 8, "expected at most"),
        ("0" * 5000 + "9", 8, b"\0" * 8, "expected at most"),
        (None, 16, b"\0" * 8, "more than the body holds"),
        (None, 4, b"\0" * 8, "accounts for 4"),
        (None, -1, b"", "number of bytes"),
    ],
)
def test_sizes_that_do_not_add_up_are_refused(
    length: str | None, size: int, payload: bytes, said: str
) -> None:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": size}}
    head = orjson.dumps({"inputs": [tensor]})
    with pytest.raises(BadRequestError, match=said):
        wire.read(head + payload, {wire.HEADER: length or str(len(head))})


@settings(deadline=None)
@given(st.binary(max_size=24))
def test_packed_texts_are_read_or_refused_and_never_crash(data: bytes) -> None:
    try:
        texts = wire.unpack(memoryview(data))
    except BadRequestError:
        return
    assert wire.pack(texts) == data


def test_a_boolean_is_one_of_two_bytes() -> None:
    with pytest.raises(BadRequestError, match="neither 0 nor 1"):
        codec.decode(in_bytes({"datatype": "BOOL", "shape": [1]}, b"\2"))


class TestShapes:
    """What a shape says is held to limits before anything is made of it."""

    @pytest.mark.parametrize(
        ("shape", "values"),
        [
            ([], 1),
            ([2, 3], 6),
            ([0], 0),
            ([10_000_000], 10_000_000),
            ([10_000_001], None),
            ([2**70, 0], None),
            ([0, 10_000, 10_000], None),
            ([1] * 32, 1),
            ([1] * 33, None),
            ([10**18] * 100_000, None),
        ],
    )
    def test_values_are_counted_as_far_as_they_are_read(self, shape: list[int], values: int | None) -> None:
        assert wire.count(shape) == values

    @pytest.mark.parametrize(
        "shape", [[1] * 100, [1] * 33, [], [0], [0, 2**70], [2**70], [True], [1.0], [-1]]
    )
    @pytest.mark.parametrize("data", [[0.0], memoryview(b"\0\0\0\0"), memoryview(b"")])
    def test_one_that_no_column_has_is_refused_in_json_and_in_bytes(
        self, shape: list[Any], data: Any
    ) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": shape, "data": data}
        with pytest.raises(BadRequestError) as told:
            Reader([InputColumn(name="x", datatype="FP32")]).read({"inputs": [tensor]})
        assert len(told.value.message) < 300

    def test_a_shape_of_many_large_sizes_is_refused_at_the_gate(self) -> None:
        with pytest.raises(BadRequestError, match="more than 10,000,000 values"):
            request.check_tensors({"inputs": [{"shape": [10**18] * 100_000}]})
