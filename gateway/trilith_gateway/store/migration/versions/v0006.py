"""Routes and cascades: the model that was asked for, and what another's answer spared."""

from __future__ import annotations

from alembic import op

from trilith_gateway.store import schema

revision = "0006"
down_revision = "0002"


def upgrade() -> None:
    """Add them."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in schema.statements(schema.script(schema.SIXTH, postgres=postgres)):
        op.get_bind().exec_driver_sql(statement)
