"""Predictors in the gateway's process while many call: each with its own deadline, versions that change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
from support.gateway import Gateway
from support.installed import until

from trilith_classical.registry import MlflowRegistry

pytestmark = [
    # MLflow's own models use what SQLAlchemy 2.1 and Python deprecate; nothing of ours can change that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Serve = Callable[..., Gateway]
INFER = "/v2/models/bike/infer"


def infer(gateway: Gateway, inputs: Any, **headers: str) -> httpx.Response:
    with gateway.client(headers=headers) as client:
        return client.post(INFER, json={"inputs": inputs})


def test_a_callers_deadline_is_its_own(serve: Serve, inputs: Any) -> None:
    gateway = serve(max_batch_wait_ms=1000)
    with ThreadPoolExecutor(2) as pool:
        patient = pool.submit(infer, gateway, inputs(1))
        hasty = pool.submit(infer, gateway, inputs(1), **{"x-request-timeout-ms": "100"})
        assert (patient.result().status_code, hasty.result().status_code) == (200, 504)
    assert [row["amount_pico_usd"] > 0 for row in gateway.ledger()].count(True) == 1


def test_rows_of_many_callers_are_each_their_own_callers(serve: Serve, inputs: Any) -> None:
    gateway = serve(max_batch_wait_ms=20)
    alone = [infer(gateway, inputs(1, start=at)).json()["outputs"][0]["data"] for at in range(16)]
    wrong = [{**tensor, "data": ["x"]} if tensor["name"] == "hr" else tensor for tensor in inputs(1)]

    def ask(at: int) -> httpx.Response:
        return infer(gateway, wrong if at % 4 == 3 else inputs(1, start=at))

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    for at, answer in enumerate(answers):
        if at % 4 == 3:
            assert (answer.status_code, "'hr'" in answer.json()["error"]) == (400, True)
        else:
            assert answer.json()["outputs"][0]["data"] == alone[at]


def test_the_champion_changes_back_and_forth_under_traffic(serve: Serve, inputs: Any) -> None:
    gateway = serve(alias_poll_s=0.02, control=True)
    registry = MlflowRegistry(gateway.home)
    seen: list[tuple[int, str, tuple[float, ...]]] = []
    over = threading.Event()

    def ask() -> None:
        with gateway.client() as client:
            while not over.is_set():
                answer = client.post(INFER, json={"inputs": inputs(2)})
                said = answer.json()
                seen.append(
                    (
                        answer.status_code,
                        said.get("model_version", said.get("error")),
                        tuple(said["outputs"][0]["data"]) if answer.status_code == 200 else (),
                    )
                )

    def answered(version: str) -> bool:
        return bool(seen) and seen[-1][1] == version

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in ("2", "1", "2", "1"):
            registry.set_alias("bike-demand", "champion", version)
            until(partial(answered, version), what=f"version {version}")
            with gateway.client() as client:
                assert client.post("/v2/repository/models/bike/load").status_code == 200
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {status for status, *_ in seen} == {200}
    assert len({(version, data) for _, version, data in seen}) == 2  # no answer of one under the other's name
