"""Teams and orgs with budgets and limits of their own; what a budget did stands in the ledger."""

from __future__ import annotations

from alembic import op

from trilith_gateway.store import schema

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add them."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in schema.statements(schema.third(postgres=postgres)):
        op.get_bind().exec_driver_sql(statement)
