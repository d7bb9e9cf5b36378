"""The tables, in the newest version and for both databases; which version a database has, by plain SQL."""

from __future__ import annotations

import re

from trilith.errors import SettingsError
from trilith_gateway.store.seam import Connection

HEAD = "0007"
"""The version that this release reads and writes; `migration/versions` holds the way to it."""

FIRST = """
create table if not exists keys (
    id text primary key, name text not null, team text not null, secret_sha256 text not null,
    budget_pico_usd integer, budget_window text not null, requests_per_minute integer,
    models text not null, created_at real not null, revoked_at real
) strict;
create table if not exists ledger (
    id text primary key, request_id text not null, at real not null, key_id text not null, team text not null,
    model text not null, kind text not null, release text not null, status integer not null,
    rule text not null, price text not null, amount_pico_usd integer,
    input_tokens integer not null, output_tokens integer not null, cached_input_tokens integer not null,
    reasoning_tokens integer not null, rows integer not null, requests integer not null,
    duration_ms real not null, first_byte_ms real, streamed integer not null
) strict;
create index if not exists ledger_by_key on ledger (key_id, at);
create index if not exists ledger_by_request on ledger (request_id);
create table if not exists reservations (
    id text primary key, key_id text not null, amount_pico_usd integer not null, at real not null,
    state text not null check (state in ('open', 'settled', 'lost'))
) strict;
create index if not exists reservations_open on reservations (state) where state = 'open';
create table if not exists audit (
    number integer primary key, id text not null unique, at real not null, event text not null,
    detail text not null, previous text not null, digest text not null
) strict;
create table if not exists feedback (
    id text primary key, request_id text not null, key_id text not null, at real not null,
    score real, label text, comment text
) strict;
create table if not exists meta (name text primary key, value text not null) strict;
"""
"""Version 0001."""

SECOND = """
alter table ledger add column worker text not null default '';
alter table ledger add column org text not null default '';
alter table reservations add column worker text not null default '';
create index ledger_by_team on ledger (team, at);
create table leases (
    account text not null, window_start real not null, holder text not null, amount_pico_usd integer not null,
    primary key (account, window_start, holder)
) strict;
create table lease_windows (
    account text not null, window_start real not null, primary key (account, window_start)
) strict;
create table holders (holder text primary key, seen real not null) strict;
create table leaders (name text primary key, holder text not null, until real not null) strict;
insert into meta values ('keys', '0');
"""
"""From version 0001 to 0002."""

_TERMS = """budget_pico_usd integer, budget_window text not null default 'month', soft_percent integer,
    degrade_percent integer, degrade_to text not null default '', requests_per_minute integer,
    tokens_per_minute integer, max_concurrency integer"""

THIRD = f"""
alter table keys add column soft_percent integer;
alter table keys add column degrade_percent integer;
alter table keys add column degrade_to text not null default '';
alter table keys add column tokens_per_minute integer;
alter table keys add column max_concurrency integer;
alter table keys add column priority text not null default 'interactive';
alter table ledger add column asked text not null default '';
alter table ledger add column budget text not null default '';
create index ledger_by_org on ledger (org, at) where org <> '';
create table teams (
    name text primary key, org text not null default '', weight integer not null default 1,
    {_TERMS}, created_at real not null
) strict;
create table orgs (name text primary key, {_TERMS}, created_at real not null) strict;
"""
"""From version 0002 to 0003."""
FOURTH = """
alter table ledger add column attempt integer not null default 1;
alter table ledger add column category text not null default 'usage';
alter table ledger add column adjusts text not null default '';
alter table ledger add column booked_at real;
alter table ledger add column estimated integer not null default 0;
alter table ledger add column upstream text not null default '';
alter table ledger add column tier text not null default '';
alter table ledger add column cache_write_tokens integer not null default 0;
alter table ledger add column cache_write_1h_tokens integer not null default 0;
alter table ledger add column audio_input_tokens integer not null default 0;
alter table ledger add column audio_output_tokens integer not null default 0;
alter table ledger add column image_input_tokens integer not null default 0;
alter table ledger add column image_output_tokens integer not null default 0;
alter table ledger add column searches integer not null default 0;
alter table ledger add column cpu_ns integer not null default 0;
alter table ledger add column saved_pico_usd integer not null default 0;
create index ledger_by_model on ledger (model, at);
create index ledger_by_adjusted on ledger (adjusts) where adjusts <> '';
"""
"""To version 0004: further units, several rows for one request, adjustments."""
FIFTH = """
alter table ledger add column images integer not null default 0;
alter table ledger add column seconds integer not null default 0;
alter table ledger add column characters integer not null default 0;
create table files (
    id text primary key, team text not null, key_id text not null, purpose text not null, name text not null,
    bytes integer not null, at real not null, expires_at real not null, place text not null
) strict;
create index files_by_team on files (team, at);
create table batches (
    id text primary key, team text not null, key_id text not null, endpoint text not null,
    input_file_id text not null, metadata text not null, status text not null, at real not null,
    expires_at real not null, started_at real, finalizing_at real, cancelling_at real, ended_at real,
    total integer not null default 0, completed integer not null default 0, failed integer not null default 0,
    output_file_id text, error_file_id text, faults text not null default '[]', place text not null
) strict;
create index batches_by_team on batches (team, at);
create index batches_open on batches (place) where ended_at is null;
"""
"""From version 0002 to 0005: what media use, files, and batches."""
SIXTH = """
alter table ledger add column decided text not null default '';
alter table ledger add column kept_as text not null default '';
create index ledger_by_kept on ledger (kept_as) where kept_as <> '';
"""
"""From version 0005 to 0006: why a request was answered as it was, and as what its answer is kept."""
SEVENTH = """
alter table keys add column admin integer not null default 0;
create table eval_runs (
    id text primary key, at real not null, key_id text not null, outcome text not null,
    bytes integer not null, summary text not null, run text not null
) strict;
create index eval_runs_by_time on eval_runs (at, id);
create table eval_suites (
    run_id text not null, suite text not null, model text not null, release text not null,
    primary key (run_id, suite, model, release)
) strict;
create index eval_suites_by_model on eval_suites (model);
create table eval_findings (
    id text primary key, at real not null, key_id text not null, monitor text not null, kind text not null,
    finding text not null
) strict;
create index eval_findings_by_time on eval_findings (at, id);
"""
"""From version 0006 to 0007: keys that may ask about the platform, and what evals found."""

_SQLITE_TRIGGERS = "".join(
    f"create trigger keys_{event} after {event} on keys begin"
    " update meta set value = cast(value + 1 as text) where name = 'keys'; end;\n"
    for event in ("insert", "update", "delete")
)
_POSTGRES_TRIGGERS = """
create function trilith_keys_changed() returns trigger language plpgsql as
'begin update meta set value = (value::bigint + 1)::text where name = ''keys''; return null; end';
create trigger keys_changed after insert or update or delete on keys
for each statement execute function trilith_keys_changed();
"""
_SQLITE_GROUP_TRIGGERS = "".join(
    _SQLITE_TRIGGERS.replace("keys_", f"{table}_").replace(" on keys ", f" on {table} ")
    for table in ("teams", "orgs")
)
_POSTGRES_GROUP_TRIGGERS = "".join(
    f"create trigger {table}_changed after insert or update or delete on {table}"
    " for each statement execute function trilith_keys_changed();\n"
    for table in ("teams", "orgs")
)
_VERSION_TABLE = "create table if not exists alembic_version (version_num varchar(32) primary key not null);"


def script(ddl: str, *, postgres: bool) -> str:
    """Return DDL, which is kept as SQLite's, for one of the databases."""
    if not postgres:
        return ddl
    ddl = re.sub(r"\)\s*strict;", ");", ddl)
    return re.sub(r"\breal\b", "double precision", re.sub(r"\binteger\b", "bigint", ddl))


def second(*, postgres: bool) -> str:
    """Return the whole way from version 0001 to 0002."""
    triggers = _POSTGRES_TRIGGERS if postgres else _SQLITE_TRIGGERS
    return script(SECOND, postgres=postgres) + triggers


def third(*, postgres: bool) -> str:
    """Return the whole way from version 0002 to 0003."""
    triggers = _POSTGRES_GROUP_TRIGGERS if postgres else _SQLITE_GROUP_TRIGGERS
    return script(THIRD, postgres=postgres) + triggers


def fourth(*, postgres: bool) -> str:
    """Return the whole way to version 0004."""
    return script(FOURTH, postgres=postgres)


def fifth(*, postgres: bool) -> str:
    """Return the whole way from version 0002 to 0005."""
    return script(FIFTH, postgres=postgres)


def sixth(*, postgres: bool) -> str:
    """Return the whole way from version 0005 to 0006."""
    return script(SIXTH, postgres=postgres)


def seventh(*, postgres: bool) -> str:
    """Return the whole way from version 0006 to 0007."""
    return script(SEVENTH, postgres=postgres)


def newest(*, postgres: bool) -> str:
    """Return the script that makes an empty database one of the newest version."""
    stamp = f"insert into alembic_version values ('{HEAD}');"
    steps = (second, third, fourth, fifth, sixth, seventh)
    changes = "".join(step(postgres=postgres) for step in steps)
    return script(FIRST, postgres=postgres) + changes + _VERSION_TABLE + stamp


def statements(script: str) -> list[str]:
    """Cut a script into statements: each ends with `;` at a line's end."""
    return [part for part in re.split(r";[ ]*\n", script + "\n") if part.strip()]


def version(connection: Connection, *, postgres: bool) -> str | None:
    """Return a database's version; None when it is empty. Imports nothing."""
    listing = (
        "select tablename from pg_tables where schemaname = current_schema()"
        if postgres
        else "select name from sqlite_master where type = 'table'"
    )
    tables = {row[0] for row in connection.execute(listing)}
    if "alembic_version" in tables:
        row = connection.execute("select version_num from alembic_version").fetchone()
        if row is not None:
            return str(row[0])
    return "0001" if "ledger" in tables else None


def refuse_newer(found: str, place: str) -> None:
    """Refuse a database that a later release wrote.

    Raises:
        SettingsError: it is newer than this release knows.
    """
    if found > HEAD:
        raise SettingsError(
            f"the database at {place} has version {found!r}, and this release of Trilith knows up to "
            f"{HEAD!r}. Install the release that wrote it, or a later one"
        )
