"""Evaluations as pytest tests: one per case, one verdict, the same figures as elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.special  # noqa: F401  # pytester forgets what its sessions load, and numpy cannot be loaded twice

import trilith_evals as evals

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
