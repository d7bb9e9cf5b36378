"""Makes the price book from the litellm that is installed: `python tools/prices.py`.

litellm's price map is taken as data, at the version in the lock; nothing of litellm is run. Of its 250 fields
those about tokens, searches and requests are read, with their service tiers and size thresholds. A cost
that we do not read makes the parts of a usage to which it would apply unknown; they are never priced at 0.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trilith.prices import BOOK

_MAP = "model_prices_and_context_window_backup.json"
_STEMS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached",
    "cache_creation_input_token_cost": "write",
    "cache_creation_input_token_cost_above_1hr": "write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_in",
    "output_cost_per_audio_token": "audio_out",
    "input_cost_per_image_token": "image_in",
    "output_cost_per_image_token": "image_out",
    "input_cost_per_query": "request",
    "input_cost_per_request": "request",
}
_NAME = re.compile(r"(?P<stem>.+?)(?:_above_(?P<above>\d+)k_tokens)?(?:_(?P<tier>batches|flex|priority))?")
_TIERS = {"batches": "batch", "flex": "flex", "priority": "priority"}
_USAGE = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached": "cached_input_tokens",
    "write": "cache_write_tokens",
    "write_1h": "cache_write_1h_tokens",
    "reasoning": "reasoning_tokens",
    "audio_in": "audio_input_tokens",
    "audio_out": "audio_output_tokens",
    "image_in": "image_input_tokens",
    "image_out": "image_output_tokens",
    "request": "requests",
    "search": "searches",
}
"""The part of a usage that each rate prices."""
_ALIKE = ("_dbu_", "_cache_hit", "_balanced", "_ultrafast", "_decisions")
"""The same prices in another currency or under another name, and tiers that we do not know: their calls are
unpriced because they are not in the book."""
_MEANT = (
    ("cache_read_input_audio", "cached_audio_tokens"),
    ("cache_creation_input_audio", "cached_audio_tokens"),
    ("cache_read_input_image", "cached_image_tokens"),
    ("output_cost_per_image", "image_output_tokens"),
    ("input_cost_per_image", "image_input_tokens"),
    ("pixel", "image_input_tokens"),
    ("audio", "audio_input_tokens"),
    ("per_second", "audio_input_tokens"),
    ("video", "image_input_tokens"),
    ("query", "searches"),
    ("session", "searches"),
    ("grounding", "searches"),
)
"""What a cost that we do not read would apply to, by its name; anything else applies to every call."""


def convert(models: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the book's entries for a price map; models without a price per token or request are left out."""
    entries: dict[str, dict[str, Any]] = {}
    for name, fields in models.items():
        provider = fields.get("litellm_provider")
        if not provider or name == "sample_spec":
            continue
        entry = _entry(fields)
        if any(value for key, value in entry.items() if key in ("input", "output", "request")):
            # What costs nothing at all is as often unknown as free; such models need a price in the settings.
            entries[name if name.startswith(f"{provider}/") else f"{provider}/{name}"] = entry
    return dict(sorted(entries.items()))


def _entry(fields: Mapping[str, Any]) -> dict[str, Any]:
    unknown: set[str] = set()
    sheets: dict[tuple[str, int], dict[str, int]] = {("", 0): {}}
    for name, value in fields.items():
        if name == "tiered_pricing":
            for part in value:
                if "range" not in part:
                    unknown.add("input_tokens")
                    continue
                place = sheets.setdefault(("", int(part["range"][0])), {})
                for inner, rate in part.items():
                    if inner in _STEMS:
                        _put(place, _STEMS[inner], rate, unknown)
        elif name == "search_context_cost_per_query":
            rates = {str(rate) for rate in value.values()} if isinstance(value, dict) else {str(value)}
            if len(rates) == 1:
                _put(sheets["", 0], "search", Decimal(rates.pop()), unknown)
            else:
                unknown.add("searches")
        elif "cost" in name:
            _read(name, value, sheets, unknown)
    if "cached" not in sheets["", 0] and (hit := fields.get("input_cost_per_token_cache_hit")):
        _put(sheets["", 0], "cached", hit, unknown)
    return _assemble(sheets, unknown)


def _read(name: str, value: Any, sheets: dict[tuple[str, int], dict[str, int]], unknown: set[str]) -> None:
    if not value or any(part in name for part in _ALIKE):
        if value == 0 and name in _STEMS:
            sheets["", 0][_STEMS[name]] = 0
        return
    match = _NAME.fullmatch(name)
    rate = _STEMS.get(match["stem"]) if match else None
    if match is None or rate is None or not isinstance(value, int | float):
        unknown.add(next((kind for word, kind in _MEANT if word in name), "input_tokens"))
        return
    key = (_TIERS.get(match["tier"] or "", ""), int(match["above"] or 0) * 1000)
    _put(sheets.setdefault(key, {}), rate, value, unknown)


def _put(sheet: dict[str, int], rate: str, value: Any, unknown: set[str]) -> None:
    pico = Decimal(str(value)) * 10**12
    if pico < 0 or pico != pico.to_integral_value():  # not a price that can be charged exactly
        unknown.add(_USAGE[rate])
    else:
        sheet[rate] = int(pico)


def _assemble(sheets: Mapping[tuple[str, int], dict[str, int]], unknown: set[str]) -> dict[str, Any]:
    """Lay the sheets over each other: a tier's over the standard one, a threshold's over that of its tier."""
    entry: dict[str, Any] = {}
    for tier in sorted({tier for tier, _ in sheets}):
        base = {**sheets["", 0], **sheets.get((tier, 0), {})}
        above = sorted({size for name, size in sheets if size and name in ("", tier)})
        steps = []
        for size in above:
            base_step = sheets.get(("", size), {})
            steps.append([size, {**base, **base_step, **sheets.get((tier, size), {})}])
        whole = {**base, **({"steps": steps} if steps else {})}
        if tier:
            # A tier with a threshold of the standard price only would be charged that one's rates: unknown.
            missing = [size for size in above if ("", size) in sheets and (tier, size) not in sheets]
            if missing:
                whole["unknown_above"] = missing[0]
            own = sheets.get((tier, 0), {})
            lacking = {_USAGE[rate] for rate in sheets["", 0] if rate not in own} - {"searches", "requests"}
            entry.setdefault("tiers", {})[tier] = _marked(whole, sorted(lacking))
        else:
            entry |= whole
    return _marked(entry, sorted(unknown))


def _marked(sheet: dict[str, Any], unknown: list[str]) -> dict[str, Any]:
    """Write what is unknown on a sheet and on those within it, since each is read alone."""
    cut = sheet.pop("unknown_above", None)
    for other in sheet.get("tiers", {}).values():
        _marked(other, unknown)
    for size, step in sheet.get("steps", ()):
        _marked(step, [*unknown, *(["input_tokens"] if cut is not None and size >= cut else [])])
    if kinds := sorted({*unknown, *sheet.get("unknown", ())}):
        sheet["unknown"] = kinds
    return sheet


def text(entries: Mapping[str, Any]) -> str:
    """Return the book's file: one model a line, so that a new edition shows what changed."""
    lines = [
        f"{json.dumps(name)}:{json.dumps(entry, separators=(',', ':'))}" for name, entry in entries.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Write the book and its pin."""
    found = importlib.util.find_spec("litellm")
    if found is None or found.origin is None:
        raise SystemExit("litellm is not installed; it comes with: pip install 'trilith[providers]'")
    raw = (Path(found.origin).parent / _MAP).read_text(encoding="utf-8")
    content = text(convert(json.loads(raw)))
    edition = f"litellm-{version('litellm')}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    BOOK.write_text(content, encoding="utf-8")
    (BOOK.parent / "pin.py").write_text(
        f'"""Which edition of the price book belongs to this release; written by `tools/prices.py`."""\n\n'
        f'VERSION = "{edition}"\nSHA256 = "{digest}"\n',
        encoding="utf-8",
    )
    print(f"{BOOK}: {content.count(chr(10)) - 2:,} models of {edition}, sha256 {digest}")


if __name__ == "__main__":
    main()
