"""Reads a judge's reply: a verdict, or the reason why there is none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trilith_evals.judging.rubric import Scale

if TYPE_CHECKING:
    from trilith.client.schema import ChatCompletion


@dataclass(frozen=True, slots=True)
class Reading:
    """What was in a reply."""

    value: float | None
    """Of the scale; None when there is no verdict."""
    problem: str = ""
    """Why there is none; free of the reply's words."""
    reasons: str = ""
    """The judge's."""
    hopeless: bool = False
    """Whether asking again is no use: the judge refused."""


def read(reply: ChatCompletion, scale: Scale) -> Reading:
    """Read a reply. Words around the JSON are no fault; a verdict that is no step of the scale is."""
    if not reply.choices:
        return Reading(None, "the judge's reply was empty")
    choice = reply.choices[0]
    if choice.message.refusal:
        return Reading(None, "the judge refused", choice.message.refusal, hopeless=True)
    if choice.finish_reason == "content_filter":
        return Reading(None, "the judge's reply was filtered", hopeless=True)
    said = choice.message.content or ""
    found = _object(said)
    if found is None:
        cut = choice.finish_reason == "length"
        return Reading(None, _EMPTY if not said.strip() else _CUT if cut else _NO_JSON)
    value = scale.value(found.get("verdict"))
    reasons = found.get("reasons")
    return Reading(value, "" if value is not None else _OFF, reasons if isinstance(reasons, str) else "")


_EMPTY = "the judge's reply was empty"
_CUT = "the judge's reply was cut off"
_NO_JSON = "the judge's reply was not JSON"
_OFF = "the judge's verdict was not on the scale"


def _object(said: str) -> dict[str, Any] | None:
    start, end = said.find("{"), said.rfind("}")
    try:
        found = json.loads(said[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
