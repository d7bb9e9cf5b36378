"""The ledger's further units, several rows for one request, adjustments."""

from __future__ import annotations

from alembic import op

from trilith_gateway.store import schema

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add them."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in schema.statements(schema.fourth(postgres=postgres)):
        op.get_bind().exec_driver_sql(statement)
