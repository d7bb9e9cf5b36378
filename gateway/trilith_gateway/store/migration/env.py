"""Run by Alembic: applies what is missing in one transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, event, inspect, pool, text
from sqlalchemy.engine import Connection

url = context.config.get_main_option("sqlalchemy.url") or ""
engine = create_engine(url, poolclass=pool.NullPool)
if engine.dialect.name == "sqlite":  # the driver would commit before each change of a table

    @event.listens_for(engine, "connect")
    def _leave_transactions_to_us(connection: object, record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("begin immediate")


with engine.begin() as connection:
    if engine.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(724910)"))
    tables = inspect(connection).get_table_names()
    if "ledger" in tables and "alembic_version" not in tables:  # older than versions
        connection.exec_driver_sql(
            "create table alembic_version (version_num varchar(32) primary key not null)"
        )
        connection.exec_driver_sql("insert into alembic_version values ('0001')")
    context.configure(connection=connection, transactional_ddl=True)
    context.run_migrations()
