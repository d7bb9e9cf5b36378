"""`trilith train`: trains the models that the settings declare and says what became of each."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trilith.errors import ContractViolation, SettingsError
from trilith.extras import need
from trilith.settings import load_settings

if TYPE_CHECKING:
    from trilith.settings import Settings
    from trilith_classical.training import TrainingReport


class Train:
    """Train models, register them, and move the alias to those that are no worse."""

    help = "train classical models: contract, scikit-learn, MLflow, ONNX"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("names", nargs="*", metavar="NAME", help="under `training` (default: all)")
        parser.add_argument(
            "--settings",
            type=Path,
            metavar="PATH",
            help="settings file (default: $TRILITH_SETTINGS or ./trilith.yaml)",
        )
        parser.add_argument(
            "--alias", default="champion", help="what the winner is called (default: %(default)s)"
        )
        parser.add_argument(
            "--accept-worse",
            action="store_true",
            help="move the alias also to a model that is worse than the present one or cannot be compared",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Train; 1 when data broke its contract or an alias was not moved."""
        settings = load_settings(arguments.settings).settings
        declared = ", ".join(sorted(settings.training)) or "none is declared"
        for name in arguments.names:
            if name not in settings.training:
                raise SettingsError(f"{name!r} is not under `training`; expected one of: {declared}")
        if not settings.training:
            raise SettingsError("there is nothing under `training`; declare a model there first")
        code = 0
        for name in arguments.names or settings.training:
            code = max(code, self._train(name, settings, arguments))
        return code

    def _train(self, name: str, settings: Settings, arguments: argparse.Namespace) -> int:
        # Looked for and not imported: a run that changes nothing needs none of the heavy ones.
        for module in ("sklearn", "skl2onnx", "onnxruntime", "skops", "mlflow", "polars", "pandera"):
            if importlib.util.find_spec(module) is None:
                need(module, extra="classical")
        from trilith_classical.training import Outcome, train

        try:
            report = train(
                name,
                settings.training[name],
                home=settings.home,
                alias=arguments.alias,
                accept_worse=arguments.accept_worse,
            )
        except ContractViolation as error:
            print(f"trilith train: {error}", file=sys.stderr)
            return 1
        print(described(report))
        return 1 if report.outcome is Outcome.REFUSED else 0


def described(report: TrainingReport) -> str:
    """Lay a report out for a terminal."""
    manifest, split, parity = report.manifest, report.manifest.split, report.manifest.parity
    version = f"version {report.version}" if report.version else "not registered"
    rows = [
        ("rows", f"{split.train_rows:,} trained, {split.test_rows:,} held out from {split.test_from}"),
        *(
            (name, f"{value:.4g}   ({manifest.baseline_name}: {manifest.baseline[name]:.4g})")
            for name, value in manifest.metrics.items()
        ),
        (
            "parity",
            f"{'passed' if parity.passed else 'failed'}: ONNX and scikit-learn differ by at most "
            f"{parity.max_difference:.2g} of {_SCALE[manifest.task]}; "
            f"{parity.share_over:.2%} of the rows by more than {parity.limit:g}",
        ),
        ("version", f"{version}, sha256:{report.digest[:16]}"),
        ("alias", f"{report.alias}: {report.outcome}: {report.reason}"),
        ("seconds", f"{report.seconds:.1f}"),
    ]
    return "\n".join([report.name, *(f"  {name:<9} {value}" for name, value in rows)])


_SCALE = {"regression": "the target's standard deviation", "classification": "a probability"}

command = Train()
