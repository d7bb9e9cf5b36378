"""The file of a judge: what it is made of, what people labelled, and where its certificate goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trilith.errors import SettingsError
from trilith_evals.document import read, words
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
    found, _ = read(path, JudgeDocument)
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
        raise SettingsError(f"{place}: {words(first)}") from None
