"""What an own server costs: its time at its hourly price, charged by work, the rest booked as idle.

Calls are charged at a standard rate: what a unit of work costs when the server is as busy as it is meant to
be. So a team's price does not jump when the others stop. What a window's charges leave of the server's cost,
the platform pays: one idle row, so charges and idle together are price x time, to the last pico-USD. A server
that does more than it is meant to earns more than it costs, and its idle row is below zero.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from trilith.money import Price, pico_usd, shares
from trilith.settings.engine import EngineCostSettings
from trilith.settings.model import ChatModel, EmbeddingModel, RagModel
from trilith.settings.schema import Settings
from trilith_gateway.charge import PLATFORM
from trilith_gateway.store.amount import read, total
from trilith_gateway.store.journal import Record
from trilith_gateway.store.journalled import JournalledStore
from trilith_gateway.store.seam import Connection, Database

_GRACE_S = 5
"""How long after its end a window is left alone (seconds): the last charges are on their way."""
_LATER_S = 3600
"""For how long windows are looked at again, since charges of a worker that was killed come late (seconds)."""
_FIRST_S = 86400
"""The same, when a process looks for the first time."""
_MOST_S = 31 * 86400
"""Most time that is booked for a platform which was down (seconds)."""


@dataclass(frozen=True, slots=True)
class Account:
    """One kind of server: what it costs and who uses it."""

    name: str
    """`engine:NAME`, or `upstream:MODEL`; the `model` of its idle rows."""
    per_hour: int
    """Pico-USD per hour, all replicas together."""
    window_s: int
    models: tuple[str, ...]
    """Those whose calls it answers."""

    def cost(self, start: int, end: int) -> int:
        """Return what the time between two Unix times costs; parts of a time add up to the whole."""
        return self.per_hour * end // 3600 - self.per_hour * start // 3600


def accounts(settings: Settings) -> list[Account]:
    """Return every server that has a cost in the settings."""
    users: dict[str, list[str]] = {}
    costs: dict[str, EngineCostSettings] = {}
    replicas: dict[str, int] = {}
    for name, model in settings.models.items():
        if (found := _place(settings, name)) is None:
            continue
        account, cost = found
        costs[account] = cost
        users.setdefault(account, []).append(name)
        if isinstance(model, ChatModel | EmbeddingModel):
            replicas[account] = max(replicas.get(account, 1), 1 + len(model.replicas))
    return [
        Account(
            name,
            pico_usd(cost.usd_per_hour, what="usd_per_hour") * replicas.get(name, 1),
            cost.window_s,
            tuple(users[name]),
        )
        for name, cost in costs.items()
    ]


def cost_of(settings: Settings, account: str) -> EngineCostSettings | None:
    """Return the settings of an account's cost, by the account's name."""
    kind, _, name = account.partition(":")
    if kind == "engine":
        engine = settings.engines.get(name)
        return engine.cost if engine is not None else None
    found = _place(settings, name) if name in settings.models else None
    return found[1] if found is not None else None


def _place(settings: Settings, name: str) -> tuple[str, EngineCostSettings] | None:
    """Return the account that a model's calls belong to, and its cost; a RAG model's is its generator's."""
    model = settings.models[name]
    if isinstance(model, RagModel):
        return _place(settings, model.generator)
    if not isinstance(model, ChatModel | EmbeddingModel):
        return None
    place = model.upstream
    if place.engine is not None:
        cost = settings.engines[place.engine].cost
        return None if cost is None else (f"engine:{place.engine}", cost)
    return None if place.cost is None else (f"upstream:{name}", place.cost)


def standard(settings: Settings, name: str) -> Price | None:
    """Return the standard rate of a model on a server whose capacity is stated; None for others.

    A unit of work costs the server's hour divided by the units that it does in one when as busy as meant.
    """
    found = _place(settings, name)
    if found is None or found[1].units_per_second is None:
        return None
    cost = found[1]
    unit = (
        cost.usd_per_hour
        * 10**12
        / (3600 * Decimal(str(found[1].units_per_second)) * cost.target_utilisation)
    )
    rates = [
        int((unit * weight).to_integral_value(ROUND_HALF_EVEN))
        for weight in (cost.input_weight, cost.output_weight, cost.cached_input_weight)
    ]
    fresh, output, cached = rates
    return Price(fresh, output, cached, source="engine time")


class EngineCosts:
    """Books the idle rows of all accounts; one process of all at a time does, and any may be killed."""

    def __init__(self, store: JournalledStore) -> None:
        self._store = store
        self._leader = store.leader("engine costs")
        self._due = 0.0
        self._first = True

    def tick(self, accounts: Sequence[Account], now: float | None = None) -> list[Record]:
        """Book what is due; returns the rows. Blocking; call it every second or so."""
        now = time.time() if now is None else now
        if not accounts or now < self._due:
            return []
        self._due = now + min(60, *(account.window_s for account in accounts))
        if not self._leader.acquire():
            return []
        try:
            return self._book(accounts, now)
        finally:
            self._leader.resign()

    def _book(self, accounts: Sequence[Account], now: float) -> list[Record]:
        self._store.flush()
        look_back, self._first = (_FIRST_S if self._first else _LATER_S), False
        rows: list[Record] = []
        with self._store.reading() as connection:
            for account in accounts:
                rows += due(connection, account, now, look_back)
        for row in rows:
            self._store.append(row)
        if rows:
            self._store.flush()
        return rows


def due(
    connection: Connection,
    account: Account,
    now: float,
    look_back_s: float = _LATER_S,
    *,
    begins: bool = True,
) -> list[Record]:
    """Return the idle rows that an account lacks.

    Those are rows for windows since the last that was booked, and corrections where a window's sum is not its
    cost any more.
    A row's id says which window it is for and how many there were before it, so two processes that look at
    the same time write the same row. Time counts from the first window that ended under a gateway; `begins`
    says that this is one.
    """
    size = account.window_s
    last = int(now - _GRACE_S) // size * size
    found = connection.execute(
        "select min(at), max(at) from ledger where model = ? and category = 'idle'", (account.name,)
    ).fetchone()
    if found[0] is None and not begins:
        return []
    if found[0] is None:
        first = last - size
    else:
        begun, ended = int(found[0]) // size * size, int(found[1]) // size * size + size
        first = max(begun, int(min(ended, last - look_back_s)), int(last - _MOST_S))
    rows = []
    for start in range(first // size * size, last, size):
        charged, number = _booked(connection, account, start)
        missing = account.cost(start, start + size) - charged
        if missing or not number:
            rows.append(_idle(account, start, number, missing, now))
    return rows


def correct(
    database: Database, connection: Connection, accounts: Sequence[Account], since: float, now: float
) -> None:
    """Book what adjustments of charges since a Unix time have moved between charged and idle time."""
    with database.transaction(connection):
        for account in accounts:
            missing = due(connection, account, now, now - since, begins=False)
            rows = [row | {"worker": PLATFORM} for row in missing]
            if rows:
                columns = [name for name in rows[0] if name != "t"]
                database.insert(connection, "ledger", columns, rows)


def _booked(connection: Connection, account: Account, start: int) -> tuple[int, int]:
    """Return the sum of all rows of a window, and how many of them are idle rows."""
    models = (*account.models, account.name)
    row = connection.execute(
        f"select {total('amount_pico_usd')}, sum(case when category = 'idle' then 1 else 0 end) as number"
        f" from ledger where model in ({', '.join('?' * len(models))}) and at >= ? and at < ?",
        (*models, start, start + account.window_s),
    ).fetchone()
    return read(row), int(row["number"] or 0)


def _idle(account: Account, start: int, number: int, amount: int, now: float) -> Record:
    id = f"idle:{account.name}:{start}" + (f":{number}" if number else "")
    return {
        "t": "charge",
        "id": id,
        "request_id": id,
        "at": float(start),
        "booked_at": now,
        "key_id": PLATFORM,
        "team": PLATFORM,
        "model": account.name,
        "kind": "engine",
        "release": "",
        "status": 0,
        "rule": "idle",
        "price": f"{account.per_hour} pico-USD an hour",
        "amount_pico_usd": amount,
        "category": "idle",
        "input_tokens": 0,
        "output_tokens": 0,
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "rows": 0,
        "requests": 0,
        "duration_ms": account.window_s * 1000.0,
        "first_byte_ms": None,
        "streamed": 0,
    }


def work(row: Mapping[str, Any], cost: EngineCostSettings) -> int:
    """Return a row's units of work, in thousandths."""
    fresh = row["input_tokens"] - row["cached_input_tokens"]
    units = (
        fresh * cost.input_weight
        + row["cached_input_tokens"] * cost.cached_input_weight
        + row["output_tokens"] * cost.output_weight
    )
    return int(units * 1000)


def absorbed(total: int, units: Mapping[str, int]) -> dict[str, int]:
    """Divide the whole cost, idle time included, by work (showback)."""
    return dict(zip(units, shares(total, list(units.values())), strict=True))


_METRIC = re.compile(
    rb"^vllm:(request_prefill_time_seconds_sum|request_decode_time_seconds_sum|request_prefill_kv_computed_tokens_sum"
    rb"|prompt_tokens_total|generation_tokens_total)(?:\{[^}]*\})? (\S+)$",
    re.M,
)


def read_metrics(metrics: bytes) -> dict[str, float]:
    """Return those of vLLM's metrics that tell of work done, summed over its engines."""
    found: dict[str, float] = {}
    for name, value in _METRIC.findall(metrics):
        found[name.decode()] = found.get(name.decode(), 0.0) + float(value)
    return found


def fit(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> dict[str, float] | None:
    """Fit weights and capacity from two looks at a server's metrics while it was kept fully busy.

    Returns:
        `output_weight`, as the time of one output token over that of one input token, and `units_per_second`;
        None when the server did too little between the looks.
    """
    done = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in after}
    computed = done.get("request_prefill_kv_computed_tokens_sum") or done.get("prompt_tokens_total", 0.0)
    output = done.get("generation_tokens_total", 0.0)
    prefill = done.get("request_prefill_time_seconds_sum", 0.0)
    decode = done.get("request_decode_time_seconds_sum", 0.0)
    if min(computed, output, prefill, decode, seconds) <= 0:
        return None
    weight = (decode / output) / (prefill / computed)
    return {
        "output_weight": round(weight, 3),
        "units_per_second": round((computed + output * weight) / seconds, 1),
    }
