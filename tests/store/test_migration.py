from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trilith.errors import SettingsError
from trilith_gateway.store import schema, sqlite

ROWS = """
insert into keys values ('k', 'n', 't', 's', null, 'day', null, '', 1.0, null);
insert into ledger values ('c1', 'c1', 1.0, 'k', 't', 'm', 'chat', 'r', 200, 'usage', 'p', 7, 1, 2, 0, 0, 0,
    1, 1.0, null, 0);
insert into reservations values ('c2', 'k', 9, 1.0, 'open');
insert into audit values (1, 'a1', 1.0, 'pii.mask', '{}', '', 'x');
insert into feedback values ('f1', 'c1', 'k', 1.0, 1.0, null, null);
"""
COLUMNS = "select table_name, column_name from information_schema.columns where table_schema = 'public'"


def filled(path: Path) -> None:
    """A database as the release before versions left it."""
    path.parent.mkdir(parents=True)
    with closing(sqlite.connect(path)) as connection:
        connection.executescript(schema.FIRST + ROWS)


def shape(path: Path) -> set[tuple[Any, ...]]:
    with closing(sqlite.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        return {(t, *c[1:]) for t in tables for c in connection.execute(f"pragma table_info({t})")} | {
            tuple(row) for row in connection.execute("select type, name, tbl_name from sqlite_master")
        }


def test_a_filled_database_of_the_first_version_is_migrated_and_keeps_its_rows(home: Path) -> None:
    filled(sqlite.database(home))
    store = sqlite.SqliteStore(home)
    assert store.charged("key:k", 0.0) == 7
    with store.reading() as connection:
        assert [row["state"] for row in connection.execute("select state from reservations")] == ["lost"]
        assert connection.execute("select count(*) from keys").fetchone()[0] == 1
    store.close()


def test_a_migrated_database_has_the_shape_of_a_new_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "trilith.db", tmp_path / "new" / "trilith.db"
    filled(old)
    sqlite.create(old).close()
    sqlite.create(new).close()
    assert shape(old) == shape(new)


def test_postgres_is_refused_until_it_is_migrated_and_keeps_its_rows(postgres_url: str, home: Path) -> None:
    from trilith_gateway.store import postgres

    with closing(postgres.PostgresConnection(postgres_url)) as connection:
        for statement in schema.statements(schema.script(schema.FIRST, postgres=True) + ROWS):
            connection.execute(statement)
    with pytest.raises(SettingsError, match="trilith store migrate"):
        postgres.PostgresStore(postgres_url, home)
    postgres.migrate(postgres_url)
    store = postgres.PostgresStore(postgres_url, home)
    assert store.charged("key:k", 0.0) == 7
    store.close()


def test_a_database_of_a_later_release_is_refused(home: Path) -> None:
    sqlite.create(sqlite.database(home)).execute(
        "update alembic_version set version_num = '9999'"
    ).connection.close()
    with pytest.raises(SettingsError, match="'9999'"):
        sqlite.SqliteStore(home)


def test_a_current_database_opens_without_alembic(home: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from trilith_gateway.store.sqlite import SqliteStore
SqliteStore(Path({str(home)!r})).close()
assert not {{"alembic", "sqlalchemy", "psycopg"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
