"""Several workers and machines: who charged, leases, leaders; changes of keys are counted."""

from __future__ import annotations

from alembic import op

from trilith_gateway.store import schema

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add them."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in schema.statements(schema.second(postgres=postgres)):
        op.get_bind().exec_driver_sql(statement)
