"""Reads the YAML files of evaluation into their models; a wrong one is refused by file, line and key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trilith.settings.document import Document, read_document
from trilith.settings.fault import Fault, Origin, refusal

_Model = TypeVar("_Model", bound=BaseModel)


def read(path: Path, model: type[_Model]) -> tuple[_Model, Document]:
    """Read a file.

    Raises:
        SettingsError: it cannot be read, is no YAML, or not what the model says.
    """
    document = read_document(path, os.environ, extra="evals")
    try:
        made = model.model_validate(plain(document.data))
    except ValidationError as error:
        raise refusal([*document.faults, *faults(error, document, path)]) from None
    if document.faults:
        raise refusal(document.faults)
    return made, document


def faults(error: ValidationError, document: Document, path: Path) -> list[Fault]:
    """Return what pydantic found, each at its line."""
    return [fault(one["loc"], words(one), document, path) for one in error.errors(include_url=False)]


def fault(loc: Sequence[str | int], message: str, document: Document, path: Path) -> Fault:
    """Return what is wrong with one key, at its line."""
    at = tuple(str(step) for step in loc)
    known = next((at[:n] for n in range(len(at), 0, -1) if at[:n] in document.origins), None)
    origin = document.origins[known] if known is not None else Origin(str(path))
    return Fault(origin, ".".join(at), message)


def words(fault: Any) -> str:
    """Say what pydantic found in the form that all of Trilith's errors have."""
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        return "is missing"
    if fault["type"] == "extra_forbidden":
        return "is not a key that may stand here"
    if fault["type"] == "value_error":
        return message
    shown = "a mapping" if isinstance(fault["input"], dict) else repr(fault["input"])
    if fault["type"] in ("model_type", "dict_type"):
        return f"found {shown}, expected a mapping"
    return f"found {shown}, expected {message.removeprefix('Input should be ')}"


def plain(value: Any) -> Any:
    """Turn the file's decimals into floats: nothing here is money."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value
