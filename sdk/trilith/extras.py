"""Turns a missing optional dependency into one sentence with its cure."""

from __future__ import annotations

import importlib
from types import ModuleType

from trilith.errors import MissingExtra


def need(module: str, *, extra: str) -> ModuleType:
    """Import `module`, which the optional part `extra` brings.

    Raises:
        MissingExtra: it is not installed; the message holds the install line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name.partition(".")[0]):
            raise
        raise MissingExtra(
            f"{module} is not installed; it comes with: pip install 'trilith[{extra}]'"
        ) from error
