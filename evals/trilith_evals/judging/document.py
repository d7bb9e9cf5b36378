"""The file of a judge: what it is made of, what people labelled, and where its certificate goes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trilith.errors import SettingsError
from trilith.settings.document import Document, read_document
from trilith.settings.fault import Fault, Origin, refusal
from trilith_evals.judging.settings import JudgeSettings


class LabelledSettings(BaseModel):
    """The labelled answers."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    file: str
    """JSONL, CSV or Parquet, relative to the judge's file."""
    human: str | tuple[str, ...]
    """Column with people's label, or one column a person; a row without any is judged, and not held against
    people. Of a pair: 1 or 2."""
    id: str | None = None
    """None takes `id` where the data has it, else the row's number."""
    input: str | tuple[str, ...] = "input"
    """What the target was asked."""
    output: str | tuple[str, str] = "output"
    """What it answered; of a pair, the two columns."""
    expected: str | None = None
    """The right answer; None takes `expected` where the data has it."""
    verdict: str | tuple[str, str] | None = None
    """Column with the judge's recorded verdict, of a pair the two columns, answer 1 first and answer 2 first;
    the judge is asked now where it is None."""
    cluster: str | None = None
    """What a row came from; intervals count rows with one cluster as dependent."""
    tags: tuple[str, ...] = ()
    """Figures are given for every value of these columns too."""


class JudgeDocument(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    judge: JudgeSettings
    """What it is made of."""
    data: LabelledSettings | None = None
    """What it is calibrated on."""
    certificate: str | None = Field(None, min_length=1)
    """Where its certificate is, relative to this file; None: beside this file, with another ending."""


@dataclass(frozen=True, slots=True)
class JudgeFile:
    """A judge's file as read."""

    path: Path
    settings: JudgeSettings
    data: LabelledSettings | None
    certificate: Path


def read_judge(path: Path) -> JudgeFile:
    """Read a judge's file.

    Raises:
        SettingsError: the file is wrong; the message names line, key and expectation.
    """
    document = read_document(path, os.environ, extra="evals")
    if document.faults:
        raise refusal(document.faults)
    try:
        found = JudgeDocument.model_validate(_plain(document.data))
    except ValidationError as error:
        raise refusal([_fault(fault, document, path) for fault in error.errors(include_url=False)]) from None
    named = found.certificate or f"{path.stem}.certificate.json"
    return JudgeFile(path, found.judge, found.data, path.parent / named)


def settings_of(params: dict[str, Any]) -> JudgeSettings:
    """Read a judge from a scorer's params.

    Raises:
        SettingsError: they are wrong; the message names key and expectation.
    """
    try:
        return JudgeSettings.model_validate(params)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in ("params", *first["loc"]))
        raise SettingsError(f"{place}: {_words(first)}") from None


def _fault(fault: Any, document: Document, path: Path) -> Fault:
    at = tuple(str(step) for step in fault["loc"])
    known = next((at[:n] for n in range(len(at), 0, -1) if at[:n] in document.origins), None)
    return Fault(document.origins[known] if known else Origin(str(path)), ".".join(at), _words(fault))


def _words(fault: Any) -> str:
    if fault["type"] == "missing":
        return "is missing"
    if fault["type"] == "extra_forbidden":
        return "is not a key that may stand here"
    message = str(fault["msg"])
    if fault["type"] == "value_error":
        return message.removeprefix("Value error, ")
    return f"expected {message.removeprefix('Input should be ')}"


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
