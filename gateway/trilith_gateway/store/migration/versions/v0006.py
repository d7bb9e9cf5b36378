"""Why a request was answered as it was; as what an upstream keeps its answer."""

from __future__ import annotations

from alembic import op

from trilith_gateway.store import schema

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add them."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in schema.statements(schema.sixth(postgres=postgres)):
        op.get_bind().exec_driver_sql(statement)
