"""Scorers over answers that a program reads: JSON by a schema, and calls of tools."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trilith.types import Json
from trilith_evals.case import Case, Output, ToolCall
from trilith_evals.json_schema import Validator
from trilith_evals.score import Score, scored, unscored
from trilith_evals.scorer import require
from trilith_evals.scorers.text import normalise

_FENCE = re.compile(r"\A\s*```[\w-]*[^\S\n]*\n(.*?)\n?```\s*\Z", re.DOTALL)


def unfenced(text: str) -> str:
    """Return what stands in a Markdown code fence that is the whole text, or the text itself."""
    found = _FENCE.match(text)
    return found[1] if found else text


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """1 when the answer is JSON that the schema accepts; the detail names the fields that it does not."""

    schema: dict[str, Any] | None = None
    """A JSON Schema of any draft, 2020-12 where `$schema` is missing. None: it stands in the case's row."""
    column: str = "schema"
    """Column with the case's own schema, looked at when `schema` is None."""
    fenced: bool = True
    """Accept JSON in a Markdown code fence too."""
    name: ClassVar[str] = "json_schema"

    def __post_init__(self) -> None:
        require("jsonschema")
        if self.schema is not None:
            _validator(self.schema)

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        schema = self.schema if self.schema is not None else case.fields.get(self.column)
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except ValueError:
                schema = None
        if not isinstance(schema, dict):
            return unscored(f"the case has no schema in {self.column!r}")
        try:
            validator = _validator(schema)
        except ValueError as error:
            return unscored("the case's schema is not a JSON Schema", detail=str(error))
        try:
            said = json.loads(unfenced(output.text) if self.fenced else output.text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return scored(0.0, detail=f"not JSON: {error}")
        try:
            faults = sorted(f"{fault.json_path}: {fault.message}" for fault in validator.faults(said))
        except ValueError as error:
            return unscored("the case's schema is not whole", detail=str(error))
        return scored(not faults, detail="; ".join(faults[:10]))


def _validator(schema: Mapping[str, Any]) -> Validator:
    return _checked(json.dumps(schema, default=str))  # its text, as mappings do not hash


@functools.lru_cache(maxsize=256)
def _checked(schema: str) -> Validator:
    """Check a schema once, however many cases have it."""
    return Validator(json.loads(schema))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """How well the calls of tools fit the expected ones, by name and arguments.

    The row lists the expected calls as `{"name": ..., "arguments": {...}}`; an empty list says that no tool
    may be called. An expected argument is a value, or a matcher: `{"$any": [...]}` one of these,
    `{"$match": "pattern"}` text that the whole pattern fits, `{"$near": 3.1, "$within": 0.1}` a number,
    `{"$present": true}` anything. Whole numbers and decimals of one value are equal.
    """

    measure: Literal["accuracy", "precision", "recall", "f1"] = "accuracy"
    """accuracy: 1 when every call fits and none is missing or too many; the others count calls."""
    ordered: bool = False
    """Calls must come in the expected order."""
    arguments: Literal["same", "subset", "ignored"] = "same"
    """subset: further arguments are forgiven; ignored: only names count."""
    text: Literal["exact", "normalised"] = "exact"
    """How text in arguments is compared; normalised forgives case, punctuation, articles and blanks."""
    column: str = "tool_calls"
    """Column with the expected calls; where the row has none, the case's expected answer is read."""

    @property
    def name(self) -> str:
        """The metric's name, such as tool_calls_f1."""
        return "tool_calls" if self.measure == "accuracy" else f"tool_calls_{self.measure}"

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        listed = case.fields.get(self.column, case.expected)
        try:
            wanted = _expected(json.loads(listed) if isinstance(listed, str) else listed)
        except ValueError:
            return unscored(f"the case has no list of expected calls in {self.column!r}")
        made = output.tool_calls
        fits = [[self._fits(call, want) for want in wanted] for call in made]
        right = _aligned(fits) if self.ordered else _paired(fits)
        detail = f"{right} of {len(made)} calls fit, {len(wanted)} expected"
        return scored(self._value(right, len(made), len(wanted)), detail=detail)

    def _value(self, right: int, made: int, wanted: int) -> float:
        if self.measure == "accuracy":
            return float(right == made == wanted)
        if not made and not wanted:
            return 1.0  # rightly kept still
        if self.measure == "precision":
            return right / made if made else 0.0
        if self.measure == "recall":
            return right / wanted if wanted else 0.0
        return 2 * right / (made + wanted)

    def _fits(self, call: ToolCall, wanted: tuple[str, Mapping[str, Json]]) -> bool:
        name, arguments = wanted
        if call.name != name:
            return False
        if self.arguments == "ignored":
            return True
        if not isinstance(call.arguments, Mapping):
            return False  # the model wrote no JSON object
        if self.arguments == "same" and call.arguments.keys() - arguments.keys():
            return False
        return all(
            key in call.arguments and self._equal(call.arguments[key], value)
            for key, value in arguments.items()
        )

    def _equal(self, said: Any, wanted: Any) -> bool:
        if isinstance(wanted, Mapping):
            if any(key.startswith("$") for key in wanted):
                return self._matches(said, wanted)
            return (
                isinstance(said, Mapping)
                and said.keys() == wanted.keys()
                and all(self._equal(said[key], value) for key, value in wanted.items())
            )
        if isinstance(wanted, list):
            return isinstance(said, list) and len(said) == len(wanted) and all(map(self._equal, said, wanted))
        if isinstance(wanted, str) and isinstance(said, str) and self.text == "normalised":
            return normalise(said) == normalise(wanted)
        return isinstance(said, bool) == isinstance(wanted, bool) and bool(said == wanted)

    def _matches(self, said: Any, matcher: Mapping[str, Any]) -> bool:
        if "$any" in matcher:
            return any(self._equal(said, value) for value in matcher["$any"])
        if "$match" in matcher:
            return isinstance(said, str) and re.fullmatch(matcher["$match"], said) is not None
        if "$near" in matcher:
            number = isinstance(said, int | float) and not isinstance(said, bool)
            return number and abs(said - matcher["$near"]) <= matcher.get("$within", 1e-6)
        if "$present" in matcher:
            return True
        raise ValueError(f"{next(iter(matcher))!r} is no matcher, expected $any, $match, $near or $present")


def _expected(listed: Any) -> list[tuple[str, Mapping[str, Json]]]:
    """Read the expected calls.

    Raises:
        ValueError: it is no list of calls.
    """
    if not isinstance(listed, list):
        raise ValueError("no list")
    calls = []
    for call in listed:
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise ValueError("no name")
        arguments = call.get("arguments") or {}
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(arguments, Mapping):
            raise ValueError("no arguments")
        calls.append((call["name"], arguments))
    return calls


def _aligned(fits: Sequence[Sequence[bool]]) -> int:
    """Return how many calls fit in order: a longest common subsequence."""
    row = [0] * (len(fits[0]) + 1 if fits else 1)
    for line in fits:
        above = row
        row = [0]
        for at, fit in enumerate(line):
            row.append(above[at] + 1 if fit else max(above[at + 1], row[at]))
    return row[-1]


def _paired(fits: Sequence[Sequence[bool]]) -> int:
    """Return how many calls can be paired with an expected one each, at most (augmenting paths)."""
    taken: dict[int, int] = {}

    def placed(call: int, tried: set[int]) -> bool:
        for want, fit in enumerate(fits[call]):
            if fit and want not in tried:
                tried.add(want)
                if want not in taken or placed(taken[want], tried):
                    taken[want] = call
                    return True
        return False

    return sum(placed(call, set()) for call in range(len(fits)))
