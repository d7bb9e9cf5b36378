"""Re-rating: what should have been charged at another price, as rows beside those that were charged.

A row of the ledger is never changed. An adjustment has the time of the row that it adjusts, so every sum over
a time is what it should have been, and budgets of windows that are still open follow; `booked_at` says when
it was made. Doing it twice finds nothing left to adjust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trilith.errors import DataError
from trilith.money import Price, UnpricedUsage, cost
from trilith.prices import load
from trilith.settings.model import ChatModel, EmbeddingModel
from trilith.settings.schema import Settings
from trilith.types import NO_PARTICULARS, Particulars, Usage
from trilith_gateway.batch import table
from trilith_gateway.opening import price_of
from trilith_gateway.release import price_id
from trilith_gateway.store import lease
from trilith_gateway.store.journal import Record
from trilith_gateway.store.seam import Connection, Database

WORKER = "adjustments"
"""Who writes adjustments; also their holder among the leases."""

_USAGE = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "rows",
    "requests",
    "images",
    "seconds",
    "characters",
)
_PARTICULARS = Particulars.__slots__
_KEPT = (
    "request_id",
    "at",
    "key_id",
    "team",
    "org",
    "model",
    "kind",
    "release",
    "status",
    "streamed",
    "tier",
)
_ROWS = """
select ledger.*, coalesce(made.amount, 0) as adjusted, coalesce(made.number, 0) as adjustments
from ledger left join (
    select adjusts, sum(amount_pico_usd) as amount, count(*) as number from ledger
    where adjusts <> '' group by adjusts
) made on made.adjusts = ledger.id
where category in ('usage', 'attempt') and rule not in ('cached', 'failed') and at >= ?
"""

PriceOf = Callable[[str], Price | None]
"""Returns a model's price by its public name; None when there is none."""


@dataclass(slots=True)
class Rerating:
    """What a re-rating found."""

    rows: int = 0
    """Charges that were looked at."""
    unpriced: int = 0
    """Charges that the new price cannot price either; they stay as they are."""
    adjustments: int = 0
    """Charges that differ."""
    amount: int = 0
    """By how much, in all (pico-USD)."""


def find(
    connection: Connection,
    prices: PriceOf,
    since: float,
    now: float,
    model: str | None = None,
    *,
    batch_prices: PriceOf | None = None,
) -> tuple[Rerating, list[Record]]:
    """Return what differs from the new prices, and the adjustments for it; nothing is written.

    Args:
        connection: To the database.
        prices: The new prices.
        since: Unix time of the first charge to look at.
        now: Unix time.
        model: Only this model's.
        batch_prices: Those of batches' lines; None: the same.
    """
    found, adjustments = Rerating(), list[Record]()
    for row in _charges(connection, since, model):
        found.rows += 1
        line = batch_prices is not None and row["id"].startswith(table.PREFIX)
        price = (batch_prices if line and batch_prices is not None else prices)(row["model"])
        try:
            amount = cost(usage(row), price) if price is not None else None
        except UnpricedUsage:
            amount = None
        if amount is None:
            found.unpriced += 1
            continue
        difference = amount - (row["amount_pico_usd"] or 0) - row["adjusted"]
        settled = row["amount_pico_usd"] is not None or row["adjustments"]
        # A fraction of a pico-USD of CPU time went to the next call, or came from the one before.
        if (difference == 0 and settled) or (row["cpu_ns"] and abs(difference) <= 1):
            continue
        found.adjustments += 1
        found.amount += difference
        adjustments.append(_adjustment(row, difference, price_id(price), now))
    return found, adjustments


def apply(
    database: Database,
    connection: Connection,
    prices: PriceOf,
    since: float,
    now: float,
    model: str | None,
    *,
    batch_prices: PriceOf | None = None,
) -> Rerating:
    """Append the adjustments, in one transaction; whoever keeps budgets is told to read them again."""
    with database.transaction(connection):
        database.exclusive(connection, "rerate")
        found, adjustments = find(connection, prices, since, now, model, batch_prices=batch_prices)
        if adjustments:
            columns = [name for name in adjustments[0] if name != "t"]
            database.insert(connection, "ledger", columns, adjustments)
            _lease(connection, adjustments)
            connection.execute(
                "update meta set value = cast(cast(value as bigint) + 1 as text) where name = 'keys'"
            )
    return found


def usage(row: Any) -> Usage:
    """Return what a row of the ledger says was used."""
    values = {name: row[name] for name in _PARTICULARS}
    particulars = Particulars(**values) if any(values.values()) else NO_PARTICULARS
    counts: dict[str, Any] = {name: row[name] for name in _USAGE}
    return Usage(**counts, particulars=particulars)


def prices_of(settings: Settings, source: str, *, batched: bool = False) -> PriceOf:
    """Return the prices to re-rate by.

    Args:
        settings: The platform.
        source: `settings`: as they stand there now; `book`: as the price book of this release has them.
        batched: Those of batches' lines, where the settings have a price for them.

    Raises:
        DataError: the price book is not the recorded one.
    """
    if source == "settings":
        return lambda name: price_of(settings, name, batched=batched)
    book = load()

    def find(name: str) -> Price | None:
        model = settings.models.get(name)
        named = model.price.book if model is not None and model.price is not None else None
        if named is None and isinstance(model, ChatModel | EmbeddingModel):
            named = model.upstream.provider
        found = book.find(named) if named is not None else None
        if found is None or not batched or model is None or model.price is None:
            return found
        return found.tiers.get("batch", found) if model.price.batch_factor is not None else found

    return find


def since_of(text: str) -> float:
    """Return the Unix time that a day (UTC) or a time of ISO 8601 names.

    Raises:
        DataError: it names none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"{text!r} is no time; expected a day such as 2026-11-01, in UTC") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _charges(connection: Connection, since: float, model: str | None) -> Iterator[Any]:
    if model is None:
        yield from connection.execute(_ROWS, (since,))
    else:
        yield from connection.execute(f"{_ROWS} and model = ?", (since, model))


def _adjustment(row: Any, difference: int, price: str, now: float) -> Record:
    return {
        **{name: row[name] for name in _KEPT},
        "id": f"{row['id']}~{row['adjustments'] + 1}",
        "adjusts": row["id"],
        "category": "adjustment",
        "rule": "rerated",
        "price": price,
        "amount_pico_usd": difference,
        "booked_at": now,
        "attempt": row["attempt"],
        "duration_ms": 0.0,
        "first_byte_ms": None,
        "worker": WORKER,
        **dict.fromkeys(_USAGE, 0),
    }


def _lease(connection: Connection, adjustments: list[Record]) -> None:
    """Count adjustments within the windows of which workers lease budgets.

    Windows that nobody has leased from yet take the ledger's sum when they are opened, adjustments included.
    """
    windows = connection.execute("select account, window_start from lease_windows").fetchall()
    for account, start in [(row[0], row[1]) for row in windows]:
        field, name = lease.field(account)
        amount = sum(a["amount_pico_usd"] for a in adjustments if a[field] == name and a["at"] >= start)
        if amount:
            lease.add(connection, account, start, WORKER, amount)
