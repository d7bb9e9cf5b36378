"""Leases: how several processes spend one budget without asking the database at every request.

A row says how much of an account's window a holder has taken; what the holder charged since is part of it.
So what all have taken is never less than what is spent, and asking needs no sum over the ledger. When a
holder dies, its row becomes what the ledger says it charged.
"""

from __future__ import annotations

from trilith_gateway.store.amount import MOST, capped, read, total
from trilith_gateway.store.seam import Connection, Database

_FIELDS = {"key": "key_id", "team": "team", "org": "org"}
_KEPT_S = 70 * 86400
"""How long a closed window's rows are kept. A budget over all time has its window at 0, and stays."""


def field(account: str) -> tuple[str, str]:
    """Return the field of a charge that names an account, and the account's name there.

    Raises:
        ValueError: the account is not of the form `key:ID`, `team:NAME` or `org:NAME`.
    """
    kind, colon, name = account.partition(":")
    if not colon or kind not in _FIELDS:
        raise ValueError(f"{account!r} is no account; expected key:ID, team:NAME or org:NAME")
    return _FIELDS[kind], name


def condition(account: str) -> tuple[str, str]:
    """Return what stands before `= ?` to find an account's charges, and the value.

    The index over orgs holds only rows that have one, and is used where the query says so.

    Raises:
        ValueError: it is no account.
    """
    found, name = field(account)
    return ("org <> '' and org" if found == "org" else found), name


def charged(connection: Connection, account: str, since: float, worker: str | None = None) -> int:
    """Return what the ledger holds for an account, in pico-USD."""
    column, name = condition(account)
    statement = f"select {total('amount_pico_usd')} from ledger where {column} = ? and at >= ?"
    if worker is None:
        return read(connection.execute(statement, (name, since)).fetchone())
    return read(connection.execute(f"{statement} and worker = ?", (name, since, worker)).fetchone())


def take(
    database: Database,
    connection: Connection,
    holder: str,
    account: str,
    window_start: float,
    limit: int | None,
    at_least: int,
    wanted: int,
) -> int:
    """Take from an account's window, in a transaction of its own; see `Store.lease`."""
    if not 0 <= at_least <= wanted:
        raise ValueError(f"cannot lease between {at_least!r} and {wanted!r} pico-USD")
    with database.transaction(connection):
        if not database.alive(connection, holder):
            raise OSError("this process was silent for too long, and its leases are being settled")
        database.exclusive(connection, f"lease {account}")
        _open_window(connection, account, window_start)
        if limit is not None:
            left = limit - taken(connection, account, window_start)
            if left < at_least or left <= 0:
                return 0
            wanted = min(wanted, left)
        add(connection, account, window_start, holder, wanted)
    return wanted


def taken(connection: Connection, account: str, window_start: float) -> int:
    """Return what all holders have taken of an account's window, in pico-USD."""
    row = connection.execute(
        f"select {total('amount_pico_usd')} from leases where account = ? and window_start = ?",
        (account, window_start),
    ).fetchone()
    return read(row)


def give_back(
    database: Database, connection: Connection, holder: str, account: str, window_start: float, amount: int
) -> None:
    """Make a holder's row smaller."""
    if amount < 0:
        raise ValueError(f"cannot give back {amount!r} pico-USD")
    with database.transaction(connection):
        if database.alive(connection, holder):  # else its row is what it has charged
            connection.execute(
                "update leases set amount_pico_usd = amount_pico_usd - ?"
                " where account = ? and window_start = ? and holder = ? and amount_pico_usd >= ?",
                (amount, account, window_start, holder, amount),
            )


def settle(connection: Connection, holder: str) -> None:
    """Within a transaction, replace all that a holder has taken by what the ledger says it charged."""
    found = connection.execute("select account, window_start from leases where holder = ?", (holder,))
    for account, window_start in [(row[0], row[1]) for row in found.fetchall()]:
        amount = capped(charged(connection, account, window_start, holder))
        connection.execute(
            "update leases set amount_pico_usd = ? where account = ? and window_start = ? and holder = ?",
            (amount, account, window_start, holder),
        )


def settle_one(connection: Connection, holder: str, account: str, window_start: float) -> None:
    """Within a transaction, do the same for one account's window.

    What others charged counts at least: they lease nothing while the account has no budget.
    """
    _open_window(connection, account, window_start)
    amounts = {holder: 0} | _by_worker(connection, account, window_start)
    for worker, amount in amounts.items():
        kept = "" if worker == holder else " where leases.amount_pico_usd < excluded.amount_pico_usd"
        connection.execute(
            "insert into leases values (?, ?, ?, ?) on conflict (account, window_start, holder)"
            f" do update set amount_pico_usd = excluded.amount_pico_usd{kept}",
            (account, window_start, worker, amount),
        )


def forget(connection: Connection, now: float) -> None:
    """Within a transaction, delete windows that closed long ago."""
    for table in ("leases", "lease_windows"):
        connection.execute(
            f"delete from {table} where window_start > 0 and window_start < ?", (now - _KEPT_S,)
        )


def _open_window(connection: Connection, account: str, window_start: float) -> None:
    """On first use, take over what was charged in the window before anyone leased (an older release)."""
    made = connection.execute(
        "insert into lease_windows values (?, ?) on conflict do nothing", (account, window_start)
    )
    if not made.rowcount:
        return
    for worker, amount in _by_worker(connection, account, window_start).items():
        values = (account, window_start, worker, amount)
        connection.execute("insert into leases values (?, ?, ?, ?)", values)


def _by_worker(connection: Connection, account: str, since: float) -> dict[str, int]:
    """Return what the ledger says that each worker charged, as far as a column holds it."""
    column, name = condition(account)
    rows = connection.execute(
        f"select worker, {total('amount_pico_usd')} from ledger"
        f" where {column} = ? and at >= ? and amount_pico_usd is not null group by worker",
        (name, since),
    ).fetchall()
    return {row["worker"]: capped(read(row)) for row in rows}


def add(connection: Connection, account: str, window_start: float, holder: str, amount: int) -> None:
    """Within a transaction, make a holder's row larger."""
    connection.execute(
        "insert into leases values (?, ?, ?, ?) on conflict (account, window_start, holder)"
        " do update set amount_pico_usd = case"
        f" when excluded.amount_pico_usd > 0 and leases.amount_pico_usd > {MOST} - excluded.amount_pico_usd"
        f" then {MOST} else leases.amount_pico_usd + excluded.amount_pico_usd end",
        (account, window_start, holder, capped(amount)),
    )
