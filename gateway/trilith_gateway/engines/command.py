"""`trilith engines`: install, list and remove local engines."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from trilith.errors import DataError
from trilith_gateway.engines import place


class EnginesCommand:
    """Manage local engines."""

    help = "install, list and remove local engines (vLLM)"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommands."""
        actions = parser.add_subparsers(dest="action", required=True)
        install = actions.add_parser(
            "install", help="install an engine and the bundled model, unless they are there"
        )
        install.add_argument("engine", choices=("vllm",))
        install.add_argument(
            "--build", choices=("auto", "cpu", "gpu"), default="auto", help="default: by the machine"
        )
        actions.add_parser("list", help="show what is installed")
        remove = actions.add_parser("remove", help="delete an engine or a model")
        remove.add_argument("name", help="as `trilith engines list` shows it")

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked."""
        if arguments.action == "install":
            from trilith_gateway.engines.install import install_model, install_vllm

            build: place.Build = place.fitting_build() if arguments.build == "auto" else arguments.build
            print(f"vLLM {place.VERSION} ({build}): {install_vllm(build)}")
            print(f"model {place.BUNDLED_MODEL}: {install_model(build)}")
        elif arguments.action == "remove":
            found = {folder.name: folder for folder in _folders()}
            if arguments.name not in found:
                raise DataError(
                    f"{arguments.name!r} is not installed; there is: {', '.join(found) or 'nothing'}"
                )
            shutil.rmtree(found[arguments.name])
            print(f"removed {arguments.name}")
        else:
            for folder in _folders():
                state = f"{_size(folder) / 1e9:.1f} GB" if place.installed(folder) else "unfinished"
                print(f"{folder.name:<28} {state:>10}  {folder}")
        return 0


def _folders() -> list[Path]:
    kinds = (place.data_home() / "engines", place.data_home() / "models")
    return sorted(folder for kind in kinds if kind.is_dir() for folder in kind.iterdir() if folder.is_dir())


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


command = EnginesCommand()
