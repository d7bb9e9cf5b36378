"""The price book: what providers ask, as pinned data in integer pico-USD.

The file comes with the package and is read only if its SHA-256 is the recorded one. Where it came from
stands in `ATTRIBUTION.md` beside it; `tools/prices.py` makes it anew.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trilith.errors import DataError
from trilith.money import Price
from trilith.prices.pin import SHA256, VERSION

BOOK = Path(__file__).parent / "book.json"

FIELDS = {
    "input": "input_token",
    "output": "output_token",
    "cached": "cached_input_token",
    "write": "cache_write_token",
    "write_1h": "cache_write_1h_token",
    "reasoning": "reasoning_token",
    "audio_in": "audio_input_token",
    "audio_out": "audio_output_token",
    "image_in": "image_input_token",
    "image_out": "image_output_token",
    "search": "search",
    "request": "request",
}
"""The book's names of rates, and those of `Price`."""


@dataclass(frozen=True, slots=True)
class Book:
    """All prices of one edition."""

    version: str
    entries: Mapping[str, Mapping[str, Any]]
    """Model, as `provider/model`, to its rates by the names of `FIELDS`, `tiers`, `steps` and `unknown`."""

    @property
    def edition(self) -> str:
        """How the edition is named in the ledger."""
        return f"book {self.version}"

    def find(self, name: str) -> Price | None:
        """Return a model's price, or None when the book does not have it."""
        entry = self.entries.get(name)
        return None if entry is None else _price(entry, self.edition)

    def price(self, name: str) -> Price:
        """Return a model's price.

        Raises:
            DataError: the book does not have it.
        """
        found = self.find(name)
        if found is None:
            near = difflib.get_close_matches(name, self.entries, n=3, cutoff=0.6)
            hint = f"; near are {', '.join(near)}" if near else ""
            raise DataError(
                f"the price book has no model {name!r}{hint}. `trilith prices list` shows all; "
                "a model that is not there needs prices in the settings"
            )
        return found


@cache
def load(path: Path = BOOK, sha256: str = SHA256, version: str = VERSION) -> Book:
    """Read the book.

    Raises:
        DataError: it is not the file that was recorded.
    """
    raw = path.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise DataError(
            f"the price book {path} has the SHA-256 {found}, and {sha256} is recorded for {version}: "
            "it was changed. Install trilith again, or make the book anew with tools/prices.py"
        )
    return Book(version, json.loads(raw))


def _price(entry: Mapping[str, Any], source: str = "") -> Price:
    rates = {FIELDS[name]: value for name, value in entry.items() if name in FIELDS}
    return Price(
        **rates,
        tiers={name: _price(sheet) for name, sheet in entry.get("tiers", {}).items()},
        steps=tuple((above, _price(sheet)) for above, sheet in entry.get("steps", ())),
        unknown=tuple(entry.get("unknown", ())),
        source=source,
    )
