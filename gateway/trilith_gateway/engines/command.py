"""`trilith engines`: install, list and remove local engines."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from trilith.errors import DataError, EngineError
from trilith_gateway.commands.option import table
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
            print(_removed(arguments.name))
        else:
            print(_listed(_folders()))
        return 0


def _removed(name: str) -> str:
    found = {folder.name: folder for folder in _folders()}
    if name not in found:
        raise DataError(f"{name!r} is not installed; there is: {', '.join(found) or 'nothing'}")
    folder = found[name]
    if users := place.users(folder):
        raise EngineError(
            f"{name} is in use by process {', '.join(map(str, users))}; stop it, then remove again"
        )
    (folder / place.STAMP).unlink(missing_ok=True)  # first: what is half removed must not count as installed
    shutil.rmtree(folder)
    return f"removed {name}"


def _listed(folders: list[Path]) -> str:
    if not folders:
        return f"nothing is installed in {place.data_home()}; install with: trilith engines install vllm"
    rows = [
        (
            folder.name,
            folder.parent.name.removesuffix("s"),
            f"{_size(folder) / 1e9:.1f} GB",
            "installed" if place.installed(folder) else "unfinished",
            str(folder),
        )
        for folder in folders
    ]
    return table(("NAME", "KIND", "SIZE", "STATE", "FOLDER"), rows, right=(2,))


def _folders() -> list[Path]:
    shelves = [
        shelf for shelf in (place.data_home() / "engines", place.data_home() / "models") if shelf.is_dir()
    ]
    folders = (folder for shelf in shelves for folder in sorted(shelf.iterdir()))
    return [folder for folder in folders if folder.is_dir() and not folder.name.startswith(".")]


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


command = EnginesCommand()
