"""Writes the generated pages under docs/reference; a test holds them current."""

from __future__ import annotations

from pathlib import Path

from trilith.settings.reference import json_schema, reference_page
from trilith_evals import catalogue

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"


def pages() -> dict[str, str]:
    """Return file name to content for every generated page."""
    return {
        "settings.md": reference_page(),
        "settings.schema.json": json_schema(),
        "scorers.md": catalogue.reference_page(),
    }


def main() -> None:
    """Write the pages that differ."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, content in pages().items():
        file = REFERENCE / name
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            file.write_text(content, encoding="utf-8")
            print(f"docs: wrote {file.relative_to(REFERENCE.parent.parent)}")


if __name__ == "__main__":
    main()
