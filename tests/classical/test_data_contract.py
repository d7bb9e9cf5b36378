"""Contracts: what may be promised, and what is said when data breaks a promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from classical.conftest import DEMO, contract_of

from trilith.errors import ContractViolation, SettingsError
from trilith_classical.conformance import check
from trilith_classical.contract import read_contract
from trilith_classical.dataset import read_table


def violations(tmp_path: Path, table: pl.DataFrame, *properties: dict[str, Any], **rules: Any) -> list[str]:
    path, data = tmp_path / "contract.yaml", tmp_path / "table.parquet"
    path.write_text(yaml.safe_dump(contract_of(*properties, **rules)), "utf-8")
    table.write_parquet(data)
    try:
        check(read_table(data), read_contract(path), data=data, source=path)
    except ContractViolation as broken:
        caught = broken
    else:
        return []
    assert str(path) in str(caught)
    assert str(data) in str(caught)
    return caught.violations


def test_the_demo_data_keeps_its_contract() -> None:
    data, contract = DEMO / "data/bike_sharing_hour.parquet", DEMO / "data/bike_sharing.contract.yaml"
    check(read_table(data), read_contract(contract), data=data, source=contract)


NUMBERS = pl.DataFrame({"a": [1, 2, 3, 4]})
REQUIRED = {"name": "a", "logicalType": "integer", "required": True}


@pytest.mark.parametrize(
    ("table", "rule", "said"),
    [
        (NUMBERS.rename({"a": "b"}), {}, "a: the column is missing"),
        (pl.DataFrame({"a": ["1"]}), {}, "a: the column is of another type, expected integer"),
        (pl.DataFrame({"a": [1, None, 3]}), {}, "a: required: broken by row 1"),
        (NUMBERS, {"logicalTypeOptions": {"minimum": 3}}, "a: minimum 3: broken by 2 rows, at 0, 1"),
        (NUMBERS, {"logicalTypeOptions": {"maximum": 3.5}}, "a: maximum 3.5: broken by row 3"),
        (NUMBERS, {"logicalTypeOptions": {"exclusiveMinimum": 1}}, "a: exclusiveMinimum 1: broken by row 0"),
        (NUMBERS, {"logicalTypeOptions": {"exclusiveMaximum": 4}}, "a: exclusiveMaximum 4: broken by row 3"),
        (
            NUMBERS,
            {"quality": [{"metric": "invalidValues", "arguments": {"validValues": [1, 2, 4]}, "mustBe": 0}]},
            "a: one of the valid values: broken by row 2",
        ),
        (pl.DataFrame({"a": [5, 6, 5]}), {"unique": True}, "a: unique: broken by 2 rows, at 0, 2"),
        (
            pl.DataFrame({"a": [1, 2, 2]}),
            {"customProperties": [{"property": "monotone", "value": "increasing"}]},
            "a: increasing: broken by row 2",
        ),
        (
            pl.DataFrame({"a": [1, 2, 1]}),
            {"customProperties": [{"property": "monotone", "value": "nondecreasing"}]},
            "a: nondecreasing: broken by row 2",
        ),
    ],
)
def test_a_broken_promise_names_column_promise_count_and_rows(
    tmp_path: Path, table: pl.DataFrame, rule: dict[str, Any], said: str
) -> None:
    assert violations(tmp_path, table, {**REQUIRED, **rule}) == [said]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"minLength": 2}, "s: minLength 2: broken by row 1"),
        ({"maxLength": 2}, "s: maxLength 2: broken by row 2"),
        ({"pattern": "[a-c]+"}, "s: pattern [a-c]+: broken by row 2"),
    ],
)
def test_texts_are_held_to_length_and_pattern(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    table = pl.DataFrame({"s": ["ab", "c", "abcd"]})
    column = {"name": "s", "logicalType": "string", "logicalTypeOptions": options}
    assert violations(tmp_path, table, column) == [said]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"mustBe": 4}, True),
        ({"mustBeBetween": [5, 9]}, False),
        ({"mustBeGreaterThan": 4}, False),
        ({"mustBeGreaterOrEqualTo": 4}, True),
        ({"mustBeLessThan": 4}, False),
        ({"mustBeLessOrEqualTo": 4}, True),
    ],
)
def test_the_number_of_rows_is_held_to_its_bounds(tmp_path: Path, rule: dict[str, Any], kept: bool) -> None:
    found = violations(tmp_path, NUMBERS, REQUIRED, quality=[{"metric": "rowCount", **rule}])
    assert found == [] if kept else found[0].startswith("rowCount: found 4 rows, expected")


def test_every_breach_is_found_at_once_and_no_value_is_repeated(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": [31337, 31337], "s": ["secret", None]})
    found = violations(
        tmp_path,
        table,
        {**REQUIRED, "unique": True, "logicalTypeOptions": {"maximum": 5}},
        {"name": "s", "logicalType": "string", "required": True, "logicalTypeOptions": {"maxLength": 2}},
        {"name": "gone", "logicalType": "date"},
    )
    assert len(found) == 5
    assert not any(value in line for line in found for value in ("31337", "secret"))


def test_only_the_first_five_rows_of_a_breach_are_listed(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": list(range(100))})
    found = violations(tmp_path, table, {**REQUIRED, "logicalTypeOptions": {"maximum": 9}})
    assert found == ["a: maximum 9: broken by 90 rows, the first at 10, 11, 12, 13, 14"]


def test_nan_counts_as_missing_and_infinity_as_no_number(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": [1.0, float("nan"), float("inf")]})
    optional = {"name": "a", "logicalType": "number"}
    assert violations(tmp_path, table, {**optional, "required": True})[0] == "a: required: broken by row 1"
    assert violations(tmp_path, table, optional) == ["a: a finite number: broken by row 2"]


def test_every_width_of_integer_is_an_integer(tmp_path: Path) -> None:
    assert violations(tmp_path, pl.DataFrame({"a": [1]}, schema={"a": pl.UInt8}), REQUIRED) == []


def test_columns_that_the_contract_does_not_name_are_allowed(tmp_path: Path) -> None:
    assert violations(tmp_path, NUMBERS.with_columns(b=pl.lit("x")), REQUIRED) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"requird": True}, "requird: this key is not among those that are enforced here"),
        ({"logicalType": "money"}, "logicalType"),
        ({"logicalTypeOptions": {"pattern": "x"}}, "pattern does not apply to the logicalType integer"),
        ({"quality": [{"metric": "nullValues", "mustBe": 0}]}, "metric"),
        (
            {"quality": [{"metric": "invalidValues", "arguments": {"validValues": ["x"]}, "mustBe": 0}]},
            "found the valid value 'x' in a column of integers",
        ),
    ],
)
def test_a_contract_that_says_what_is_not_enforced_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text(yaml.safe_dump(contract_of({**REQUIRED, **change})), "utf-8")
    with pytest.raises(SettingsError, match=r"contract\.yaml:\d+: ") as refused:
        read_contract(path)
    assert said in str(refused.value)


def test_a_contract_about_two_tables_or_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    for broken in (contract_of(REQUIRED, REQUIRED), {**contract_of(REQUIRED), "schema": []}):
        path.write_text(yaml.safe_dump(broken), "utf-8")
        with pytest.raises(SettingsError):
            read_contract(path)


def test_a_missing_contract_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: there is no such file"):
        read_contract(tmp_path / "none.yaml")
