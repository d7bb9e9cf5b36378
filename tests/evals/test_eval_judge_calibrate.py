"""`trilith eval calibrate`, and suites that look the certificate up."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.judge_server import verdict
from support.scripted_server import Scripted, ScriptedServer

from trilith.cli import main

if TYPE_CHECKING:
    from evals.conftest import LanguageServer

JUDGE = """\
judge:
  model: big
  rubric: The answer names the right capital.
data:
  file: labelled.jsonl
  human: [ann, ben, eve]
  tags: [language]
  cluster: document
"""
SUITE = """\
suites:
  - name: capitals
    target: {model: small}
    data: cases.jsonl
    scorers:
      - {scorer: judge, params: {file: judge.yaml}}
    thresholds:
      - {metric: judge, min: 0.5}
"""


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def answers() -> list[dict[str, Any]]:
    """60 answers with three people's labels; the recorded judge is right on about 80 %."""
    rng = random.Random(4)
    rows = []
    for at in range(60):
        good = rng.random() < 0.5
        said = good if rng.random() < 0.8 else not good
        people = [good if rng.random() < 0.95 else not good for _ in range(3)]
        named = dict(zip(("ann", "ben", "eve"), people, strict=True))
        rows.append(
            {
                "id": str(at),
                "input": "Capital of France?",
                "output": "Paris" * rng.randint(1, 9) if good else "Lyon",
                "recorded": "yes" if said else "no",
                "language": "en" if at % 2 else "de",
                "document": str(at // 3),
                **{name: label if at < 40 else None for name, label in named.items()},
            }
        )
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines(tmp_path / "labelled.jsonl", answers())
    lines(tmp_path / "cases.jsonl", [{"id": str(n), "input": "Capital of France?"} for n in range(4)])
    (tmp_path / "judge.yaml").write_text(JUDGE, encoding="utf-8")
    (tmp_path / "evals.yaml").write_text(SUITE, encoding="utf-8")
    return tmp_path


def recorded(folder: Path, extra: str = "  verdict: recorded\n") -> Path:
    path = folder / "judge.yaml"
    path.write_text(JUDGE + extra, encoding="utf-8")
    return path


def test_recorded_verdicts_are_held_against_people_without_any_call(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "calibrate", str(recorded(folder))]) == 0
    said = capsys.readouterr().out
    for word in ("Cohen's kappa", "precision", "recall", "bias to length", "corrected mean", "language=de"):
        assert word in said
    told = json.loads((folder / "judge.certificate.json").read_text("utf-8"))
    assert told["labelled"] == 40
    assert told["figures"]["kappa"]["method"] == "cluster delta"
    assert len(told["fingerprint"]) == 64


def test_a_judge_is_asked_about_answers_that_have_no_verdict_yet(
    folder: Path, language_server: LanguageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def judge(asked: str) -> str:
        right = "Paris" in asked.split("answer>>>\n", 1)[1]
        return json.dumps({"reasons": "read", "verdict": "yes" if right else "no"})

    language_server.answer = judge
    arguments = [str(folder / "judge.yaml"), "--base-url", language_server.url, "--api-key", "k"]
    assert main(["eval", "calibrate", *arguments]) == 0
    assert len(language_server.requests) == 60
    assert {request["model"] for request in language_server.requests} == {"big"}
    told = json.loads((folder / "judge.certificate.json").read_text("utf-8"))
    assert told["figures"]["accuracy"]["value"] > 0.9
    assert "ppi++" in capsys.readouterr().out


def run(folder: Path, *options: str, judge: Scripted | None = None) -> tuple[int, Any]:
    """Run the suite on a server that is target and judge alike; the target's answer is a verdict too."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    with ScriptedServer([judge or verdict("yes")]) as server:
        address = ["--base-url", server.url, "--api-key", "k", "--json", str(report), *options]
        code = main(["eval", "run", str(folder / "evals.yaml"), *address])
    return code, json.loads(report.read_text("utf-8"))["suites"][0] if report.is_file() else None


def test_a_suite_says_that_its_judge_was_never_calibrated_then_that_it_was_then_that_it_has_changed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, suite = run(folder)
    assert code == 0
    assert suite["judges"][0]["calibrated"] is False
    assert "NOT CALIBRATED judge of judge: never held" in capsys.readouterr().out

    main(["eval", "calibrate", str(recorded(folder))])
    _, suite = run(folder)
    assert suite["judges"][0]["calibrated"] is True
    assert suite["judges"][0]["agreement"].startswith("kappa 0.")

    path = folder / "judge.yaml"
    path.write_text(path.read_text("utf-8").replace("the right capital", "a capital"), encoding="utf-8")
    _, suite = run(folder)
    assert suite["judges"][0]["calibrated"] is False
    assert "changed since" in suite["judges"][0]["agreement"]


def test_a_suite_may_demand_a_calibrated_judge_before_anything_is_paid(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = folder / "evals.yaml"
    demanding = SUITE.replace("{file: judge.yaml}", "{file: judge.yaml, require_calibrated: true}")
    suite.write_text(demanding, encoding="utf-8")
    assert run(folder) == (3, None)
    assert "the judge is not calibrated" in capsys.readouterr().err
    main(["eval", "calibrate", str(recorded(folder))])
    assert run(folder)[0] == 0


def test_a_figure_is_corrected_where_the_dataset_has_labels(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": str(n), "input": "?", "label": ("no" if n % 4 else "yes") if n < 20 else None}
        for n in range(40)
    ]
    lines(folder / "cases.jsonl", rows)
    suite = folder / "evals.yaml"
    suite.write_text(
        SUITE.replace("{file: judge.yaml}", "{file: judge.yaml, human: label}"), encoding="utf-8"
    )
    code, found = run(folder)
    assert code == 1  # people pass a quarter, whatever the judge says
    (figure,) = found["figures"]
    assert (figure["estimate"]["method"], figure["estimate"]["value"]) == ("ppi++", pytest.approx(0.25))
    assert figure["uncorrected"]["value"] == 1
    assert "corrected by people's labels, without 1.00" in capsys.readouterr().out


def test_a_judge_may_stand_in_the_suite_with_its_rubric_in_a_file(folder: Path) -> None:
    (folder / "rubric.txt").write_text("It is polite.", encoding="utf-8")
    params = "{model: big, rubric_file: rubric.txt, scale: 5, panel: [huge]}"
    (folder / "evals.yaml").write_text(SUITE.replace("{file: judge.yaml}", params), encoding="utf-8")
    code, suite = run(folder, judge=verdict(4))
    assert code == 0
    assert suite["figures"][0]["estimate"]["value"] == 4


def test_pairs_are_calibrated_with_their_position(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(1)
    rows = [
        {"input": "?", "a": "x" * rng.randint(1, 9), "b": "y" * rng.randint(10, 20), "best": rng.choice("12")}
        | {"ab": "1", "ba": "2"}
        for _ in range(30)
    ]
    lines(folder / "labelled.jsonl", rows)
    path = folder / "pairs.yaml"
    path.write_text(
        "judge: {model: big, rubric: the better one, kind: pair}\n"
        "data: {file: labelled.jsonl, output: [a, b], human: best, verdict: [ab, ba]}\n",
        encoding="utf-8",
    )
    assert main(["eval", "calibrate", str(path)]) == 0
    told = json.loads((folder / "pairs.certificate.json").read_text("utf-8"))["figures"]
    assert (told["consistency"]["value"], told["picks_first"]["value"]) == (0, 1)
    assert told["position_bias"]["value"] == 1
    assert "both orders alike" in capsys.readouterr().out


def test_a_pair_that_people_have_not_decided_is_not_paid_for(
    folder: Path, language_server: LanguageServer
) -> None:
    votes = [["1", "1", "2"], ["1", "2"], [], ["2"], ["tie"]]
    lines(folder / "labelled.jsonl", [{"input": "?", "a": "one", "b": "two", "best": v} for v in votes])
    path = folder / "pairs.yaml"
    path.write_text(
        "judge: {model: big, rubric: the better one, kind: pair}\n"
        "data: {file: labelled.jsonl, output: [a, b], human: best}\n",
        encoding="utf-8",
    )
    language_server.answer = lambda asked: json.dumps({"reasons": "", "verdict": "first"})
    assert main(["eval", "calibrate", str(path), "--base-url", language_server.url, "--api-key", "k"]) == 0
    assert len(language_server.requests) == 4  # two pairs in both orders
    told = json.loads((folder / "pairs.certificate.json").read_text("utf-8"))
    assert (told["labelled"], told["figures"]["picks_first"]["value"]) == (2, 1)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("human: [ann, ben, eve]", "human: nobody"), "labelled.jsonl:1: no column 'nobody'"),
        (("human: [ann, ben, eve]", "human: output"), "is not on the scale"),
        (("  model: big\n", ""), "judge.yaml:1: judge.model: is missing"),
        (("  rubric:", "  rubrik:"), "judge.rubrik: is not a key"),
        (("  file: labelled.jsonl", "  file: nothing.jsonl"), "cannot read the dataset"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(
    folder: Path, change: tuple[str, str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded(folder)
    path.write_text(path.read_text("utf-8").replace(*change), encoding="utf-8")
    assert main(["eval", "calibrate", str(path)]) == 3
    assert found in capsys.readouterr().err


def test_a_damaged_certificate_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "judge.certificate.json").write_text("{}", encoding="utf-8")
    assert run(folder) == (3, None)
    assert "no certificate of a judge" in capsys.readouterr().err
