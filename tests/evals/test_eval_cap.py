"""A cap without a stated ceiling per call: how far it may be missed, under any prices and any order."""

from __future__ import annotations

import asyncio
import contextlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from trilith_evals.spend import CapReached, Ledger


async def bought(cap: int, prices: list[int], wide: int, rng: random.Random) -> tuple[int, Ledger]:
    """Let so many buy at a time, each until the cap refuses; answers come in any order."""
    ledger, waiting, paid = Ledger(cap), iter(prices), 0

    async def buy() -> None:
        nonlocal paid
        with contextlib.suppress(CapReached):
            for price in waiting:
                held = await ledger.reserve("target")
                for _ in range(rng.randrange(5)):
                    await asyncio.sleep(0)
                paid += price
                ledger.settle("target", held, price)

    await asyncio.gather(*(buy() for _ in range(wide)))
    return paid, ledger


PRICES = st.lists(st.integers(1, 1000), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(cap=st.integers(1, 20_000), prices=PRICES, wide=st.integers(1, 16), seed=st.integers(0, 9))
def test_a_cap_is_missed_by_no_more_than_calls_under_way_cost_beyond_twice_the_first(
    cap: int, prices: list[int], wide: int, seed: int
) -> None:
    paid, ledger = asyncio.run(bought(cap, prices, wide, random.Random(seed)))
    beyond = wide * max(0, max(prices) - 2 * prices[0])
    assert paid <= cap + max(beyond, max(0, prices[0] - cap))
    assert paid == ledger.spend().total_pico_usd


@settings(max_examples=200, deadline=None)
@given(data=st.data(), wide=st.integers(1, 16), seed=st.integers(0, 9))
def test_a_cap_is_exact_where_no_call_costs_twice_another(data: st.DataObject, wide: int, seed: int) -> None:
    least = data.draw(st.integers(1, 500))
    prices = data.draw(st.lists(st.integers(least, 2 * least), min_size=1, max_size=60))
    cap = data.draw(st.integers(2 * least, 60 * least))
    paid, _ = asyncio.run(bought(cap, prices, wide, random.Random(seed)))
    assert paid <= cap


@settings(max_examples=100, deadline=None)
@given(cap=st.integers(1, 20_000), prices=PRICES, wide=st.integers(1, 16), seed=st.integers(0, 9))
def test_a_cap_with_a_ceiling_is_never_missed(cap: int, prices: list[int], wide: int, seed: int) -> None:
    async def all_of_it() -> int:
        ledger, waiting, rng = Ledger(cap, 1000), iter(prices), random.Random(seed)

        async def buy() -> None:
            with contextlib.suppress(CapReached):
                for price in waiting:
                    held = await ledger.reserve("target")
                    for _ in range(rng.randrange(5)):
                        await asyncio.sleep(0)
                    ledger.settle("target", held, price)

        await asyncio.gather(*(buy() for _ in range(wide)))
        return ledger.spend().total_pico_usd

    assert asyncio.run(all_of_it()) <= cap
