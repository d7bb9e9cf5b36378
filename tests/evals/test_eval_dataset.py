"""Datasets: what is read, and how a bad one is refused."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

import pytest

from trilith.errors import DataError
from trilith_evals.case import Case
from trilith_evals.dataset import Columns, from_rows, load

QUESTIONS = Columns(input="question", expected="answers", cluster="page")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_jsonl_row_becomes_a_case_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '\n{"id": 7, "question": "Q?", "answers": ["A", "B"], "page": "p"}\n')
    (case,) = load(path, QUESTIONS).cases
    assert (case.id, case.input, case.golds, case.cluster, case.line) == ("7", "Q?", ["A", "B"], "p", 2)


def test_a_line_separator_inside_a_text_does_not_shift_the_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"input": "one\u2028line"}\n{"input": "two"}\n')
    assert [case.line for case in load(path).cases] == [1, 2]


def test_csv_and_parquet_give_the_same_cases(tmp_path: Path) -> None:
    pandas = importlib.import_module("pandas")
    frame = pandas.DataFrame({"id": ["a", "b"], "input": ["x, y", "z"], "expected": ["1", "2"]})
    frame.to_csv(tmp_path / "d.csv", index=False)
    frame.to_parquet(tmp_path / "d.parquet")
    assert [(c.id, c.input, c.expected) for c in load(tmp_path / "d.csv").cases] == [
        (c.id, c.input, c.expected) for c in load(tmp_path / "d.parquet").cases
    ]


def test_several_input_columns_become_features_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"hr": 3, "temp": 0.5, "cnt": 9}\n')
    (case,) = load(path, Columns(("hr", "temp"), "cnt")).cases
    assert (case.input, case.expected) == ({"hr": 3, "temp": 0.5}, 9)


def test_the_digest_is_that_of_the_files_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"input": "x"}\n')
    assert load(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_changed_row_changes_the_digest_of_rows_in_memory() -> None:
    assert from_rows([{"input": "x"}]).digest != from_rows([{"input": "y"}]).digest


def test_a_limit_keeps_the_first_cases_and_still_checks_all(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"input": "x"}\n{"input": "y"}\n')
    assert len(load(path, limit=1).cases) == 1
    with pytest.raises(DataError, match=r"d\.jsonl:3"):
        load(write(tmp_path, "d.jsonl", '{"input": "x"}\n{"input": "y"}\n{}\n'), limit=1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.jsonl", '{"input": "x"}\n{"inp": "x"}\n', r"d\.jsonl:2: no column 'input', .* columns inp"),
        ("d.jsonl", '{"input": "x"}\n{"input": \n', r"d\.jsonl:2: not JSON"),
        ("d.jsonl", '["x"]\n', r"d\.jsonl:1: found a list, expected a JSON object"),
        ("d.jsonl", "\n\n", r"d\.jsonl: no rows"),
        (
            "d.jsonl",
            '{"id": 1, "input": "x"}\n{"id": "1", "input": "y"}\n',
            r"d\.jsonl:2: the id '1' stands twice",
        ),
        ("d.csv", "id,input\n1,x\n2\n", r"d\.csv:3: expected 2 cells"),
        ("d.csv", "id,question\n1,x\n", r"d\.csv:2: no column 'input'"),
        ("d.csv", "id,input\n", r"d\.csv: no rows"),
        ("d.parquet", "nonsense", r"d\.parquet: not Parquet"),
        ("d.txt", "x", r"d\.txt: expected a dataset that ends in \.jsonl"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, name, text))


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'{"input": "x"}\n{"input": "\xff"}\n')
    with pytest.raises(DataError, match=r"d\.jsonl:2: byte 0xff is not UTF-8"):
        load(tmp_path / "d.jsonl")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "d.jsonl")


def test_rows_in_memory_are_checked_too() -> None:
    with pytest.raises(DataError, match="no rows"):
        from_rows([])
    with pytest.raises(DataError, match="stands twice"):
        from_rows([Case("1", "x"), Case("1", "y")])


def test_a_random_draw_is_the_same_every_time_and_not_the_head_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", "".join(f'{{"input": {i}}}\n' for i in range(100)))
    drawn = [case.input for case in load(path, limit=5, shuffle_seed=3).cases]
    assert drawn == [case.input for case in load(path, limit=5, shuffle_seed=3).cases]
    assert drawn != [0, 1, 2, 3, 4]
    assert len(set(drawn)) == 5
