"""Own servers: what is charged and what is idle come to price x time, whatever happens in between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.test_contract import ask, charge

from trilith.money import Price, pico_usd
from trilith.settings.engine import EngineCostSettings
from trilith.settings.schema import Settings
from trilith_gateway import enginecost, rerate
from trilith_gateway.enginecost import Account, EngineCosts, absorbed, accounts, standard
from trilith_gateway.opening import price_of

COST = {"usd_per_hour": "2.5", "units_per_second": 1000, "target_utilisation": "0.5", "window_s": 300}
ACCOUNT = Account("engine:e", pico_usd("2.5") + 7, 300, ("m", "r"))  # an hour that no window divides
START = 1_700_000_100  # a multiple of 300
HOUR = 3600


def described(**place: Any) -> Settings:
    models = {
        "m": {"kind": "chat", "upstream": {"engine": "e"}},
        "r": {"kind": "rag", "index": "i", "generator": "m"},
        "u": {
            "kind": "embedding",
            "upstream": {"url": "http://127.0.0.1:9/v1", "cost": COST},
            "replicas": [{"url": "http://127.0.0.1:10/v1"}],
        },
        "free": {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}},
    }
    tree = {"engines": {"e": {"cost": COST}}, "models": models, "indexes": {"i": {"source": "."}}}
    return Settings.model_validate(tree | place)


def booked(store: Any, start: int, end: int) -> int:
    """What all rows of a server's windows come to."""
    statement = f"select coalesce(sum(amount_pico_usd), 0) from ledger where at >= {start} and at < {end}"
    return int(ask(store, statement)[0][0])


def call(number: int, at: float, amount: int, model: str = "m") -> dict[str, Any]:
    return charge(number, amount) | {"at": at, "model": model, "rule": "usage"}


def test_accounts_are_servers_with_a_cost_and_replicas_count() -> None:
    engine, upstream = accounts(described())
    assert (engine.name, engine.models, engine.per_hour) == ("engine:e", ("m", "r"), pico_usd("2.5"))
    assert (upstream.name, upstream.models, upstream.per_hour) == ("upstream:u", ("u",), 2 * pico_usd("2.5"))


def test_the_standard_rate_covers_the_hour_when_the_server_is_as_busy_as_meant() -> None:
    price = standard(described(), "m")
    assert price is not None
    units = 1000 * HOUR // 2  # half of what it can do
    assert units * price.input_token == pytest.approx(pico_usd("2.5"), rel=1e-6)
    assert (price.output_token, price.cached_input_token) == (
        4 * price.input_token,
        price.input_token // 10 + 1,
    )
    assert price_of(described(), "m") == price
    assert price_of(described(), "free") is None
    stated = described()
    model = stated.models["m"].model_copy(update={"price": None})
    assert price_of(stated.model_copy(update={"models": {"m": model}}), "nobody") is None


def test_a_window_is_booked_once_and_to_the_last_unit(opened: Any) -> None:
    store = opened()
    for number, model in enumerate(("m", "r", "other")):
        store.append(call(number, START + 10.0, 1000 + number, model))
    costs = EngineCosts(store)
    (row,) = costs.tick([ACCOUNT], START + 306.0)
    assert row["amount_pico_usd"] == ACCOUNT.cost(START, START + 300) - 1000 - 1001
    assert (row["team"], row["category"], row["at"]) == ("platform", "idle", float(START))
    assert costs.tick([ACCOUNT], START + 400.0) == []
    assert EngineCosts(store).tick([ACCOUNT], START + 500.0) == []  # the same after a restart


def test_a_busy_server_earns_more_than_it_costs(opened: Any) -> None:
    store = opened()
    store.append(call(1, START + 10.0, 10**12))
    (row,) = EngineCosts(store).tick([ACCOUNT], START + 306.0)
    assert row["amount_pico_usd"] < 0
    assert booked(store, START, START + 300) == ACCOUNT.cost(START, START + 300)


def test_windows_that_nobody_booked_and_charges_that_come_late_are_made_good(opened: Any) -> None:
    store = opened()
    EngineCosts(store).tick([ACCOUNT], START + 306.0)
    rows = EngineCosts(store).tick([ACCOUNT], START + 1206.0)  # it was down meanwhile
    assert [row["at"] for row in rows] == [START + 300.0, START + 600.0, START + 900.0]
    store.append(call(1, START + 650.0, 77))  # a killed worker's journal is read at last
    (correction,) = EngineCosts(store).tick([ACCOUNT], START + 1300.0)
    assert (correction["at"], correction["amount_pico_usd"]) == (START + 600.0, -77)
    assert booked(store, START, START + 1200) == ACCOUNT.cost(START, START + 1200)


def test_two_processes_that_book_at_the_same_time_book_once(opened: Any) -> None:
    one, two = opened("0"), opened("1")
    with one.reading() as connection:
        same = [enginecost.due(connection, ACCOUNT, START + 306.0) for _ in range(2)]
    assert same[0] == same[1]
    for store, rows in zip((one, two), same, strict=True):
        for row in rows:
            store.append(dict(row))
        store.flush()
    assert booked(one, START, START + 300) == ACCOUNT.cost(START, START + 300)
    assert EngineCosts(two).tick([ACCOUNT], START + 310.0) == []


def test_only_the_leader_books(opened: Any) -> None:
    one, two = opened("0"), opened("1")
    leader = one.leader("engine costs")
    assert leader.acquire()
    assert EngineCosts(two).tick([ACCOUNT], START + 306.0) == []
    leader.resign()
    assert len(EngineCosts(two).tick([ACCOUNT], START + 306.0)) == 1


def test_a_rerating_moves_money_between_charged_and_idle(opened: Any, url: str | None, home: Any) -> None:
    store = opened()
    store.append(call(1, START + 10.0, 1000) | {"input_tokens": 10, "cached_input_tokens": 0})
    EngineCosts(store).tick([ACCOUNT], START + 306.0)
    EngineCosts(store).tick([ACCOUNT], START + 40_000.0)
    database = store._database
    with store.reading() as connection:
        rerate.apply(database, connection, lambda _: Price(500), 0.0, START + 40_000.0, None)
        enginecost.correct(database, connection, [ACCOUNT], 0.0, START + 40_000.0)
        enginecost.correct(database, connection, [ACCOUNT], 0.0, START + 40_000.0)
    assert booked(store, START, START + 300) == ACCOUNT.cost(START, START + 300)
    assert ask(store, "select sum(amount_pico_usd) from ledger where model = 'm'") == [(5000,)]


@given(
    per_hour=st.integers(0, 10**14),
    edges=st.lists(st.integers(0, 10**6), min_size=2, max_size=20).map(sorted),
)
def test_the_cost_of_parts_of_a_time_adds_up_to_that_of_the_whole(per_hour: int, edges: list[int]) -> None:
    account = Account("engine:e", per_hour, 300, ())
    parts = [account.cost(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    assert sum(parts) == account.cost(edges[0], edges[-1])
    assert abs(account.cost(edges[0], edges[-1]) * 3600 - per_hour * (edges[-1] - edges[0])) <= 3600


@given(
    total=st.integers(-(10**15), 10**15),
    units=st.dictionaries(st.text(max_size=3), st.integers(0, 10**9), min_size=1, max_size=20).filter(
        lambda units: any(units.values())
    ),
)
def test_what_teams_would_bear_of_the_whole_adds_up_to_it(total: int, units: dict[str, int]) -> None:
    found = absorbed(total, units)
    assert sum(found.values()) == total
    weight = sum(units.values())
    assert all(abs(found[team] * weight - total * units[team]) < weight for team in units)


@settings(max_examples=20, deadline=None)
@given(charges=st.lists(st.tuples(st.integers(0, 1199), st.integers(0, 10**12)), max_size=12), late=st.data())
def test_charges_and_idle_time_are_price_times_time(
    tmp_path_factory: pytest.TempPathFactory, charges: list[tuple[int, int]], late: st.DataObject
) -> None:
    from trilith_gateway.store.sqlite import SqliteStore

    store = SqliteStore(tmp_path_factory.mktemp("home"))
    try:
        came = late.draw(st.lists(st.sampled_from((300, 600, 900, 1200)), max_size=12))
        costs = EngineCosts(store)
        for number, (at, amount) in enumerate(charges):
            if number < len(came):  # the books are looked at in between, at any time
                costs._due = 0.0
                costs.tick([ACCOUNT], START + came[number] + 6.0)
            store.append(call(number, float(START + at), amount))
        costs._due = 0.0
        costs.tick([ACCOUNT], START + 1206.0)
        first = ask(store, "select min(at) from ledger where category = 'idle'")[0][0]
        assert booked(store, int(first), START + 1200) == ACCOUNT.cost(int(first), START + 1200)
    finally:
        store.close()


METRICS = b"""# HELP vllm:prompt_tokens_total x
vllm:prompt_tokens_total{engine="0",model_name="m"} %d
vllm:generation_tokens_total{engine="0",model_name="m"} %d
vllm:request_prefill_time_seconds_sum{engine="0",model_name="m"} %f
vllm:request_decode_time_seconds_sum{engine="0",model_name="m"} %f
"""


def test_weights_are_fitted_from_the_servers_own_metrics() -> None:
    before = enginecost.read_metrics(METRICS % (1000, 100, 1.0, 1.0))
    after = enginecost.read_metrics(METRICS % (11_000, 1100, 11.0, 6.0))
    # An input token took 1 ms, an output token 5.
    found = enginecost.fit(before, after, 10.0)
    assert found == {"output_weight": 5.0, "units_per_second": 1500.0}
    assert EngineCostSettings(usd_per_hour=1, **found).units_per_second == 1500.0
    assert enginecost.fit(before, before, 10.0) is None
