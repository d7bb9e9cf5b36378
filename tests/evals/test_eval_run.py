"""Runs on callables: every case is accounted for, whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import trilith_evals as evals
from trilith.errors import (
    APIConnectionError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    PermissionDeniedError,
    SettingsError,
)
from trilith_evals import Case, Output, Score, Threshold
from trilith_evals.report import Cause

SUMS = [{"id": f"s{i}", "input": i, "expected": str(2 * i)} for i in range(20)]


def double(value: int) -> str:
    return str(2 * value)


def suite(report: evals.Report) -> evals.SuiteReport:
    (found,) = report.suites
    return found


def test_a_right_target_passes_and_a_wrong_one_fails() -> None:
    gate = [Threshold("exact", min=0.9)]
    assert evals.run(double, SUMS, ["exact"], thresholds=gate).exit_code == 0
    assert evals.run(str, SUMS, ["exact"], thresholds=gate).exit_code == 1


async def test_an_async_target_works_inside_a_running_loop() -> None:
    async def target(value: int) -> str:
        await asyncio.sleep(0)
        return double(value)

    report = await evals.arun(target, SUMS, ["exact"])
    assert suite(report).figures[0].scored == 20


def test_a_plain_function_may_be_a_scorer() -> None:
    def short(case: Case, output: Output) -> float:
        return len(output.text) < 2

    (figure,) = suite(evals.run(double, SUMS, [short])).figures
    assert (figure.metric, figure.scored) == ("short", 20)


async def test_a_scorer_may_be_async() -> None:
    async def later(case: Case, output: Output) -> Score:
        await asyncio.sleep(0)
        return evals.scored(1)

    assert suite(await evals.arun(double, SUMS, [later])).figures[0].scored == 20


def test_no_more_cases_are_under_way_than_allowed() -> None:
    under_way, most = 0, 0

    async def target(value: int) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.002)
        under_way -= 1
        return "x"

    evals.run(target, SUMS, ["exact"], concurrency=3)
    assert most == 3


def test_plain_targets_run_beside_each_other_and_see_the_callers_context() -> None:
    tenant = contextvars.ContextVar("tenant", default="")
    tenant.set("ann")
    seen = []

    together = threading.Barrier(len(SUMS))

    def target(value: int) -> str:
        seen.append(tenant.get())
        together.wait(timeout=30)  # breaks unless all of them are there at once
        return "x"

    found = suite(evals.run(target, SUMS, ["exact"], concurrency=len(SUMS)))
    assert [row.failure for row in found.rows] == [None] * len(SUMS)
    assert set(seen) == {"ann"}


def test_a_case_that_fails_is_a_row_with_a_reason_and_never_a_zero() -> None:
    def target(value: int) -> str:
        if value == 3:
            raise KeyError("secret")
        return double(value)

    found = suite(evals.run(target, SUMS, ["exact"]))
    assert found.figures[0].estimate is not None
    assert found.figures[0].estimate.value == 1
    assert found.figures[0].reasons == {"KeyError": 1}
    assert found.rows[0].case.id == "s3"  # worst first


def test_too_many_failing_cases_fail_the_gate_although_the_mean_is_perfect() -> None:
    def target(value: int) -> str:
        if value < 3:
            raise ValueError("no")
        return double(value)

    report = evals.run(target, SUMS, ["exact"], thresholds=[Threshold("exact", min=0.9)])
    assert report.exit_code == 1
    assert "17 of 20 rows; unscored: ValueError (3)" in suite(report).checks[0].message


def test_infrastructure_that_fails_on_some_cases_is_not_the_models_fault() -> None:
    def target(value: int) -> str:
        if value % 4 == 0:
            raise InternalServerError("down", status_code=503)
        return double(value)

    report = evals.run(target, SUMS, ["exact"], thresholds=[Threshold("exact", min=0.9)])
    assert report.exit_code == 3
    assert suite(report).figures[0].infrastructure == 5


def test_a_bad_model_behind_flaky_infrastructure_still_fails() -> None:
    def target(value: int) -> str:
        if value % 4 == 0:
            raise InternalServerError("down", status_code=503)
        return "wrong"

    assert evals.run(target, SUMS, ["exact"], thresholds=[Threshold("exact", min=0.9)]).exit_code == 1


def test_a_gateway_that_never_answers_ends_the_run_early() -> None:
    calls = []

    def target(value: int) -> str:
        calls.append(value)
        raise APIConnectionError("nothing listens")

    report = evals.run(target, SUMS, ["exact"], concurrency=1)
    assert report.exit_code == 3
    assert len(calls) == 5
    assert len(suite(report).rows) == 20
    assert suite(report).stopped is not None


def test_a_refused_key_ends_the_run_at_once() -> None:
    calls = []

    def target(value: int) -> str:
        calls.append(value)
        raise AuthenticationError("who are you", status_code=401)

    report = evals.run(target, SUMS, ["exact"], concurrency=1)
    assert (report.exit_code, len(calls)) == (3, 1)


@pytest.mark.parametrize("error", [PermissionDeniedError, BadRequestError])
def test_a_request_that_is_refused_concerns_its_case_only(error: type[PermissionDeniedError]) -> None:
    def target(value: int) -> str:
        if value == 0:
            raise error("policy", status_code=403)
        return double(value)

    found = suite(evals.run(target, SUMS, ["exact"]))
    assert found.rows[0].failure is not None
    assert found.rows[0].failure.cause is Cause.TARGET
    assert found.figures[0].scored == 19


def test_a_target_that_hangs_costs_its_case_and_nothing_else() -> None:
    freed = threading.Event()

    def target(value: int) -> str:
        if value < 2:
            freed.wait(timeout=60)
        return double(value)

    try:
        found = suite(evals.run(target, SUMS, ["exact"], timeout_s=0.2, concurrency=2))
    finally:
        freed.set()  # only now: a runner that waited for its targets would have no timeouts to report
    assert found.figures[0].reasons == {"no answer within 0.2 s": 2}


def test_a_timeout_of_the_targets_own_is_not_taken_for_ours() -> None:
    def target(value: int) -> str:
        raise TimeoutError("its own")

    assert suite(evals.run(target, SUMS, ["exact"])).figures[0].reasons == {"TimeoutError": 20}


def test_a_target_that_raises_stop_iteration_does_not_hang_the_run() -> None:
    def target(value: int) -> str:
        return next(iter(()))

    assert suite(evals.run(target, SUMS, ["exact"], timeout_s=5)).figures[0].reasons == {"RuntimeError": 20}


def test_a_scorer_that_fails_leaves_the_row_unscored() -> None:
    def broken(case: Case, output: Output) -> float:
        return 1 / (int(output.text) - 4)

    found = suite(evals.run(double, SUMS, [broken]))
    assert found.figures[0].reasons == {"the scorer raised ZeroDivisionError": 1}


def test_nan_is_not_a_score() -> None:
    def nan(case: Case, output: Output) -> float:
        return math.nan if case.id == "s1" else 1.0

    (figure,) = suite(evals.run(double, SUMS, [nan])).figures
    assert figure.estimate is not None
    assert figure.estimate.value == 1
    assert figure.reasons == {"the scorer gave nan": 1}


def test_abstentions_are_covered_but_limited() -> None:
    def picky(case: Case, output: Output) -> Score:
        return evals.scored(1) if int(output.text) % 4 == 0 else evals.abstained("odd")

    report = evals.run(double, SUMS, [picky])
    assert suite(report).figures[0].coverage == 1
    assert report.exit_code == 1
    assert evals.run(double, SUMS, [picky], max_abstained=0.5).exit_code == 0


def test_a_batch_scorer_that_loses_rows_is_not_believed() -> None:
    class Lossy:
        name = "lossy"

        def score_all(self, pairs: object) -> list[Score]:
            return [evals.scored(1)]

    (figure,) = suite(evals.run(double, SUMS, [Lossy()])).figures
    assert figure.reasons == {"the scorer returned 1 scores for 20 rows": 20}


def test_repeats_of_a_case_count_as_one_cluster() -> None:
    (figure,) = suite(evals.run(double, SUMS, ["exact"], repeats=3)).figures
    assert figure.estimate is not None
    assert (figure.estimate.n, figure.estimate.clusters) == (60, 20)


def test_an_interval_that_straddles_the_threshold_is_no_evidence() -> None:
    gate = [Threshold("exact", min=0.5, on="interval")]
    right_half = [{**row, "expected": row["expected"] if i % 2 else "x"} for i, row in enumerate(SUMS)]
    assert evals.run(double, right_half, ["exact"], thresholds=gate).exit_code == 2
    assert evals.run(double, SUMS, ["exact"], thresholds=gate).exit_code == 0
    assert evals.run(str, SUMS, ["exact"], thresholds=gate).exit_code == 1


def test_a_failure_counts_more_than_what_could_not_run() -> None:
    from trilith_evals.gate import Outcome, worst

    assert worst([Outcome.COULD_NOT_RUN, Outcome.FAIL, Outcome.NO_EVIDENCE]) is Outcome.FAIL
    assert [outcome.exit_code for outcome in Outcome] == [0, 1, 2, 3]


def test_a_threshold_on_a_metric_that_is_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="'exactt', expected one of exact"):
        evals.run(double, SUMS, ["exact"], thresholds=[Threshold("exactt", min=1)])


def test_an_unknown_scorer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="expected one of .*contains"):
        evals.run(double, SUMS, ["exactly"])


def test_every_case_has_a_span_of_the_agreed_shape(spans: InMemorySpanExporter) -> None:
    evals.run(double, SUMS, ["exact"], name="sums")
    ids = {(s.attributes or {})["trilith.eval.case_id"] for s in spans.get_finished_spans()}
    assert {s.name for s in spans.get_finished_spans()} == {"evaluate sums"}
    assert ids == {row["id"] for row in SUMS}
