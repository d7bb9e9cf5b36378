"""`trilith ingest`: bring indexes in step with their source folders."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from trilith.errors import DataError, SettingsError
from trilith.settings import load_settings


class Ingest:
    """Build and update indexes."""

    help = "read documents into their index; a second run changes nothing"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("index", nargs="*", help="indexes to bring in step (default: all)")
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would change, and change nothing"
        )
        parser.add_argument(
            "--allow-empty", action="store_true", help="let a folder without any document empty its index"
        )
        parser.add_argument(
            "--settings",
            type=Path,
            metavar="PATH",
            help="settings file (default: $TRILITH_SETTINGS or ./trilith.yaml)",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Sync each index; 1 when a document could not be read."""
        settings = load_settings(arguments.settings).settings
        if not settings.indexes:
            raise SettingsError("there is nothing under `indexes`; declare an index there first")
        names = arguments.index or list(settings.indexes)
        if unknown := [name for name in names if name not in settings.indexes]:
            raise DataError(f"{unknown[0]!r} is not among the indexes ({', '.join(settings.indexes)})")

        from trilith_rag.sync import sync

        failed = False
        for name in names:
            report = sync(
                settings.indexes[name],
                settings.home,
                name,
                dry_run=arguments.dry_run,
                allow_empty=arguments.allow_empty,
                progress=_progress(name, sys.stderr),
            )
            print(
                f"{name}: {report.added} added, {report.changed} changed, {report.removed} removed, "
                f"{report.unchanged} unchanged; {report.chunks} passages, {report.embedded} embedded, "
                f"{report.seconds:.1f} s"
            )
            if report.store_missing or report.store_orphans:
                print(f"  healed: {report.store_missing} lost and {report.store_orphans} stray passages")
            for failure in report.failed:
                print(f"  could not read {failure}", file=sys.stderr)
            for path in report.empty:
                print(f"  {path} holds no text", file=sys.stderr)
            failed = failed or bool(report.failed)
        return 1 if failed else 0


def _progress(name: str, stream: TextIO) -> Callable[[int, int], None]:
    """Count passages on one line that goes away when all are done; silent where nobody looks."""

    def show(done: int, total: int) -> None:
        if stream.isatty():
            print(f"\r{name}: {done}/{total} passages", end="", file=stream, flush=True)
            if done >= total:
                print("\r\x1b[K", end="", file=stream, flush=True)

    return show


command = Ingest()
