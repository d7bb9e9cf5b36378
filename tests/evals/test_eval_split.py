"""Parts of a dataset, and how often the one that nobody may tune on was looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trilith.errors import DataError, SettingsError
from trilith_evals import run
from trilith_evals.dataset import Columns, from_rows, load
from trilith_evals.look import counted
from trilith_evals.output.console import table
from trilith_evals.report import suite_json
from trilith_evals.split import Split, parts
from trilith_evals.suite import read_plans

SIDECAR = "splits: {seed: 3, shares: {train: 0.7, test: 0.3}}\nheld_out: [test]\n"


def written(folder: Path, rows: range, name: str = "d.jsonl") -> Path:
    text = "".join(json.dumps({"id": f"c{i}", "input": f"q{i}", "page": f"p{i // 4}"}) + "\n" for i in rows)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def ids(path: Path, split: str | Split, columns: Columns | None = None) -> set[str]:
    return {case.id for case in load(path, columns, split=split).cases}


def test_added_rows_move_no_case_to_another_part(tmp_path: Path) -> None:
    before = ids(written(tmp_path, range(400)), Split("test", 0.25, seed=1))
    after = ids(written(tmp_path, range(-300, 700)), Split("test", 0.25, seed=1))
    assert before == after & {f"c{i}" for i in range(400)}
    assert 70 < len(before) < 130


def test_rows_without_ids_keep_their_part_when_rows_are_put_before_them() -> None:
    rows = [{"input": f"q{i}"} for i in range(200)]
    part = Split("test", 0.3)
    few = {case.input for case in from_rows(rows, split=part).cases}
    many = {case.input for case in from_rows([{"input": "new"}, *rows], split=part).cases}
    assert few == many - {"new"}


def test_a_cluster_never_stands_on_both_sides(tmp_path: Path) -> None:
    path, columns = written(tmp_path, range(400)), Columns(cluster="page")
    named = parts({"train": 0.6, "test": 0.4}, seed=2)
    pages = [{c.cluster for c in load(path, columns, split=part).cases} for part in named.values()]
    assert pages[0].isdisjoint(pages[1])
    assert len(pages[0] | pages[1]) == 100


def test_the_file_beside_the_data_names_its_parts_and_which_is_held_out(tmp_path: Path) -> None:
    path = written(tmp_path, range(100))
    (tmp_path / "d.schema.yaml").write_text(SIDECAR, encoding="utf-8")
    train, test, whole = load(path, split="train"), load(path, split="test"), load(path)
    assert len(train.cases) + len(test.cases) == 100
    assert (train.split, train.held_out) == ("train", False)
    assert (test.split, test.held_out) == ("test", True)
    assert (whole.split, whole.held_out) == ("", True)
    with pytest.raises(DataError, match=r"no split 'dev', .* d\.schema\.yaml \(train, test\)"):
        load(path, split="dev")


def test_a_column_may_name_the_parts(tmp_path: Path) -> None:
    path = written(tmp_path, range(8))
    (tmp_path / "d.schema.yaml").write_text("splits: {column: page}\n", encoding="utf-8")
    assert ids(path, "p1") == {"c4", "c5", "c6", "c7"}
    with pytest.raises(DataError, match="no case of 8 is in the split 'p9'"):
        load(path, split="p9")
    with pytest.raises(DataError, match="no column 'fold' to split by"):
        load(path, split=Split("test", column="fold"))


def test_shares_of_more_than_all_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, range(8))
    (tmp_path / "d.schema.yaml").write_text("splits: {shares: {a: 0.7, b: 0.4}}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"d\.schema\.yaml:1: splits: the shares come to 1\.1"):
        load(path)


def test_a_suite_may_cut_a_part_of_its_own(tmp_path: Path) -> None:
    written(tmp_path, range(100))
    suite = "suites: [{name: s, target: {model: m}, data: d.jsonl, scorers: [{scorer: exact}], split: "
    (tmp_path / "e.yaml").write_text(suite + "{name: test, share: 0.2, seed: 1}}]", encoding="utf-8")
    (plan,) = read_plans(tmp_path / "e.yaml")
    assert plan.data.split == "test"
    assert 8 < len(plan.data.cases) < 35
    (tmp_path / "e.yaml").write_text(suite + "{name: test}}]", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"e\.yaml:1: suites\.0\.split.*: expected share, or column"):
        read_plans(tmp_path / "e.yaml")


def test_every_run_on_held_out_cases_is_counted(tmp_path: Path) -> None:
    path = written(tmp_path, range(40))
    (tmp_path / "d.schema.yaml").write_text(SIDECAR, encoding="utf-8")

    def looks(split: str) -> int:
        report = run(len, path, [lambda case, output: 1.0], split=split)
        (suite,) = report.suites
        assert suite_json(suite, content=False)["looks"] == suite.looks
        assert (f"held out, looked at {suite.looks} times" in table(report)) == (split == "test")
        return suite.looks

    assert [looks("test"), looks("test"), looks("train"), looks("test")] == [1, 2, 0, 3]
    first = json.loads(counted(path).read_text(encoding="utf-8").splitlines()[0])
    assert (first["split"], first["suite"], first["target"]) == ("test", "suite", "len")
