"""What an answer from the cache saved stands on its row."""

from __future__ import annotations

from alembic import op

from trilith_gateway.store import schema

revision = "0007"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in schema.statements(schema.script(schema.SEVENTH, postgres=postgres)):
        op.get_bind().exec_driver_sql(statement)
