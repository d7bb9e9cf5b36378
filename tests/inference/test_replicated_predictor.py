"""Predictors behind several servers of the protocol: one of them may die, and loading is for all."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway import PRICE, Gateway, Running
from support.installed import language_server, until

from trilith.errors import SettingsError
from trilith.settings.load import load_settings
from trilith.settings.schema import Settings

pytestmark = [
    # MLflow's own models use what SQLAlchemy 2.1 and Python deprecate; nothing of ours can change that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Open = Callable[..., Gateway]
DOUBLE = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.5]}]}
GONE = "http://127.0.0.1:9"
"""Nobody listens there."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def front(stack: ExitStack, tmp_path: Path) -> Open:
    """Start a gateway with these predictors, and no model of its own."""

    def start(**models: dict[str, Any]) -> Gateway:
        priced = {
            name: {"kind": "predictor", "price": PRICE | {"usd_per_krow": "1"}} | model
            for name, model in models.items()
        }
        settings = Settings.model_validate({"home": tmp_path / "front", "models": priced})
        return stack.enter_context(Running(settings, {}))

    return start


@pytest.fixture
def near(stack: ExitStack, registered: Path, tmp_path: Path) -> Callable[[str], Gateway]:
    """Start a gateway of its own home that serves the real bike model."""

    def start(home: str) -> Gateway:
        described = {"kind": "predictor", "registered_model": "bike-demand", "control": True}
        place = shutil.copytree(registered, tmp_path / home)
        settings = Settings.model_validate({"home": place, "models": {"bike": described}})
        return stack.enter_context(Running(settings, {}))

    return start


def place(gateway: Gateway) -> dict[str, Any]:
    return {"url": gateway.url, "model": "bike", "api_key": gateway.token}


def post(gateway: Gateway, path: str, body: Any = None) -> httpx.Response:
    with gateway.client() as client:
        return client.post(path, json=body)


def test_a_server_that_is_killed_costs_no_caller_an_answer(stack: ExitStack, front: Open) -> None:
    first = stack.enter_context(ExitStack())
    doomed = first.enter_context(language_server("open_server.py")).removesuffix("/v1")
    other = stack.enter_context(language_server("open_server.py")).removesuffix("/v1")
    gateway = front(double={"upstream": {"url": doomed}, "replicas": [{"url": other}]})
    statuses: list[int] = []
    killed, over = threading.Event(), threading.Event()

    def ask() -> None:
        with gateway.client() as client:
            last = False
            while not last:
                last = over.is_set()
                answer = client.post("/v2/models/double/infer", json=DOUBLE)
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    assert answer.json()["outputs"][0]["data"] == [2.0, 5.0]
                if killed.is_set() and len(statuses) > marks[0] + 200:
                    over.set()

    marks = [0]
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(statuses) >= 100, what="traffic")
    first.close()  # SIGKILL
    marks[0] = len(statuses)
    killed.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    charged = [row["rows"] for row in gateway.ledger() if row["amount_pico_usd"]]
    assert (len(charged), set(charged)) == (len(statuses), {2})


def test_every_replica_has_its_own_name_of_the_model_and_its_own_key(
    stack: ExitStack, front: Open, near: Callable[[str], Gateway], inputs: Any
) -> None:
    one, two = near("one"), near("two")
    weights = {"policy": "weighted"}
    gateway = front(rides={"upstream": place(one), "replicas": [place(two)], "routing": weights})
    answers = [post(gateway, "/v2/models/rides/infer", {"inputs": inputs(1)}) for _ in range(4)]
    assert {(answer.status_code, answer.json()["model_name"]) for answer in answers} == {(200, "rides")}
    assert [len(other.ledger()) for other in (one, two)] == [2, 2]


class TestRepository:
    @pytest.fixture
    def pair(self, near: Callable[[str], Gateway]) -> tuple[Gateway, Gateway]:
        return near("one"), near("two")

    def states(self, *gateways: Gateway) -> list[str]:
        return [post(gateway, "/v2/repository/index").json()[0]["state"] for gateway in gateways]

    def test_loading_and_unloading_reach_all(self, front: Open, pair: tuple[Gateway, Gateway]) -> None:
        gateway = front(bike={"upstream": place(pair[0]), "replicas": [place(pair[1])], "control": True})
        assert post(gateway, "/v2/repository/models/bike/unload").status_code == 200
        assert self.states(*pair, gateway) == ["UNAVAILABLE"] * 3
        assert post(gateway, "/v2/repository/models/bike/load").status_code == 200
        assert self.states(*pair, gateway) == ["READY"] * 3

    def test_one_that_cannot_be_reached_is_told(self, front: Open, pair: tuple[Gateway, Gateway]) -> None:
        gateway = front(bike={"upstream": place(pair[0]), "replicas": [{"url": GONE}], "control": True})
        answer = post(gateway, "/v2/repository/models/bike/unload")
        assert (answer.status_code, "1 of 2 replicas" in answer.json()["error"]) == (502, True)
        assert self.states(pair[0]) == ["UNAVAILABLE"]

    def test_the_index_says_what_only_some_have(self, front: Open, pair: tuple[Gateway, Gateway]) -> None:
        body = {"parameters": {"version": "2"}}
        assert post(pair[1], "/v2/repository/models/bike/load", body).status_code == 200
        gateway = front(bike={"upstream": place(pair[0]), "replicas": [place(pair[1])]})
        listed = post(gateway, "/v2/repository/index").json()
        assert [(entry["version"], entry["reason"]) for entry in listed] == [
            ("1", ""),
            ("2", "at 1 of 2 replicas"),
        ]

    @pytest.mark.parametrize("replicas", [0, 1])
    def test_what_callers_may_not_control_here_they_may_not_there(
        self, front: Open, pair: tuple[Gateway, Gateway], replicas: int
    ) -> None:
        gateway = front(bike={"upstream": place(pair[0]), "replicas": [place(pair[1])] * replicas})
        answer = post(gateway, "/v2/repository/models/bike/unload")
        assert (answer.status_code, "control is off" in answer.json()["error"]) == (403, True)
        assert self.states(*pair) == ["READY"] * 2


class TestFallback:
    @pytest.fixture
    def gateway(self, front: Open, near: Callable[[str], Gateway]) -> Gateway:
        cheap = {"upstream": place(near("one")), "price": {"usd_per_krow": "7"}}
        return front(away={"upstream": {"url": GONE}, "fallbacks": ["cheap"]}, cheap=cheap)

    def test_another_predictor_answers_at_its_own_price(self, gateway: Gateway, inputs: Any) -> None:
        answer = post(gateway, "/v2/models/away/infer", {"inputs": inputs(2)})
        assert (answer.status_code, answer.headers["x-trilith-fallback"]) == (200, "cheap")
        assert answer.json()["model_name"] == "away"  # what was asked for, as in every kind of predictor
        assert gateway.ledger()[-1]["amount_pico_usd"] == 2 * 7_000_000_000

    def test_mlflows_callers_have_it_as_well(self, gateway: Gateway, inputs: Any) -> None:
        columns = {tensor["name"]: tensor["data"] for tensor in inputs(2)}
        answer = post(gateway, "/models/away/invocations", {"inputs": columns})
        assert (answer.status_code, len(answer.json()["predictions"])) == (200, 2)

    def test_a_version_that_is_asked_for_has_no_substitute(self, gateway: Gateway, inputs: Any) -> None:
        answer = post(gateway, "/v2/models/away/versions/1/infer", {"inputs": inputs(1)})
        assert (answer.status_code, "x-trilith-fallback" in answer.headers) == (502, False)


def test_a_replica_is_asked_for_its_health_where_the_protocol_has_it(
    front: Open, near: Callable[[str], Gateway]
) -> None:
    routing = {"health": {"interval_s": 0.02, "unhealthy_after": 1}}
    gateway = front(bike={"upstream": place(near("one")), "replicas": [{"url": GONE}], "routing": routing})
    endpoints = gateway.platform.releases.find("bike").upstream.endpoints  # type: ignore[union-attr]
    with gateway.client() as client:
        while endpoints[1].healthy:
            assert client.get("/v2/models/bike/ready").status_code == 200
    assert endpoints[0].healthy


class TestSettings:
    def faults(self, tmp_path: Path, text: str) -> str:
        path = tmp_path / "trilith.yaml"
        path.write_text(text, "utf-8")
        with pytest.raises(SettingsError) as told:
            load_settings(path)
        return str(told.value)

    def test_a_registered_model_has_no_replicas(self, tmp_path: Path) -> None:
        told = self.faults(
            tmp_path,
            "models: {m: {kind: predictor, registered_model: m, replicas: [{url: 'http://a:1'}]}}",
        )
        assert "a registered model has no replicas" in told

    def test_a_fallback_is_of_the_same_kind(self, tmp_path: Path) -> None:
        told = self.faults(
            tmp_path,
            "models: {m: {kind: predictor, registered_model: m, fallbacks: [c]}, "
            "c: {kind: chat, upstream: {url: 'http://a:1/v1'}}}",
        )
        assert "expected one of the predictor models" in told
