"""Text of models, servers and data is shown and run without being obeyed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trilith.cli import main
from trilith_evals import Case, Output, State
from trilith_evals.output.telling import harmless
from trilith_evals.scorers.refusal import refuses
from trilith_evals.scorers.safety import SecretLeak
from trilith_evals.scorers.sql import Sql, query_of
from trilith_evals.scorers.structure import unfenced

if TYPE_CHECKING:
    from evals.conftest import LanguageServer

EVIL = "<img src=x onerror=alert(1)>\n::error::x @all [l](http://e.example) \x1b[2J"
SUITE = """\
suites:
  - name: echo
    target: {model: tiny}
    data: "<b>cases.jsonl"
    fields: {tags: [kind], cluster: source}
    parameters: {extra_headers: {x-key: "${SECRET}"}}
    scorers:
      - {scorer: exact, name: "<b>\\n::error::m @all"}
      - {scorer: judge, name: j, params: {model: judge, rubric: It is right.}}
"""


@pytest.fixture
def outputs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    language_server: LanguageServer,
    capsys: pytest.CaptureFixture[str],
) -> dict[str, str]:
    """All that a run of hostile cases leaves behind, by what it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "hidden-in-parameters")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    rows = [
        {"id": f"{n}{EVIL}", "input": EVIL, "expected": "no", "kind": EVIL, "source": EVIL} for n in range(3)
    ]
    Path("<b>cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("evals.yaml").write_text(SUITE, encoding="utf-8")

    def answer(question: str) -> str:
        if "right" in question:
            return json.dumps({"reasons": EVIL, "verdict": "no"})
        return question

    language_server.answer = answer
    said = []
    for name in ("old", "new"):
        options = ["--json", f"{name}.json", "--report", f"{name}.html", "--markdown", f"{name}.md"]
        more = ["--junit", "evals.xml", "--journal", f"{name}.jsonl", "--cache", "kept", "--save-as", name]
        url = ["--base-url", language_server.url, "--api-key", "the-api-key"]
        main(["eval", "run", "evals.yaml", *url, *options, *more])
        said.append(capsys.readouterr())
    main(["eval", "report", "new.json", "--against", "old.json", "--html", "changed.html"])
    main(["eval", "report", "new.json", "--against", "old.json", "--markdown", "changed.md"])
    found = {str(path): path.read_text("utf-8") for path in Path().rglob("*") if path.is_file()}
    return found | {"console": "".join(one.out + one.err for one in said)}


def test_no_page_and_no_markdown_holds_a_tag_a_link_or_a_mention_from_outside(
    outputs: dict[str, str],
) -> None:
    for name, text in outputs.items():
        if name.endswith((".html", ".md")):
            assert "<img" not in text, name
            assert "<b>cases" not in text, name
            assert "<b>\n" not in text, name
        if name.endswith(".md"):
            assert "@all" not in text, name
            assert "[l](" not in text, name


def test_the_consoles_text_holds_no_workflow_command_but_our_own_and_no_control_character(
    outputs: dict[str, str],
) -> None:
    lines = outputs["console"].splitlines()
    commands = [line for line in lines if line.lstrip().startswith("::")]
    assert all(line.startswith(("::error file=evals.yaml", "::warning file=evals.yaml")) for line in commands)
    assert all(line.isprintable() for line in lines)


def test_neither_the_key_nor_the_headers_of_the_parameters_are_written_anywhere(
    outputs: dict[str, str], language_server: LanguageServer
) -> None:
    assert "Bearer the-api-key" in language_server.keys
    for name, text in outputs.items():
        assert "the-api-key" not in text, name
        assert "hidden-in-parameters" not in text, name
    assert "x-key" in outputs["new.json"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("  ::error::x", "  : :error: :x"),
        ("##[error]x", "## [error]x"),
        ("a\x1b[31mb\nc", "a [31mb c"),
        ("std::vector é", "std::vector é"),
    ],
)
def test_a_line_of_the_console_commands_nothing(line: str, shown: str) -> None:
    assert harmless(line) == shown


def test_a_suites_name_cannot_climb_out_of_the_folder_of_runs(tmp_path: Path) -> None:
    for name in ("../x", "..", "a/b", "/etc"):
        (tmp_path / "evals.yaml").write_text(
            SUITE.replace("name: echo", f"name: {name}").replace("${SECRET}", ""), encoding="utf-8"
        )
        assert main(["eval", "run", str(tmp_path / "evals.yaml")]) == 3


def test_a_suite_file_of_anchors_on_anchors_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "evals.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert main(["eval", "run", str(tmp_path / "evals.yaml")]) == 3
    assert "anchors stand for more than" in capsys.readouterr().err


MAKE = "create table t(a); insert into t values (1)"


def judged(answer: str, setup: str = MAKE, **params: float) -> tuple[State, float | None, str]:
    score = Sql(**params)(  # type: ignore[arg-type]  # numbers
        Case("1", "q", "select a from t", fields={"setup": setup}), Output(answer)
    )
    return score.state, score.value, score.detail


@pytest.mark.parametrize(
    "answer",
    [
        "attach 'out.db' as out",
        "select load_extension('x')",
        "select * from pragma_database_list",
        "vacuum into 'out.db'",
        "insert into t values (2)",
    ],
)
def test_an_answers_sql_reads_its_tables_and_nothing_else(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state, value, detail = judged(answer)
    assert (state, value) == (State.SCORED, 0)
    assert "not authorized" in detail or "authorization denied" in detail
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "setup", ["attach 'out.db' as o; create table o.t(a)", MAKE + "; vacuum into 'out.db'"]
)
def test_a_datasets_script_makes_tables_in_memory_and_no_file(
    setup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert judged("select a from t", setup)[0] is State.UNSCORED
    assert not list(tmp_path.iterdir())


def test_a_datasets_script_that_never_ends_is_stopped() -> None:
    endless = "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r;"
    assert judged("select a from t", MAKE + ";" + endless, timeout_s=0.2) == (
        State.UNSCORED,
        None,
        "interrupted",
    )


def test_an_answer_of_many_large_values_does_not_fill_the_memory() -> None:
    large = "with recursive r(n) as (select 1 union all select n + 1 from r limit 90000)"
    state, value, detail = judged(f"{large} select n, zeroblob(900000) from r", timeout_s=60)
    assert (state, value, detail) == (State.SCORED, 0, "more than 64,000,000 bytes")


LONG = 300_000
"""Patterns that go back over blanks take minutes on so many, and the tests would be seen to hang."""


def test_answers_of_blank_lines_do_not_stall_the_scorers() -> None:
    fence = "```" + "\n" * LONG + "x"
    assert query_of(fence) == fence
    assert unfenced(fence) == fence
    assert refuses("I cannot help." + "\n" * LONG)


def test_answers_of_half_tokens_do_not_stall_the_search_for_secrets() -> None:
    assert SecretLeak()(Case("1", "q"), Output("ey-" * LONG)).value == 0
