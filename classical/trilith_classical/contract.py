"""Data contracts: reads the subset of the Open Data Contract Standard that is enforced here.

What a contract may say (ODCS 3.x; any other key is refused, so that nothing is promised and not checked):

- `apiVersion: v3.x.y`, `kind: DataContract`, `id`, `version`, `status`, `name`, and `description` with
  `purpose`, `limitations`, `usage`;
- `schema`: exactly one table, with `name`, `physicalName`, `physicalType`, `logicalType: object`,
  `description`, `quality` (`metric: rowCount` with `mustBe`, `mustBeBetween`, `mustBeGreaterThan`,
  `mustBeGreaterOrEqualTo`, `mustBeLessThan`, `mustBeLessOrEqualTo`), and `properties`;
- for each property: `name`, `description`, `logicalType` (boolean, integer, number, string, date,
  timestamp), `required`, `unique`, `logicalTypeOptions` (`minimum`, `maximum`, `exclusiveMinimum`,
  `exclusiveMaximum`, `minLength`, `maxLength`, `pattern`), `quality` (`metric: invalidValues` with
  `arguments: {validValues: [...]}` and `mustBe: 0`), and one extension of ours under `customProperties`:
  `{property: monotone, value: increasing | nondecreasing}` for the order of the rows.

A table may have columns that its contract does not name; they are not checked, and nothing may use them.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trilith.errors import SettingsError
from trilith.settings.document import Document, read_document

LogicalType: TypeAlias = Literal["boolean", "integer", "number", "string", "date", "timestamp"]
Scalar: TypeAlias = bool | int | str | float

_OF_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_OF_TEXTS = ("minLength", "maxLength", "pattern")


class Clause(BaseModel):
    """A part of a contract; refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Description(Clause):
    """What people should know."""

    purpose: str = ""
    limitations: str = ""
    usage: str = ""


class RowCount(Clause):
    """How many rows the table has."""

    metric: Literal["rowCount"]
    type: Literal["library"] = "library"
    description: str = ""
    mustBe: int | None = None
    mustBeBetween: tuple[int, int] | None = None
    mustBeGreaterThan: int | None = None
    mustBeGreaterOrEqualTo: int | None = None
    mustBeLessThan: int | None = None
    mustBeLessOrEqualTo: int | None = None

    @model_validator(mode="after")
    def _says_something(self) -> RowCount:
        if self.bounds() == (None, None):
            raise ValueError("expected at least one operator, such as mustBeBetween: [1, 1000]")
        return self

    def bounds(self) -> tuple[int | None, int | None]:
        """Return the least and the greatest allowed number of rows; None: no such bound."""
        least = [self.mustBe, self.mustBeGreaterOrEqualTo, *(self.mustBeBetween or ())[:1]]
        most = [self.mustBe, self.mustBeLessOrEqualTo, *(self.mustBeBetween or ())[1:]]
        if self.mustBeGreaterThan is not None:
            least.append(self.mustBeGreaterThan + 1)
        if self.mustBeLessThan is not None:
            most.append(self.mustBeLessThan - 1)
        return max((n for n in least if n is not None), default=None), min(
            (n for n in most if n is not None), default=None
        )


class ValidValues(Clause):
    """Which values there are."""

    validValues: Annotated[tuple[Scalar, ...], Field(min_length=1)]


class InvalidValues(Clause):
    """How many values are none of the valid ones: none may be."""

    metric: Literal["invalidValues"]
    type: Literal["library"] = "library"
    description: str = ""
    arguments: ValidValues
    mustBe: Literal[0]


class Options(Clause):
    """Bounds of one column's values."""

    minimum: float | None = None
    maximum: float | None = None
    exclusiveMinimum: float | None = None
    exclusiveMaximum: float | None = None
    minLength: Annotated[int, Field(ge=0)] | None = None
    maxLength: Annotated[int, Field(ge=0)] | None = None
    pattern: str | None = None


class Monotone(Clause):
    """How a column's values follow each other down the table."""

    property: Literal["monotone"]
    value: Literal["increasing", "nondecreasing"]


class Property(Clause):
    """One column."""

    name: str
    logicalType: LogicalType
    description: str = ""
    required: bool = False
    unique: bool = False
    logicalTypeOptions: Options = Options()
    quality: tuple[InvalidValues, ...] = ()
    customProperties: tuple[Monotone, ...] = ()

    @model_validator(mode="after")
    def _options_fit(self) -> Property:
        fitting = {"integer": _OF_NUMBERS, "number": _OF_NUMBERS, "string": _OF_TEXTS}
        allowed = fitting.get(self.logicalType, ())
        for name in self.logicalTypeOptions.model_fields_set - set(allowed):
            raise ValueError(f"{name} does not apply to the logicalType {self.logicalType}")
        for value in self.valid_values or ():
            if type(value) is not {"boolean": bool, "integer": int, "string": str}.get(self.logicalType):
                raise ValueError(f"found the valid value {value!r} in a column of {self.logicalType}s")
        return self

    @property
    def valid_values(self) -> tuple[Scalar, ...] | None:
        """What the column may hold, sorted; None where the contract lists nothing."""
        listed = [set(rule.arguments.validValues) for rule in self.quality]
        return tuple(sorted(set.intersection(*listed), key=str)) if listed else None


class Table(Clause):
    """The table that the contract is about."""

    name: str
    physicalName: str = ""
    physicalType: str = ""
    logicalType: Literal["object"] = "object"
    description: str = ""
    quality: tuple[RowCount, ...] = ()
    properties: Annotated[tuple[Property, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Table:
        names = [column.name for column in self.properties]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the property {name} stands twice; keep one")
        return self


class Contract(Clause):
    """A whole contract, about one table."""

    apiVersion: Annotated[str, Field(pattern=r"^v3\.\d+\.\d+$")]
    kind: Literal["DataContract"]
    id: str
    version: str
    status: str
    name: str = ""
    description: Description = Description()
    tables: Annotated[tuple[Table, ...], Field(min_length=1, max_length=1, alias="schema")]

    @property
    def table(self) -> Table:
        """The one table."""
        return self.tables[0]

    def column(self, name: str) -> Property | None:
        """Return what is promised about a column; None: nothing is."""
        return next((column for column in self.table.properties if column.name == name), None)


def read_contract(path: Path) -> Contract:
    """Read a contract.

    Raises:
        SettingsError: there is no such file, or it says something that is not enforced here; the message
            names every fault with its line.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: there is no such file, expected a data contract in YAML")
    document = read_document(path, {}, extra="classical")
    faults = [str(fault) for fault in document.faults]
    try:
        contract = Contract.model_validate(_plain(document.data))
    except ValidationError as error:
        faults += [_fault(path, document, dict(one)) for one in error.errors(include_url=False)]
    if faults:
        raise SettingsError("the data contract is wrong:\n" + "\n".join(f"  {fault}" for fault in faults))
    return contract


def _plain(value: Any) -> Any:
    """Turn the reader's decimals into floats: numbers are compared with columns of floats here."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _fault(path: Path, document: Document, error: dict[str, Any]) -> str:
    at = tuple(str(part) for part in error["loc"])
    place = next(
        (document.origins[at[:n]].place for n in range(len(at), 0, -1) if at[:n] in document.origins), path
    )
    message = {
        "extra_forbidden": "this key is not among those that are enforced here; take it out",
        "missing": "is missing",
    }.get(error["type"], error["msg"].removeprefix("Value error, "))
    return f"{place}: {'.'.join(at) or 'contract'}: {message}"
