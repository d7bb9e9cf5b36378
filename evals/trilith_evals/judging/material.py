"""What a judge sees of a case, and what people said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trilith.types import Json
from trilith_evals.case import Case, Output
from trilith_evals.judging.rubric import Scale
from trilith_evals.judging.settings import JudgeSettings


def material(case: Case, output: Output, settings: JudgeSettings) -> dict[str, Json]:
    """Return what is judged by name; the answer last, and not at all where it is one of a pair."""
    shown: dict[str, Json] = {"question": case.input}
    if settings.expected and case.golds:
        shown["right answer"] = case.golds[0] if len(case.golds) == 1 else list(case.golds)
    if settings.passages is not None:
        quotes: list[Json] = [citation.quote for citation in output.citations]
        shown["passages"] = case.fields.get(settings.passages) or quotes or None
    for column in settings.columns:
        shown[column] = case.fields.get(column)
    if settings.kind == "answer":
        shown["answer"] = output.text or dict(output.values) or ""
    return shown


def human(fields: Mapping[str, Json], columns: Sequence[str], scale: Scale) -> tuple[float, ...]:
    """Return people's labels of a row, one a person; a column may hold several as a list.

    Raises:
        ValueError: a label is no step of the scale.
    """
    found = []
    for column in columns:
        given = fields.get(column)
        for one in given if isinstance(given, list) else [given]:
            if one is None or one == "":
                continue
            value = step(one, scale)
            if value is None:
                allowed = ", ".join(str(verdict) for verdict in scale.verdicts)
                raise ValueError(f"the label in {column!r} is not on the scale, expected one of {allowed}")
            found.append(value)
    return tuple(found)


def step(given: Json, scale: Scale) -> float | None:
    """Return the number that a label or a verdict stands for; 1, 0, true and false say yes and no."""
    value = scale.value(given)
    if value is not None or "yes" not in scale.verdicts:
        return value
    words = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "1.0": 1.0, "0.0": 0.0}
    return words.get(str(given).strip().lower())
