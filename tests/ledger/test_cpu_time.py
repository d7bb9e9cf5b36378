"""Predictors by the CPU time that they took: no part of it is charged twice, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.gateway import StartGateway
from support.told import TellingUpstream

from trilith.money import NS_PER_HOUR, Meter, Price, cost
from trilith.types import Particulars, Usage
from trilith_classical.serving.batch import Batcher, Scored

RATES = st.integers(0, 10**13)


@given(st.lists(st.integers(0, 10**10), max_size=60), RATES)
def test_the_charges_of_all_calls_are_the_price_of_all_their_time(times: list[int], rate: int) -> None:
    meter = Meter()
    charges = [meter.charge(ns, rate) for ns in times]
    assert sum(charges) == sum(times) * rate // NS_PER_HOUR
    assert all(abs(one - ns * rate / NS_PER_HOUR) <= 1 for one, ns in zip(charges, times, strict=True))


@given(rows=st.lists(st.integers(1, 50), min_size=1, max_size=8), took=st.integers(1, 10**9), rate=RATES)
def test_calls_that_are_run_together_pay_together_what_the_run_costs(
    rows: list[int], took: int, rate: int
) -> None:
    ticks = iter(range(0, 10**12, took))
    batcher = Batcher(lambda t: [t["x"]], lambda: None, clock_ns=lambda: next(ticks))  # type: ignore[arg-type, return-value]

    class One:
        def __init__(self, count: int) -> None:
            self.tensors = {"x": np.zeros((count, 1), dtype=np.float32)}
            self.rows = count

    scored: list[Scored] = batcher._together([One(count) for count in rows], rows)  # type: ignore[misc]
    meter = Meter()
    assert sum(one.cpu_ns for one in scored) == took
    assert sum(meter.charge(one.cpu_ns, rate) for one in scored) == took * rate // NS_PER_HOUR


def test_cpu_time_is_a_part_of_the_usage_and_has_the_ledgers_columns(start_gateway: StartGateway) -> None:
    class Scoring(TellingUpstream):
        async def send(self, call: Any) -> Any:
            reply = await super().send(call)
            reply.headers = {**reply.headers, "x-trilith-rows": "3", "x-trilith-cpu-ns": "123457"}
            return reply

    price = {"usd_per_cpu_hour": "0.04", "usd_per_krow": "0.001"}
    predictor = {"kind": "predictor", "price": price}
    gateway = start_gateway({"echo": TellingUpstream({}), "p": Scoring({"outputs": []})}, p=predictor)
    inputs = [{"name": "x", "shape": [3, 1], "datatype": "FP32", "data": [1, 2, 3]}]
    with gateway.client() as client:
        for _ in range(9):
            assert client.post("/v2/models/p/infer", json={"inputs": inputs}).status_code == 200
    rows = gateway.ledger()
    assert {(row["cpu_ns"], row["rows"]) for row in rows} == {(123_457, 3)}
    whole = 9 * 3 * 1_000_000 + 9 * 123_457 * 4 * 10**10 // NS_PER_HOUR
    assert sum(row["amount_pico_usd"] for row in rows) == whole
    assert len({row["amount_pico_usd"] for row in rows}) == 2  # a call pays what the one before left over


def test_a_price_per_cpu_hour_alone_drops_fractions() -> None:
    used = Usage(rows=1, particulars=Particulars(cpu_ns=1))
    assert cost(used, Price(cpu_hour=NS_PER_HOUR * 2 - 1)) == 1
