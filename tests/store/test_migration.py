from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trilith.errors import SettingsError
from trilith_gateway import group, key
from trilith_gateway.store import schema, sqlite
from trilith_gateway.terms import Terms

ROWS = """
insert into keys values ('k', 'n', 't', 's', null, 'day', null, '', 1.0, null);
insert into ledger values ('c1', 'c1', 1.0, 'k', 't', 'm', 'chat', 'r', 200, 'usage', 'p', 7, 1, 2, 0, 0, 0,
    1, 1.0, null, 0);
insert into reservations values ('c2', 'k', 9, 1.0, 'open');
insert into audit values (1, 'a1', 1.0, 'pii.mask', '{}', '', 'x');
insert into feedback values ('f1', 'c1', 'k', 1.0, 1.0, null, null);
"""
SECOND_ROWS = """
insert into ledger values ('c3', 'c3', 2.0, 'k', 't', 'm', 'chat', 'r', 200, 'usage', 'p', 5, 1, 2, 0, 0, 0,
    1, 1.0, null, 0, 'h/0', 'o');
insert into leases values ('key:k', 0.0, 'h/0', 12);
insert into lease_windows values ('key:k', 0.0);
"""
"""What the second version adds to them."""
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


def second(*, postgres: bool) -> str:
    """The whole second version, filled."""
    stamp = "create table alembic_version (version_num varchar(32) primary key not null);\n"
    stamp += "insert into alembic_version values ('0002');\n"
    first = schema.script(schema.FIRST, postgres=postgres) + ROWS
    return first + schema.second(postgres=postgres) + "\n" + SECOND_ROWS + stamp


def holds_all(store: Any) -> None:
    """What the second version's rows have become."""
    assert store.charged("org:o", 0.0) == 5
    assert store.charged("team:t", 0.0) == 12
    assert store.leased("key:k", 0.0) == 12
    with store.reading() as connection:
        (kept,) = key.load(connection)
        row = connection.execute("select * from ledger where id = 'c3'").fetchone()
        group.save(connection, "teams", "t", {"org": "o", "budget_pico_usd": 9})
        group.save(connection, "orgs", "o", {"budget_pico_usd": 20})
        (under,) = key.load(connection)
    assert (kept.terms, kept.priority, kept.budgets) == (Terms(None, "day"), "interactive", ())
    assert (row["asked"], row["budget"], row["decided"], row["kept_as"]) == ("", "", "", "")
    assert [budget.account for budget in under.budgets] == ["team:t", "org:o"]
    assert store.keys_changed.wait(10)


def test_a_filled_database_of_the_second_version_is_migrated_and_keeps_its_rows(home: Path) -> None:
    home.mkdir()
    with closing(sqlite.connect(sqlite.database(home))) as connection:
        connection.executescript(second(postgres=False))
    store = sqlite.SqliteStore(home)
    holds_all(store)
    store.close()


def test_a_filled_postgres_of_the_second_version_is_migrated_and_keeps_its_rows(
    postgres_url: str, home: Path
) -> None:
    from trilith_gateway.store import postgres

    with closing(postgres.PostgresConnection(postgres_url)) as connection:
        for statement in schema.statements(second(postgres=True)):
            connection.execute(statement)
    with pytest.raises(SettingsError, match="trilith store migrate"):
        postgres.PostgresStore(postgres_url, home)
    postgres.migrate(postgres_url)
    store = postgres.PostgresStore(postgres_url, home)
    holds_all(store)
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
