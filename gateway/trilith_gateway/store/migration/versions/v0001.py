"""The first tables."""

from __future__ import annotations

from alembic import op

from trilith_gateway.store import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in schema.statements(schema.script(schema.FIRST, postgres=postgres)):
        op.get_bind().exec_driver_sql(statement)
