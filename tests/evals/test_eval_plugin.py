"""Evaluations as pytest tests: one per case, one verdict, the same figures as elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scipy.special  # noqa: F401  # pytester forgets what its sessions load, and numpy cannot be loaded twice

import trilith_evals as evals
import trilith_evals.trialled  # pytester forgets what its sessions load; the purse must be one

pytest_plugins = ["pytester"]

ROWS = [{"id": f"q{i}", "input": i, "expected": str(i)} for i in range(10)]

TEST = """
import pytest

@pytest.mark.trilith_eval(data="cases.jsonl", scorers=["exact", "latency"], {marker})
def test_bot(case):
    if case.input == 9:
        raise ConnectionError("private trouble")
    return str(case.input) if case.input >= {wrong} else "no"
"""


@pytest.fixture
def session(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makefile(".jsonl", cases="\n".join(json.dumps(row) for row in ROWS))
    return pytester


def ran(session: pytest.Pytester, *arguments: str, marker: str = "", wrong: int = 0) -> pytest.RunResult:
    session.makepyfile(TEST.format(marker=marker, wrong=wrong))
    return session.runpytest_inprocess(*PLUGIN, *arguments)


PLUGIN = ("-p", "trilith_evals.plugin", "-p", "no:cacheprovider")


def test_every_case_is_a_test_and_the_verdict_passes(session: pytest.Pytester) -> None:
    result = ran(session, marker="min={'exact': 0.5}, min_coverage=0.9")
    result.assert_outcomes(passed=10)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*trilith eval*", "*pass*exact >= 0.5*"])


def test_a_threshold_that_is_missed_fails_the_session_though_every_test_passed(
    session: pytest.Pytester,
) -> None:
    result = ran(session, marker="min={'exact': 0.5}, min_coverage=0.9", wrong=8)
    result.assert_outcomes(passed=10)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*FAIL*exact >= 0.5*"])


def test_a_case_without_an_answer_lowers_coverage(session: pytest.Pytester) -> None:
    result = ran(session)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*exact coverage >= 0.95: 9 of 10 rows; unscored: ConnectionError (1)*"])


def test_figures_are_those_of_the_runner(session: pytest.Pytester) -> None:
    ran(session, "--eval-json", "out.json", marker="min_coverage=0.9", wrong=3)
    told = json.loads((session.path / "out.json").read_text("utf-8"))["suites"][0]

    def target(value: int) -> str:
        if value == 9:
            raise ConnectionError
        return str(value) if value >= 3 else "no"

    suite = evals.run(target, ROWS, ["exact"]).suites[0]
    figure = suite.figures[0].estimate
    assert figure is not None
    assert told["figures"][0]["estimate"]["value"] == figure.value
    assert told["figures"][0]["estimate"]["low"] == figure.low
    assert told["figures"][0]["infrastructure"] == 1


def test_a_latency_is_that_of_the_test(session: pytest.Pytester) -> None:
    session.makepyfile("""
        import pytest
        from trilith_evals import Output

        @pytest.mark.trilith_eval(data="cases.jsonl", scorers=["latency"], min=77, max=77)
        def test_bot(case):
            case.record(Output(text="x", latency_s=77))
        """)
    assert session.runpytest_inprocess(*PLUGIN).ret == 0


def test_a_part_of_the_cases_is_shown_and_not_gated(session: pytest.Pytester) -> None:
    result = ran(session, "-k", "q1", marker="min={'exact': 0.5}", wrong=8)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 of 10 cases ran, so its checks do not count*"])


def test_repeats_async_tests_and_a_suite_file(session: pytest.Pytester) -> None:
    session.makefile(
        ".yaml",
        evals="suites:\n  - name: bot\n    target: {model: m}\n    data: cases.jsonl\n    repeats: 2\n"
        "    scorers: [{scorer: exact}]\n    thresholds: [{metric: exact, min: 0.9}]\n",
    )
    session.makepyfile("""
        import pytest

        @pytest.mark.trilith_eval(suite="evals.yaml")
        async def test_bot(case):
            case.record(str(case.input))
        """)
    result = session.runpytest_inprocess(*PLUGIN, "-v", "-p", "no:asyncio")
    result.assert_outcomes(passed=20)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_bot[[]q3-2[]]*"])


def test_a_test_that_records_nothing_fails(session: pytest.Pytester) -> None:
    session.makepyfile("""
        import pytest

        @pytest.mark.trilith_eval(data=[{"input": 1}], scorers=["exact"])
        def test_bot(case):
            pass
        """)
    result = session.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no answer was recorded; return it, or call case.record*"])


def test_an_assertion_and_a_strict_case_fail_their_own_tests(session: pytest.Pytester) -> None:
    ran(session, marker="strict=True").assert_outcomes(passed=9, failed=1)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("min={'f1': 1}", "*'f1' is not measured here, expected one of exact, latency_s*"),
        ("min=0.5", "*min is 0.5 beside several metrics, expected such as {'exact': 0.5}*"),
        ("wrong_key=1", "*wrong_key*"),
    ],
)
def test_a_wrong_marker_is_refused_before_anything_is_asked(
    session: pytest.Pytester, marker: str, message: str
) -> None:
    result = ran(session, marker=marker)
    assert result.ret != 0
    (result.stdout.fnmatch_lines if message in str(result.stdout) else _anywhere(result).fnmatch_lines)(
        [message]
    )


def _anywhere(result: pytest.RunResult) -> pytest.LineMatcher:
    return pytest.LineMatcher([*result.outlines, *result.errlines])


def test_reports_are_written_without_content_where_asked(session: pytest.Pytester) -> None:
    ran(
        session,
        "--eval-html",
        "r.html",
        "--eval-markdown",
        "r.md",
        "--eval-junit",
        "r.xml",
        "--eval-no-content",
    )
    told = "".join((session.path / name).read_text("utf-8") for name in ("r.html", "r.md", "r.xml"))
    assert "ConnectionError" in told
    assert "private" not in told


def test_the_plugin_loads_nothing_of_ours_until_a_test_is_marked(tmp_path: Path) -> None:
    script = (
        "import sys, pytest, trilith_evals.plugin; print(sorted(m for m in sys.modules if 'trilith' in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "['trilith_evals', 'trilith_evals.plugin']"


GATED = """\
suites:
  - name: bot
    target: {model: m}
    data: many.jsonl
    scorers: [{scorer: exact}]
    gates:
      - {metric: exact, %s}
"""
ASKED = """
import pytest

@pytest.mark.trilith_eval(suite="evals.yaml"%s)
def test_bot(case):
    return "no" if case.input in %s else str(case.input)
"""


def gated(session: pytest.Pytester, gate: str, wrong: set[int], *arguments: str, marker: str = "") -> Any:
    rows = (json.dumps({"id": f"q{i}", "input": i, "expected": str(i)}) for i in range(60))
    session.makefile(".jsonl", many="\n".join(rows))
    session.makefile(".yaml", evals=GATED % gate)
    session.makepyfile(ASKED % (marker, sorted(wrong)))
    return session.runpytest_inprocess(*PLUGIN, *arguments)


@pytest.mark.parametrize(
    ("wrong", "status", "told"),
    [(0, 0, "*pass*exact >= 0.8*"), (14, 1, "*no evidence*exact >= 0.8*"), (40, 1, "*FAIL*exact >= 0.8*")],
)
def test_a_suites_gates_are_tried(session: pytest.Pytester, wrong: int, status: int, told: str) -> None:
    result = gated(session, "min: 0.8", set(range(wrong)))
    assert result.ret == status
    result.stdout.fnmatch_lines([told])


def test_a_gate_against_the_run_before_is_tried(session: pytest.Pytester) -> None:
    gated(session, "min: 0.8", set(), "--eval-json", "main.json")
    gate = "not_worse_by: 0.1"
    assert gated(session, gate, {3}, marker=', against="main.json"').ret == 0
    result = gated(session, gate, set(range(30)), "--eval-against", "main.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*FAIL*exact is not worse by more than 0.1*"])


def test_a_gate_against_a_run_that_nobody_names_is_refused(session: pytest.Pytester) -> None:
    result = gated(session, "not_worse_by: 0.1", set())
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*a gate is against the run before*--eval-against*"])


def test_a_run_that_is_held_against_another_without_gates_is_compared(session: pytest.Pytester) -> None:
    gated(session, "min: 0.1", set(), "--eval-json", "main.json")
    result = gated(session, "min: 0.1", set(range(30)), "--eval-against", "main.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*pass*exact >= 0.1*", "*FAIL*exact is not worse*"])


def test_a_part_of_the_cases_is_not_held_against_anything(session: pytest.Pytester) -> None:
    gated(session, "min: 0.8", set(), "--eval-json", "main.json")
    result = gated(session, "better: true", set(), "--eval-against", "main.json", "-k", "q1")
    assert result.ret == 0


def test_two_functions_of_one_name_are_two_suites(session: pytest.Pytester) -> None:
    test = TEST.format(marker="min_coverage=0.9, gates=[Gate('exact', min=%s)]", wrong=0)
    test = "from trilith_evals import Gate\n" + test
    session.makepyfile(test_one=test % 0.1, test_two=test % 0.99)
    result = session.runpytest_inprocess(*PLUGIN, "--eval-json", "out.json")
    assert result.ret == 1
    one, two = json.loads((session.path / "out.json").read_text("utf-8"))["suites"]
    assert (one["name"], two["name"]) == ("test_bot", "test_bot (test_two.py::test_bot)")
    assert (one["outcome"], two["outcome"]) == ("pass", "no evidence")


def test_cases_spread_over_processes_are_refused(session: pytest.Pytester) -> None:
    # What pytest-xdist sets in its workers.
    session.makeconftest("def pytest_configure(config):\n    config.workerinput = {'workerid': 'gw0'}\n")
    result = ran(session)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*needs all cases in one process; run with -n0*"])


def test_judges_are_capped_and_their_answers_kept(session: pytest.Pytester) -> None:
    session.makepyfile("""
        import pytest
        from trilith_evals import Paid, paid

        async def judge(case, output):
            async def call():
                print("asked", case.id)
                return Paid(1, 10**10)
            return (await paid(["judge", output.text], call)).value

        @pytest.mark.trilith_eval(data="cases.jsonl", scorers=[judge])
        def test_bot(case):
            return str(case.input)
        """)
    options = [*PLUGIN, "--eval-cache", "kept", "-s", "--eval-max-cost"]
    result = session.runpytest_inprocess(*options, "0.05")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*cost cap of 0.05 USD*"])
    bought = str(result.stdout).count("asked q")
    assert 0 < bought <= 5
    result = session.runpytest_inprocess(*options, "1")
    assert result.ret == 0
    assert str(result.stdout).count("asked q") == len(ROWS) - bought
    assert session.runpytest_inprocess(*options, "much").ret != 0
