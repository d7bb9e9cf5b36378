"""`trilith settings`: prints what is in force and where it came from, or only checks it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trilith.settings.load import load_settings
from trilith.settings.reference import json_schema
from trilith.settings.report import as_text, as_tree


class SettingsCommand:
    """Prints the settings."""

    help = "print every setting in force, redacted, and where it came from"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""
        parser.add_argument(
            "--settings", type=Path, metavar="PATH", help="settings file (default: ./trilith.yaml)"
        )
        chosen = parser.add_mutually_exclusive_group()
        chosen.add_argument("--json", action="store_true", help="print JSON")
        chosen.add_argument(
            "--check", action="store_true", help="only check; exit code 2 when something is wrong"
        )
        chosen.add_argument(
            "--schema", action="store_true", help="print the JSON schema of a settings file, for editors"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Print what was asked for; a wrong file is refused by exit code 2 and a line for every fault."""
        if arguments.schema:
            print(json_schema(), end="")
            return 0
        loaded = load_settings(arguments.settings)
        if arguments.check:
            given = sum(1 for source in loaded.sources.values() if source != "default")
            where = loaded.path or "no settings file"
            print(f"{where}: ok, {given} of {len(loaded.sources)} settings are not the default")
        elif arguments.json:
            print(json.dumps(as_tree(loaded), indent=2))
        else:
            print(as_text(loaded))
        return 0


command = SettingsCommand()
