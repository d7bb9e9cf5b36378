"""The way from an older database to the newest version, forwards only, by Alembic."""

from __future__ import annotations

from pathlib import Path


def upgrade(url: str) -> None:
    """Bring the database at a SQLAlchemy URL to the newest version; one without a version counts as 0001."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, "head")
