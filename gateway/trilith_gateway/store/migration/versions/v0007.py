"""Keys that may ask about the platform, runs of evals, and findings of monitors."""

from __future__ import annotations

from alembic import op

from trilith_gateway.store import schema

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add them."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in schema.statements(schema.seventh(postgres=postgres)):
        op.get_bind().exec_driver_sql(statement)
