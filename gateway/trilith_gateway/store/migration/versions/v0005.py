"""What media use; files and batches."""

from __future__ import annotations

from alembic import op

from trilith_gateway.store import schema

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add them."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in schema.statements(schema.fifth(postgres=postgres)):
        op.get_bind().exec_driver_sql(statement)
