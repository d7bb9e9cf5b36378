"""Holds a table to its contract: one pandera schema, checked lazily, so that every breach is found at once.

Messages carry columns, counts and row numbers, and never a value: data may be personal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from trilith.errors import ContractViolation
from trilith.extras import need
from trilith_classical.contract import Contract, LogicalType, Property

_SHOWN_ROWS = 5
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_FAMILIES: dict[LogicalType, tuple[type[pl.DataType], ...]] = {
    "boolean": (pl.Boolean,),
    "integer": _INTEGERS,
    "number": (*_INTEGERS, pl.Float32, pl.Float64),
    "string": (pl.Categorical, pl.Enum, pl.String),
    "date": (pl.Date,),
    "timestamp": (pl.Datetime,),
}
"""Which column types a logical type stands for."""

_Expression: TypeAlias = Callable[[str], pl.Expr]


def check(table: pl.DataFrame, contract: Contract, *, data: Path, source: Path) -> None:
    """Check a table.

    Args:
        table: The rows, in the order in which they were read.
        contract: What was promised.
        data: Where the rows are from, for the message.
        source: Where the contract is from, for the message.

    Raises:
        ContractViolation: at least one promise is broken; the message lists all that are.
    """
    pandera: Any = need("pandera.polars", extra="classical")
    columns = {column.name: _column(pandera, column, table) for column in contract.table.properties}
    violations = _row_count(table, contract)
    try:
        pandera.DataFrameSchema(columns).validate(table, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        violations += _described(errors.failure_cases, contract)
    if violations:
        listed = "\n".join(f"  {violation}" for violation in violations)
        raise ContractViolation(
            f"{data} breaks its contract {source} in {len(violations)} "
            f"{'place' if len(violations) == 1 else 'places'} (rows count from 0):\n{listed}\n"
            "Correct the data, or the contract if the promise was wrong; nothing was trained.",
            violations=violations,
        )


def _column(pandera: Any, promised: Property, table: pl.DataFrame) -> Any:
    family = _FAMILIES[promised.logicalType]
    found = table.schema.get(promised.name)
    # pandera compares types exactly; a promise of an integer is kept by every width of integers.
    fits = found is not None and found.base_type() in family
    dtype = found if fits else family[-1]
    checks = [_check(pandera, name, keeps) for name, keeps in _promises(promised)] if fits else []
    return pandera.Column(
        dtype, checks=checks, nullable=not promised.required, unique=promised.unique, name=promised.name
    )


def _check(pandera: Any, name: str, keeps: _Expression) -> Any:
    def run(data: Any) -> pl.LazyFrame:
        # A missing value keeps every promise but `required`, which pandera checks by itself.
        return data.lazyframe.select(keeps(data.key).fill_null(True))  # type: ignore[no-any-return]

    return pandera.Check(run, name=name, error=name)


def _promises(column: Property) -> list[tuple[str, _Expression]]:
    """List what each value must satisfy, by the words that a broken promise is reported in."""
    options = column.logicalTypeOptions
    made: list[tuple[str, _Expression]] = []

    def promise(name: str, bound: object, keeps: _Expression) -> None:
        if bound is not None:
            shown = f"{bound:g}" if isinstance(bound, float) else bound
            made.append((f"{name} {shown}", keeps))

    low, high = options.minimum, options.maximum
    above, below = options.exclusiveMinimum, options.exclusiveMaximum
    promise("minimum", low, lambda name: pl.col(name) >= low)
    promise("maximum", high, lambda name: pl.col(name) <= high)
    promise("exclusiveMinimum", above, lambda name: pl.col(name) > above)
    promise("exclusiveMaximum", below, lambda name: pl.col(name) < below)
    short, long, pattern = options.minLength, options.maxLength, options.pattern
    promise("minLength", short, lambda name: _text(name).str.len_chars() >= short)
    promise("maxLength", long, lambda name: _text(name).str.len_chars() <= long)
    promise("pattern", pattern, lambda name: _text(name).str.contains(f"^(?:{pattern})$"))
    if column.logicalType == "number":
        made.append(("a finite number", lambda name: pl.col(name).is_finite()))
    if (valid := column.valid_values) is not None:
        made.append(("one of the valid values", lambda name: _valid(column, name).is_in(list(valid))))
    for rule in column.customProperties:
        made.append((rule.value, _follows if rule.value == "increasing" else _does_not_fall))
    return made


def _text(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String)


def _valid(column: Property, name: str) -> pl.Expr:
    return _text(name) if column.logicalType == "string" else pl.col(name)


def _follows(name: str) -> pl.Expr:
    return pl.col(name) > pl.col(name).shift(1)


def _does_not_fall(name: str) -> pl.Expr:
    return pl.col(name) >= pl.col(name).shift(1)


def _row_count(table: pl.DataFrame, contract: Contract) -> list[str]:
    violations = []
    for rule in contract.table.quality:
        least, most = rule.bounds()
        if (least is not None and table.height < least) or (most is not None and table.height > most):
            expected = (
                f"{'any number' if least is None else least} to {'any number' if most is None else most}"
            )
            violations.append(f"rowCount: found {table.height} rows, expected {expected}")
    return violations


def _described(failures: pl.DataFrame, contract: Contract) -> list[str]:
    """Say each broken promise in one line, from pandera's table of failures."""
    types = {column.name: column.logicalType for column in contract.table.properties}
    described = []
    for (name, check), cases in failures.group_by(["column", "check"], maintain_order=True):
        if check == "column_in_dataframe":
            described += [f"{missing}: the column is missing" for missing in cases["failure_case"]]
        elif str(check).startswith("dtype("):
            described.append(f"{name}: the column is of another type, expected {types[str(name)]}")
        else:
            promise = {"not_nullable": "required", "field_uniqueness": "unique"}.get(str(check), check)
            described.append(f"{name}: {promise}: broken by {_rows(cases['index'])}")
    return described


def _rows(index: pl.Series) -> str:
    rows = index.sort()
    shown = ", ".join(str(row) for row in rows[:_SHOWN_ROWS])
    if len(rows) == 1:
        return f"row {shown}"
    return f"{len(rows)} rows, {'the first ' if len(rows) > _SHOWN_ROWS else ''}at {shown}"
