"""`trilith models`: the releases that the settings declare, of every kind, in one table."""

from __future__ import annotations

import argparse
import json

from trilith.money import format_usd
from trilith.settings.model import ModelSettings, PredictorModel, ServedModel
from trilith.settings.schema import Settings
from trilith_gateway.commands.option import add_settings, read_settings, table
from trilith_gateway.release import declared_digest


class Models:
    """List models and their releases."""

    help = "list the models and the release that answers for each"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("--json", action="store_true", help="print JSON")
        add_settings(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the table."""
        rows = listed(read_settings(arguments))
        if arguments.json:
            print(json.dumps(rows, indent=2))
        else:
            head = ("model", "kind", "release", "answered by", "policy", "price (USD)")
            print(table([name.upper() for name in head], [[row[name] for name in head] for row in rows]))
        return 0


def listed(settings: Settings) -> list[dict[str, str]]:
    """Return one row per model."""
    return [
        {
            "model": name,
            "kind": model.kind.value,
            "release": declared_digest(settings, name),
            "answered by": _place(model),
            "policy": model.policy or "-",
            "price (USD)": _price(model),
        }
        for name, model in settings.models.items()
    ]


def _place(model: ModelSettings) -> str:
    if isinstance(model, ServedModel):
        place = model.upstream
        return next(
            f"{what} {value}"
            for what, value in (
                ("engine", place.engine),
                ("server", place.url),
                ("provider", place.provider),
                ("in process,", place.local),
            )
            if value
        )
    if isinstance(model, PredictorModel):
        if model.upstream is not None:
            return f"server {model.upstream.url}"
        return f"registry {model.registered_model}@{model.alias}"
    return f"index {model.index} + {model.generator}"


def _price(model: ModelSettings) -> str:
    if model.price is None:
        return "unpriced"
    price = model.price
    parts = [
        f"{amount} / {unit}"
        for amount, unit in (
            (price.input_usd_per_mtok, "M input"),
            (price.output_usd_per_mtok, "M output"),
            (price.usd_per_krow, "k rows"),
            (price.usd_per_image, "image"),
            (price.usd_per_audio_s, "second"),
            (price.usd_per_mchar, "M characters"),
        )
        if amount
    ]
    if price.usd_per_request:
        parts.append(f"{format_usd(price.exact().request)} / request")
    return ", ".join(parts) or "0"


command = Models()
