"""What a dataset promises of its columns, and how rows that break it are refused."""

from __future__ import annotations

import gzip
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdk.client.conftest import serve
from support.scripted_server import Scripted, ScriptedServer

from trilith.errors import DataError, SettingsError
from trilith_evals import table
from trilith_evals.dataset import Columns, from_rows, load, stream
from trilith_evals.schema import ColumnSettings, SchemaSettings, infer

__all__ = ["serve"]


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def promised(**columns: dict[str, Any]) -> SchemaSettings:
    return SchemaSettings.model_validate({"columns": columns})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ({"type": "integer"}, 1.5, r"column 'x': found 1\.5, expected an integer"),
        ({"type": "integer"}, True, "column 'x': found True, expected an integer"),
        ({"type": "number"}, "3", "column 'x': found '3', expected a number"),
        ({"type": "number", "min": 0}, -1, "column 'x': found -1, expected at least 0"),
        ({"type": "number", "max": 23}, 24, "column 'x': found 24, expected at most 23"),
        ({"type": "text"}, None, "column 'x': found null, expected a text"),
        ({"values": ["a", "b"]}, "c", "column 'x': found 'c', expected one of 'a', 'b'"),
        ({"values": [True, False]}, 1, "column 'x': found 1, expected one of True, False"),
        ({"type": "text", "min_length": 2}, "a", "column 'x': found 1 characters, expected at least 2"),
        ({"type": "list", "max_length": 1}, [1, 2], "column 'x': found 2 items, expected at most 1"),
        ({"type": "text", "pattern": "[A-Z]+"}, "ab", r"column 'x': found 'ab', expected what matches"),
    ],
)
def test_a_value_that_breaks_its_columns_promise_is_named_with_its_line(
    tmp_path: Path, column: dict[str, Any], value: object, message: str
) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"input": "q", "x": value})
    with pytest.raises(DataError, match=r"d\.jsonl:1: " + message):
        load(path, schema=promised(x=column))


def test_all_faults_are_told_in_one_go_and_alike_ones_once(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "d.jsonl", {"input": "a", "x": 1}, {"input": "b"}, {"input": "c", "x": "z"}, {"input": "d"}
    )
    with pytest.raises(DataError) as refused:
        load(path, schema=promised(x={"type": "integer"}))
    told = str(refused.value)
    assert "2 things are wrong" in told
    assert "d.jsonl:2: column 'x': found no such column, expected an integer (and in 1 other rows)" in told
    assert "d.jsonl:3: column 'x': found 'z'" in told


def test_a_file_full_of_faults_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "LONGEST_LINE", 10)  # so that its last line would be another fault
    path = tmp_path / "d.jsonl"
    path.write_text("{}\n" * 50 + "x" * 20 + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"d\.jsonl:1: no column 'input'.*and in 19 other rows, or more"):
        load(path)


def test_a_unique_column_names_both_lines(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"input": "a", "x": 1}, {"input": "b", "x": 1})
    with pytest.raises(DataError, match=r"d\.jsonl:2: column 'x': found 1 a second time \(line 1\)"):
        load(path, schema=promised(x={"unique": True}))


def test_a_column_that_nobody_promised_is_refused_where_only_those_may_stand(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"input": "a", "extra": 1})
    with pytest.raises(DataError, match=r"column 'extra': is not promised, expected only input"):
        load(path, schema=SchemaSettings(columns={"input": ColumnSettings()}, only=True))


def test_csv_cells_are_read_as_their_columns_say(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('input,n,ok,tags\nq,3,true,"[1, 2]"\n', encoding="utf-8")
    schema = promised(n={"type": "integer"}, ok={"type": "boolean"}, tags={"type": "list"})
    (case,) = load(tmp_path / "d.csv", schema=schema).cases
    assert dict(case.fields) == {"input": "q", "n": 3, "ok": True, "tags": [1, 2]}


@pytest.mark.parametrize("cell", ["nan", "inf", "three", ""])
def test_a_csv_cell_that_is_no_number_is_refused(tmp_path: Path, cell: str) -> None:
    (tmp_path / "d.csv").write_text(f"input,n\nq,{cell}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"d\.csv:2: column 'n': found .*, expected a number"):
        load(tmp_path / "d.csv", schema=promised(n={"type": "number"}))


def test_a_json_schema_may_say_more(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"input": {"messages": []}})
    wanted = {"properties": {"input": {"properties": {"messages": {"minItems": 1}}}}}
    with pytest.raises(DataError, match=r"d\.jsonl:1: column 'input\.messages': \[\] "):
        load(path, schema=SchemaSettings(json_schema=wanted))
    with pytest.raises(DataError, match="not a JSON Schema"):
        load(path, schema=SchemaSettings(json_schema={"type": "texts"}))


def test_the_schema_beside_a_file_is_kept_to(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"input": 3})
    (tmp_path / "d.schema.yaml").write_text("columns: {input: {type: text}}\n", encoding="utf-8")
    with pytest.raises(DataError, match="column 'input': found 3, expected a text"):
        load(path)


def test_a_wrong_schema_file_is_refused_with_its_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"input": "q"})
    (tmp_path / "d.schema.yaml").write_text("columns:\n  input: {type: string}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"d\.schema\.yaml:2: columns\.input\.type: found 'string'"):
        load(path)


def test_a_schema_is_read_off_a_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"input": "q", "n": 1}, {"input": "r", "n": 1.5, "x": None})
    columns = infer(path).columns
    assert {name: (c.type, c.required) for name, c in columns.items()} == {
        "input": ("text", True),
        "n": ("number", True),
        "x": ("any", False),
    }


def test_one_content_has_one_digest_in_every_order_and_format(tmp_path: Path) -> None:
    pandas = importlib.import_module("pandas")
    rows = [{"id": "a", "input": "q", "n": 1}, {"id": "b", "input": "r", "n": 2}]
    pandas.DataFrame(rows).to_csv(tmp_path / "d.csv", index=False)
    pandas.DataFrame(rows).astype({"n": float}).to_parquet(tmp_path / "d.parquet")
    jsonl(tmp_path / "d.jsonl", *reversed(rows))
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress((tmp_path / "d.jsonl").read_bytes()))
    number = promised(n={"type": "number"})
    found = [load(tmp_path / f"d.{kind}", schema=number) for kind in ("csv", "parquet", "jsonl")]
    found.append(load(tmp_path / "p.jsonl.gz"))
    assert len({data.content_digest for data in found}) == 1
    assert len({data.digest for data in found}) == 4
    changed = jsonl(tmp_path / "d.jsonl", *rows, {"id": "c", "input": "s", "n": 3})
    assert load(changed).content_digest != found[0].content_digest


@pytest.mark.parametrize("limit", [None, 1])
def test_the_content_digest_is_that_of_all_rows_whatever_is_kept(tmp_path: Path, limit: int | None) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"input": "a"}, {"input": "b"})
    assert (
        load(path, limit=limit).content_digest == from_rows([{"input": "b"}, {"input": "a"}]).content_digest
    )


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused_wherever_it_stands(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.jsonl").write_text(f'{{"input": {{"x": [1, {text}]}}}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"d\.jsonl:1: the column 'input' is (nan|inf), expected a finite"):
        load(tmp_path / "d.jsonl")


def test_nan_in_parquet_and_in_memory_is_refused_too(tmp_path: Path) -> None:
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    parquet.write_table(arrow.table({"input": [1.0, float("nan")]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"d\.parquet:2: the column 'input' is nan"):
        load(tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"data:1: the column 'input' is nan"):
        from_rows([{"input": float("nan")}])


def test_nested_parquet_becomes_lists_and_mappings_and_bytes_are_refused(tmp_path: Path) -> None:
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    nested = {
        "input": [[{"role": "user", "content": "hi"}]],
        "when": arrow.array([0], arrow.timestamp("ms")),
        "scores": arrow.array([[("a", 1)]], arrow.map_(arrow.string(), arrow.int64())),
    }
    parquet.write_table(arrow.table(nested), tmp_path / "d.parquet")
    (case,) = load(tmp_path / "d.parquet").cases
    assert case.input == [{"role": "user", "content": "hi"}]
    assert (case.fields["when"], case.fields["scores"]) == ("1970-01-01T00:00:00", {"a": 1})
    parquet.write_table(arrow.table({"input": [b"\x00"]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="the column 'input' holds bytes, expected text"):
        load(tmp_path / "d.parquet")


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("d.jsonl", '{"input": "x"}'.encode("utf-16"), r"d\.jsonl:1: the file is UTF-16, expected UTF-8"),
        ("d.csv", b"input\nx\n\xe9\n", r"d\.csv:3: byte 0xe9 is not UTF-8"),
        ("d.csv", b"id,input,input\n1,a,b\n", r"d\.csv:1: the header names the column 'input' twice"),
        ("d.csv", b"id,input\n1,a,b\n", r"d\.csv:2: expected 2 cells, as the header has, found 3"),
        ("d.csv", b'id,input\n1,"a\n', r"d\.csv:2: not CSV"),
        ("d.jsonl", b'{"input": "x", "input": "y"}\n', r"d\.jsonl:1: the key 'input' stands twice"),
        ("d.jsonl", b'{"input": "\\ud83d"}\n', r"d\.jsonl:1: half of a surrogate pair"),
        ("d.jsonl", b'{"input": ' + b"[" * 5000 + b"\n", r"d\.jsonl:1: not JSON"),
        ("d.jsonl.gz", b"plain", r"d\.jsonl\.gz: not gzip"),
        ("d.jsonl.gz", gzip.compress(b'{"input": "x"}\n')[:-9], r"d\.jsonl\.gz: not gzip, or cut off"),
        ("d.parquet.gz", b"", r"expected a dataset that ends in"),
    ],
)
def test_a_file_in_the_wrong_form_is_refused(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbfinput\nx\n")
    assert load(tmp_path / "d.csv").cases[0].input == "x"


def test_a_line_without_an_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "LONGEST_LINE", 100)
    (tmp_path / "d.jsonl").write_text('{"input": "' + "x" * 500 + '"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"d\.jsonl:1: longer than 100 bytes, expected one row per line"):
        load(tmp_path / "d.jsonl")


def test_a_cell_too_long_for_csv_says_so(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("input\n" + "x" * 200_000 + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"d\.csv:2: not CSV: field larger .* use JSONL"):
        load(tmp_path / "d.csv")


def test_cases_are_streamed_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"input": "x"}\n' * 3 + "{}\n", encoding="utf-8")
    cases = stream(path)
    assert next(cases).input == "x"
    with pytest.raises(DataError, match=r"d\.jsonl:4: no column 'input'"):
        list(cases)


def test_a_limit_holds_only_so_many_cases(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", *({"id": i, "input": i} for i in range(500)))
    all_drawn = load(path, shuffle_seed=4).cases
    assert load(path, limit=20, shuffle_seed=4).cases == all_drawn[:20]


def test_cases_and_plain_rows_do_not_mix() -> None:
    from trilith_evals import Case

    with pytest.raises(DataError, match="1 of 2 rows are cases"):
        from_rows([Case("1", "x"), {"input": "y"}])
    with pytest.raises(DataError, match="data:1: found a str, expected a mapping"):
        from_rows(["x"], Columns())  # type: ignore[list-item]


def test_what_a_json_schema_refers_to_elsewhere_is_never_fetched(
    tmp_path: Path, serve: Callable[..., ScriptedServer]
) -> None:
    server = serve(Scripted(body={"type": "object"}))
    path = jsonl(tmp_path / "cases.jsonl", {"input": "q"})
    with pytest.raises(DataError, match=r"json_schema: .*elsewhere\.json"):
        load(path, schema=SchemaSettings(json_schema={"$ref": f"{server.url}/elsewhere.json"}))
    assert server.received == []
