"""The real bike model as it is served: the same numbers whatever way, several versions, features, swaps."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilith.errors import BadRequestError, DataError, IntegrityError
from trilith.seams import Call
from trilith.settings.model import PredictorModel
from trilith.types import Kind
from trilith_classical import PredictorUpstream, open_predictor
from trilith_classical.registry import MlflowRegistry
from trilith_classical.serving import codec, wire
from trilith_classical.serving.feature import FeatureSource, MemoryFeatures, SqliteFeatures
from trilith_classical.serving.host import ModelHost
from trilith_classical.serving.opening import RegisteredVersions
from trilith_classical.tensor import decode as carefully
from trilith_classical.upstream import CPU_NS, ROWS, Lookup, PredictorReply

pytestmark = [
    # MLflow's own models use what SQLAlchemy 2.1 and Python deprecate; nothing of ours can change that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
INFER = "/v2/models/bike/infer"


def opened(home: Path, **settings: Any) -> PredictorUpstream:
    chosen = PredictorModel(kind=Kind.PREDICTOR, registered_model="bike-demand", **settings)
    return open_predictor("bike-demand", "champion", home=home, settings=chosen)


async def ask(upstream: PredictorUpstream, path: str = INFER, **body: Any) -> tuple[PredictorReply, Any]:
    reply = await upstream.send(Call(path, json.dumps(body).encode() if body else b"", json=body or None))
    return reply, json.loads(b"".join([part async for part in reply.chunks()]))


async def scores(upstream: PredictorUpstream, inputs: list[dict[str, Any]], **more: Any) -> list[float]:
    _, answer = await ask(upstream, inputs=inputs, **more)
    data: list[float] = answer["outputs"][0]["data"]
    return data


async def test_joined_calls_get_bit_for_bit_what_they_get_alone(registered: Path, inputs: Any) -> None:
    upstream = opened(registered)
    alone = [await scores(upstream, inputs(1, at)) for at in range(20)]
    batcher = upstream.host.present.batcher
    before = batcher.runs
    joined = await asyncio.gather(*(scores(upstream, inputs(1, at)) for at in range(20)))
    assert joined == alone
    assert batcher.runs - before < 20
    await upstream.aclose()


async def test_rows_together_score_as_rows_alone(registered: Path, inputs: Any) -> None:
    upstream = opened(registered)
    together = await scores(upstream, inputs(50))
    assert together == [(await scores(upstream, inputs(1, at)))[0] for at in range(50)]
    await upstream.aclose()


async def test_a_bad_neighbour_spoils_nothing(registered: Path, inputs: Any) -> None:
    upstream = opened(registered)
    alone = await scores(upstream, inputs(1))
    bad = [{**tensor, "data": [None]} for tensor in inputs(1)]
    replies = await asyncio.gather(*(ask(upstream, inputs=given) for given in (inputs(1), bad, inputs(1))))
    assert [reply.status for reply, _ in replies] == [200, 400, 200]
    assert replies[2][1]["outputs"][0]["data"] == alone
    await upstream.aclose()


def test_the_quick_way_reads_what_the_careful_way_reads(registered: Path, inputs: Any) -> None:
    predictor = opened(registered).host.present.predictor
    quick = predictor.reader._quick(inputs(30))
    careful = carefully(inputs(30), predictor.manifest.inputs)
    assert quick is not None
    for name, array in careful.items():
        assert array.dtype == quick[name].dtype
        assert np.array_equal(array, quick[name])


@pytest.mark.parametrize(
    ("name", "datatype", "value", "said"),
    [
        ("hr", "INT8", 300, "range of INT8"),
        ("temp", "FP64", 1e39, "too large"),
        ("temp", "FP64", True, "not a number"),
        ("temp", "FP64", None, "missing"),
        ("season", "INT64", 99, "none of"),
        ("hr", "INT64", 2**70, "range"),
        ("hr", "BYTES", "3", "BYTES"),
    ],
)
def test_the_quick_way_lets_nothing_wrong_through(
    registered: Path, inputs: Any, name: str, datatype: str, value: object, said: str
) -> None:
    predictor = opened(registered).host.present.predictor
    wrong = {"name": name, "shape": [1], "datatype": datatype, "data": [value]}
    given = [wrong if tensor["name"] == name else tensor for tensor in inputs(1)]
    with pytest.raises(BadRequestError, match=said):
        predictor.infer({"inputs": given})


@pytest.mark.parametrize("datatype", ["INT8", "INT64", "FP64"])
def test_no_rows_are_refused_in_every_datatype(registered: Path, inputs: Any, datatype: str) -> None:
    predictor = opened(registered).host.present.predictor
    empty = [{**tensor, "datatype": datatype, "shape": [0], "data": []} for tensor in inputs(1)]
    with pytest.raises(BadRequestError, match="no rows"):
        predictor.infer({"inputs": empty})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_bytes_of_a_number_that_the_model_cannot_read_are_refused(
    registered: Path, inputs: Any, value: float
) -> None:
    predictor = opened(registered).host.present.predictor
    given = []
    for tensor in inputs(1):
        array = codec.decode(tensor)
        array = np.array([value]) if tensor["name"] == "temp" else array
        given.append({**tensor, "data": memoryview(codec.to_bytes(array, tensor["datatype"]))})
    with pytest.raises(BadRequestError, match="temp"):
        predictor.infer({"inputs": given})


async def test_bytes_score_as_json_does(registered: Path, inputs: Any) -> None:
    upstream = opened(registered)
    tensors, payloads = [], []
    for tensor in inputs(40):
        payloads.append(codec.to_bytes(codec.decode(tensor), tensor["datatype"]))
        head = {name: value for name, value in tensor.items() if name != "data"}
        tensors.append({**head, "parameters": {"binary_data_size": len(payloads[-1])}})
    whole = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    headers = {wire.HEADER: str(len(whole))}
    reply = await upstream.send(Call(INFER, whole + b"".join(payloads), headers))
    body = b"".join([part async for part in reply.chunks()])
    values = np.frombuffer(body[int(reply.headers[wire.HEADER]) :], dtype="<f4")
    assert values.tolist() == await scores(upstream, inputs(40))
    await upstream.aclose()


async def test_a_reply_tells_rows_and_cpu_time(registered: Path, inputs: Any) -> None:
    upstream = opened(registered)
    reply, _ = await ask(upstream, inputs=inputs(3))
    assert reply.headers[ROWS] == "3"
    assert int(reply.headers[CPU_NS]) > 0
    await upstream.aclose()


async def test_several_versions_answer_at_once(registered: Path, inputs: Any) -> None:
    upstream = opened(registered, versions=("2",))
    for version in ("1", "2"):
        _, answer = await ask(upstream, f"/v2/models/bike/versions/{version}/infer", inputs=inputs(1))
        assert answer["model_version"] == version
    reply, answer = await ask(upstream, "/v2/models/bike/versions/3/infer", inputs=inputs(1))
    assert (reply.status, "served are: 1, 2" in answer["error"]) == (404, True)
    _, described = await ask(upstream, "/v2/models/bike")
    assert described["versions"] == ["1", "2"]
    await upstream.aclose()


async def test_a_moved_alias_is_followed_without_a_failed_request(home: Path, inputs: Any) -> None:
    upstream = opened(home, alias_poll_s=0.01)
    assert upstream.version() == "1"
    seen: list[str] = []
    statuses: set[int] = set()
    MlflowRegistry(home).set_alias("bike-demand", "champion", "2")
    while not seen or seen[-1] == "1":
        reply, answer = await ask(upstream, inputs=inputs(1))
        statuses.add(reply.status)
        seen.append(answer["model_version"])
        await asyncio.sleep(0)
    assert (statuses, set(seen)) == ({200}, {"1", "2"})
    assert upstream.version() == "2"
    await upstream.aclose()


async def test_a_replaced_version_ends_with_its_last_call(home: Path) -> None:
    versions = RegisteredVersions(MlflowRegistry(home), "bike-demand", "champion")
    host = ModelHost(versions.open("1"), versions)
    before = host.find(None)
    before.open += 1  # a call is under way
    MlflowRegistry(home).set_alias("bike-demand", "champion", "2")
    await host.refresh()
    assert (host.present.version, host.draining) == ("2", [before])
    host.leave(before)
    assert host.draining == []
    host.close()


async def test_a_version_that_was_asked_for_stays_when_the_alias_comes_and_goes(home: Path) -> None:
    registry = MlflowRegistry(home)
    versions = RegisteredVersions(registry, "bike-demand", "champion")
    host = ModelHost(versions.open("1"), versions)
    for version in ("1", "2"):
        await host.add(version)
    for version in ("2", "1", "2"):
        registry.set_alias("bike-demand", "champion", version)
        await host.refresh()
        assert (host.present.version, sorted(host.versions)) == (version, ["1", "2"])
    host.close()


async def test_a_spoilt_version_does_not_take_over(home: Path, inputs: Any) -> None:
    upstream = opened(home)
    spoilt = Path(MlflowRegistry(home).open_version("bike-demand", "2").path) / "model.onnx"
    spoilt.write_bytes(b"not a model")
    MlflowRegistry(home).set_alias("bike-demand", "champion", "2")
    with pytest.raises(IntegrityError):
        await upstream.host.refresh()
    _, answer = await ask(upstream, inputs=inputs(1))
    assert answer["model_version"] == "1"
    await upstream.aclose()


async def test_loading_and_unloading_need_leave(registered: Path, inputs: Any) -> None:
    upstream = opened(registered)
    reply, _ = await ask(upstream, "/v2/repository/models/bike/unload")
    assert reply.status == 403
    await upstream.aclose()
    upstream = opened(registered, control=True)
    await ask(upstream, "/v2/repository/models/bike/unload")
    assert ((await ask(upstream, inputs=inputs(1)))[0].status, await upstream.ready()) == (503, False)
    await ask(upstream, "/v2/repository/models/bike/load", parameters={"version": "2"})
    assert (await ask(upstream, inputs=inputs(1)))[0].status == 200
    assert upstream.host.versions == ["1", "2"]
    await upstream.aclose()


class TestFeatures:
    """Both sources keep the same promises, and calls get their columns from them."""

    @pytest.fixture(params=[lambda home: MemoryFeatures(), lambda home: SqliteFeatures(home, "hours")])
    def source(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureSource]:
        make: Callable[[Path], FeatureSource] = request.param
        found = make(tmp_path)
        yield found
        found.close()

    def test_entities_come_back_in_order_and_unknown_ones_as_none(self, source: FeatureSource) -> None:
        source.put([("a", 1.0, {"hr": 1}), ("b", 1.0, {"hr": 2, "temp": 0.5, "name": "b"})])
        assert source.fetch(["b", "x", "a", "b"]) == [
            {"hr": 2, "temp": 0.5, "name": "b"},
            None,
            {"hr": 1},
            {"hr": 2, "temp": 0.5, "name": "b"},
        ]

    def test_a_late_row_does_not_overwrite_a_newer_one(self, source: FeatureSource) -> None:
        source.put([("a", 5.0, {"hr": 5})])
        source.put([("a", 3.0, {"hr": 3})])
        assert source.fetch(["a"]) == [{"hr": 5}]
        source.put([("a", 6.0, {"hr": 6})])
        assert source.fetch(["a"]) == [{"hr": 6}]

    def test_views_do_not_mix(self, tmp_path: Path) -> None:
        SqliteFeatures(tmp_path, "one").put([("a", 1.0, {"hr": 1})])
        other = SqliteFeatures(tmp_path, "other")
        assert other.fetch(["a"]) == [None]
        other.close()

    def test_a_file_that_is_no_table_is_said_so(self, tmp_path: Path) -> None:
        (tmp_path / "features.db").write_bytes(b"no database at all, only words" * 40)
        with pytest.raises((DataError, sqlite3.DatabaseError)):
            SqliteFeatures(tmp_path, "hours").fetch(["a"])

    async def test_an_entity_stands_for_its_columns(
        self, registered: Path, inputs: Any, source: FeatureSource
    ) -> None:
        whole = inputs(2)
        source.put((str(row), 1.0, {t["name"]: t["data"][row] for t in whole}) for row in (0, 1))
        host = opened(registered).host
        upstream = PredictorUpstream("bike", host, lookup=Lookup(source))
        entity = {"name": "entity", "shape": [2], "datatype": "BYTES", "data": ["0", "1"]}
        assert await scores(upstream, [entity]) == await scores(upstream, whole)
        assert upstream.version() is None, "features change alone, so no answer is kept"
        sent = next(tensor for tensor in whole if tensor["name"] == "hr") | {"data": [3, 4]}
        own = [sent if tensor["name"] == "hr" else tensor for tensor in whole]
        assert await scores(upstream, [entity, sent]) == await scores(upstream, own)
        more = {**entity, "data": ["0", "1", "0"]}
        assert (await ask(upstream, inputs=[more]))[0].status == 400, "rows are charged as declared"
        reply, answer = await ask(upstream, inputs=[{**entity, "data": ["0", "nobody"]}])
        assert (reply.status, "row 1" in answer["error"], "nobody" in answer["error"]) == (400, True, False)
        await upstream.aclose()

    @pytest.mark.parametrize("name", [["hr"], {"hr": 1}, None, 7])
    async def test_a_name_that_is_none_is_the_callers_fault(
        self, registered: Path, source: FeatureSource, name: object
    ) -> None:
        source.put([("0", 1.0, {})])
        upstream = PredictorUpstream("bike", opened(registered).host, lookup=Lookup(source))
        entity = {"name": "entity", "shape": [1], "datatype": "BYTES", "data": ["0"]}
        reply, answer = await ask(upstream, inputs=[entity, {**entity, "name": name}])
        assert (reply.status, "inputs[" in answer["error"]) == (400, True)
        await upstream.aclose()
