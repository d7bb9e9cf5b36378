"""Reads a table, decides what its columns mean to a model, and splits it in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl
from polars import selectors

from trilith.errors import DataError
from trilith_classical.contract import Contract
from trilith_classical.manifest import Datatype, InputColumn, Split, Task

if TYPE_CHECKING:
    from trilith.settings.schema import TrainingSettings

MOST_CLASSES = 10
"""A target of whole numbers with at most so many different values is a class, with more it is an amount."""


def read_table(path: Path) -> pl.DataFrame:
    """Read a Parquet or CSV file. NaN is read as missing: it is how pandas writes a missing number.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
        elif path.suffix == ".csv":
            table = pl.read_csv(path, try_parse_dates=True, infer_schema_length=None)
        else:
            raise DataError(f"{path}: found the ending {path.suffix!r}, expected .parquet or .csv")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    return table.with_columns(selectors.float().fill_nan(None))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A table that kept its contract, in order of time, with what training needs to know about it."""

    task: Task
    target: str
    time_column: str | None
    columns: tuple[InputColumn, ...]
    train: pl.DataFrame
    test: pl.DataFrame
    train_order: pl.Series
    """Microseconds since 1970 or row numbers, ascending."""
    test_order: pl.Series

    @property
    def split(self) -> Split:
        """Where the split lies, for the manifest."""
        first = self.test[self.time_column][0] if self.time_column else f"row {self.test_order[0]}"
        return Split(
            train_rows=self.train.height,
            test_rows=self.test.height,
            trained_until=self.train_order[-1],
            test_from=str(first),
        )


def prepare(table: pl.DataFrame, contract: Contract, settings: TrainingSettings, *, name: str) -> Dataset:
    """Split a table that keeps its contract: the last `test_share` of the rows in time are held out.

    Rows with the same time stay on one side. Nothing is shuffled: a row that was trained on is never later
    than one that is held out.

    Raises:
        DataError: the settings name a column that cannot be used so.
    """
    used = [*settings.numeric, *settings.categorical, settings.target]
    _check_roles(settings, name)
    for column in [*used, *([settings.time_column] if settings.time_column else [])]:
        if contract.column(column) is None or column not in table.columns:
            raise DataError(
                f"training.{name} uses the column {column!r}, which its contract does not name; add it, "
                f"or choose among: {', '.join(promised.name for promised in contract.table.properties)}"
            )
    if missing := table[settings.target].null_count():
        raise DataError(f"training.{name}: the target {settings.target!r} is missing in {missing} rows")
    order = _order(table, settings.time_column, name)
    rows = order.arg_sort()
    table, order = table[rows], order[rows]
    held_out = int(len(order) * settings.test_share)
    first = order[-held_out] if held_out else None
    train = order < first if first is not None else pl.Series([False] * len(order))
    if not held_out or not train.any():
        raise DataError(
            f"training.{name}: {len(order)} rows do not split into two parts at test_share "
            f"{settings.test_share}; expected more rows, or times that differ"
        )
    columns = tuple(
        _input(column, table.filter(train), contract, column in settings.categorical, name)
        for column in (*settings.numeric, *settings.categorical)
    )
    return Dataset(
        task=_task(table[settings.target], settings.target, name),
        target=settings.target,
        time_column=settings.time_column,
        columns=columns,
        train=table.filter(train),
        test=table.filter(~train),
        train_order=order.filter(train),
        test_order=order.filter(~train),
    )


def features(frame: pl.DataFrame, columns: Sequence[InputColumn]) -> pl.DataFrame:
    """Return what scikit-learn reads: one column each, a missing number as NaN."""
    types = {"BOOL": pl.Int64, "INT64": pl.Int64, "FP32": pl.Float64, "BYTES": pl.String}
    chosen = [pl.col(column.name).cast(types[column.datatype]) for column in columns]
    return frame.select(chosen).with_columns(selectors.float().fill_null(float("nan")))


def feeds(frame: pl.DataFrame, columns: Sequence[InputColumn]) -> dict[str, np.ndarray[Any, Any]]:
    """Return what ONNX reads: one `(rows, 1)` tensor for each column, by name."""
    types = {"BOOL": np.int64, "INT64": np.int64, "FP32": np.float32, "BYTES": np.object_}
    table = features(frame, columns)
    return {
        column.name: table[column.name].to_numpy().astype(types[column.datatype]).reshape(-1, 1)
        for column in columns
    }


def target_values(frame: pl.DataFrame, target: str, task: Task) -> np.ndarray[Any, Any]:
    """Return the target as `(rows,)` floats, or as labels for a classification."""
    column = frame[target]
    if task == "regression":
        return column.cast(pl.Float64).to_numpy()
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    return column.to_numpy().astype(str) if column.dtype == pl.String else column.to_numpy()


def _check_roles(settings: TrainingSettings, name: str) -> None:
    names = [*settings.numeric, *settings.categorical]
    if not names:
        raise DataError(f"training.{name} names no columns; list some under numeric or categorical")
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise DataError(f"training.{name} lists {', '.join(twice)} more than once; keep one")
    if settings.target in names:
        raise DataError(f"training.{name}: the target {settings.target!r} is among its own features")


def _order(table: pl.DataFrame, time_column: str | None, name: str) -> pl.Series:
    if time_column is None:
        return pl.Series(range(table.height), dtype=pl.Int64)
    times = table[time_column]
    if times.null_count():
        raise DataError(f"training.{name}: the time column {time_column!r} has missing values")
    if times.dtype == pl.Date or times.dtype == pl.Datetime:
        # A time that was written by one tool in milliseconds and by another in nanoseconds stays the same.
        return times.cast(pl.Datetime("us")).to_physical()
    if times.dtype.is_integer():
        return times.cast(pl.Int64)
    raise DataError(
        f"training.{name}: the time column {time_column!r} is of the type {times.dtype}, "
        "expected dates, timestamps or whole numbers"
    )


def _task(target: pl.Series, column: str, name: str) -> Task:
    dtype = target.dtype
    if dtype == pl.Boolean or dtype in (pl.String, pl.Categorical, pl.Enum):
        return "classification"
    if dtype.is_float() or dtype.is_decimal():
        return "regression"
    if dtype.is_integer():
        return "regression" if target.n_unique() > MOST_CLASSES else "classification"
    raise DataError(f"training.{name}: the target {column!r} is of the type {dtype}, which nothing predicts")


def _input(column: str, train: pl.DataFrame, contract: Contract, categorical: bool, name: str) -> InputColumn:
    promised = contract.column(column)
    assert promised is not None  # `prepare` has looked
    nullable = not promised.required
    values = train[column]
    if categorical:
        if nullable:
            raise DataError(
                f"training.{name}: the categorical column {column!r} may be missing by its contract; "
                "fill it in and make it `required: true`"
            )
        datatypes: dict[str, Datatype] = {"integer": "INT64", "boolean": "BOOL", "string": "BYTES"}
        if promised.logicalType not in datatypes:
            raise DataError(
                f"training.{name}: the categorical column {column!r} holds {promised.logicalType}s, "
                "expected integers, booleans or strings"
            )
        listed = promised.valid_values if promised.logicalType != "boolean" else None
        seen = values.cast(pl.String) if promised.logicalType == "string" else values.cast(pl.Int64)
        return InputColumn(
            name=column,
            datatype=datatypes[promised.logicalType],
            categorical=True,
            categories=cast("tuple[int | str, ...]", listed or tuple(seen.unique().sort())),
            closed=listed is not None,
        )
    if promised.logicalType not in ("integer", "number", "boolean"):
        raise DataError(
            f"training.{name}: the numeric column {column!r} holds {promised.logicalType}s, expected "
            "numbers; derive a number from it, or list it under categorical"
        )
    datatype: Datatype = "FP32" if nullable or promised.logicalType == "number" else "INT64"
    if promised.logicalType == "boolean" and not nullable:
        datatype = "BOOL"
    return InputColumn(name=column, datatype=datatype, nullable=nullable)
