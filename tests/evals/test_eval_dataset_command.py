"""`trilith eval dataset check` and `split`, and the likeness that they rest on."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path

import pytest

from trilith.cli import main
from trilith_evals import likeness
from trilith_evals.dataset import load


def dataset(folder: Path, *texts: str) -> Path:
    rows = [{"id": f"c{i}", "input": text, "expected": "ab"[i % 2]} for i, text in enumerate(texts)]
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def words(seed: int, count: int = 30) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=6)) for _ in range(count))


def test_near_duplicates_are_those_that_comparing_all_finds() -> None:
    rng = random.Random(1)
    texts = [words(i) for i in range(60)]
    texts += [text.replace("a", "b", rng.randrange(0, 12)) for text in texts[:40]]
    sets = [likeness.runs(text) for text in texts]
    alike = {
        (a, b) for a, b in combinations(range(len(texts)), 2) if likeness.share(sets[a], sets[b]) >= 0.85
    }
    assert 3 < len(alike) < 40
    assert {(a, b) for a, b, _ in likeness.pairs(texts)} == alike


def test_short_texts_that_differ_are_not_alike() -> None:
    assert list(likeness.pairs(["yes", "no", "Capital of France?", "Capital of Italy?", ""])) == []
    assert [(a, b) for a, b, _ in likeness.pairs(["Hi  there", "hi THERE"])] == [(0, 1)]


def test_a_near_duplicate_in_another_part_is_a_leak_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [words(i) for i in range(40)]
    path = dataset(tmp_path, *texts, *(f"{text}!" for text in texts))
    assert main(["eval", "dataset", "check", str(path)]) == 0
    assert "near-duplicates without a common cluster: 40" in capsys.readouterr().out
    assert main(["eval", "dataset", "split", str(path), "train=0.5", "test=0.5", "--held-out", "test"]) == 0
    assert main(["eval", "dataset", "check", str(path)]) == 1
    told = capsys.readouterr().out
    assert "held out: yes" in told
    assert "labels: 40 a, 40 b" in told
    assert "LEAKS: near-duplicates in different parts: 0" not in told
    assert "train and test" in told or "test and train" in told


def test_a_clean_split_passes_and_its_parts_can_be_named(tmp_path: Path) -> None:
    path = dataset(tmp_path, *(words(i) for i in range(40)))
    assert main(["eval", "dataset", "split", str(path), "train=0.5", "test=0.5"]) == 0
    assert main(["eval", "dataset", "check", str(path)]) == 0
    assert len(load(path, split="train").cases) + len(load(path, split="test").cases) == 40


def test_a_split_keeps_what_else_stands_beside_the_data(tmp_path: Path) -> None:
    path = dataset(tmp_path, *(words(i) for i in range(10)))
    (tmp_path / "d.schema.yaml").write_text("columns: {input: {pattern: '[$${}a-j ]+'}}\n", encoding="utf-8")
    assert main(["eval", "dataset", "split", str(path), "all=1"]) == 0
    assert "'[$${}a-j ]+'" in (tmp_path / "d.schema.yaml").read_text(encoding="utf-8")
    assert len(load(path, split="all").cases) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train=0.8", "test=0.4"], "the shares come to 1.2"),
        (["train"], "'train': expected NAME=SHARE"),
        (["train=0.8", "--held-out", "test"], "--held-out test: no such part, expected one of train"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["eval", "dataset", "split", str(dataset(tmp_path, "x")), *arguments]) == 3
    assert message in capsys.readouterr().err


def test_a_wrong_dataset_could_not_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = dataset(tmp_path, "x")
    path.write_text('{"inp": 1}\n', encoding="utf-8")
    assert main(["eval", "dataset", "check", str(path)]) == 3
    assert "no column 'input'" in capsys.readouterr().err


def test_a_suggested_schema_fits_the_data_that_it_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dataset(tmp_path, "x", "y")
    assert main(["eval", "dataset", "check", str(path), "--suggest"]) == 0
    (tmp_path / "d.schema.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert len(load(path).cases) == 2
