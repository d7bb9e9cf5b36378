"""Opens the database that the settings name."""

from __future__ import annotations

from trilith.settings.schema import Settings
from trilith_gateway.store import sqlite
from trilith_gateway.store.journalled import JournalledStore
from trilith_gateway.store.seam import Connection, Database


def open_store(settings: Settings, *, worker: str = "0", token: str | None = None) -> JournalledStore:
    """Open one worker's store; see `JournalledStore` for `worker` and `token`."""
    durability = settings.store.durability
    if settings.store.url is None:
        return sqlite.SqliteStore(settings.home, worker=worker, token=token, durability=durability)
    from trilith_gateway.store.postgres import PostgresStore

    return PostgresStore(settings.store.url, settings.home, worker=worker, token=token, durability=durability)


def open_connection(settings: Settings) -> Connection:
    """Open a connection for a command; close it after use."""
    if settings.store.url is None:
        return sqlite.create(sqlite.database(settings.home))
    from trilith_gateway.store.postgres import PostgresConnection, check

    check(settings.store.url)
    return PostgresConnection(settings.store.url)


def open_database(settings: Settings) -> Database:
    """Return what is particular to the settings' database, for commands that write."""
    if settings.store.url is None:
        return sqlite.SqliteDatabase(sqlite.database(settings.home))
    from trilith_gateway.store.postgres import PostgresDatabase

    return PostgresDatabase(settings.store.url)
