"""A monitor over a stream: notices, alarms, incidents, causes, late labels, restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trilith.errors import DataError
from trilith_evals.online import Finding, Kind, Monitor, MonitorSettings, Record

DAY_S = 86_400.0
PER_DAY = 150


def day(
    number: int,
    *,
    shift: float = 0.0,
    wrong: Callable[[dict[str, Any]], float] = lambda row: 0.2,
    values: dict[str, float] | None = None,
) -> list[Record]:
    """One day of answers: `wrong` says how often a row's label is not what the classifier says."""
    generator = np.random.default_rng(number)
    found = []
    for n in range(PER_DAY):
        row = {"x": float(generator.normal(shift)), "city": str(generator.choice(["Ulm", "Bonn", "Kiel"]))}
        said = float(generator.random() < 0.5)
        label = said if generator.random() > wrong(row) else 1 - said
        noisy = {name: float(generator.gamma(4, value / 4)) for name, value in (values or {}).items()}
        score = 0.8 if said else 0.2
        at = number * DAY_S + n * DAY_S / PER_DAY
        found.append(
            Record(f"{number}-{n}", at, row, score, noisy, tenant="acme" if n % 2 else "other", label=label)
        )
    return found


def reference(**more: Any) -> list[Record]:
    return [record for number in range(28) for record in day(number, **more)]


def settings(**more: Any) -> MonitorSettings:
    return MonitorSettings.model_validate({"loss": "error"} | more)


def run(monitor: Monitor, days: list[list[Record]]) -> list[Finding]:
    found = []
    for records in days:
        for record in records:
            monitor.observe(record)
        found += monitor.advance((records[-1].at // DAY_S + 1) * DAY_S)
    return found


def alarms(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.kind is Kind.ALARM]


def test_inputs_that_drift_without_loss_are_a_notice_and_never_an_alarm() -> None:
    found = run(Monitor(settings(), reference()), [day(n, shift=1.5) for n in range(28, 58)])
    assert {f.subject for f in found if f.kind is Kind.NOTICE and f.source == "feature"} == {"x"}
    assert alarms(found) == []


def test_a_loss_is_one_alarm_and_its_incident_stays_open_until_it_is_over() -> None:
    bad = [day(n, wrong=lambda row: 0.45) for n in range(28, 42)]
    found = run(Monitor(settings(), reference()), [*bad, *(day(n) for n in range(42, 50))])
    kinds = [f.kind for f in found if f.source == "performance"]
    assert kinds.count(Kind.ALARM) == 1
    assert kinds.count(Kind.CLOSED) == 1
    assert kinds.index(Kind.ALARM) < 7
    assert Kind.OPEN in kinds


def test_an_alarm_names_the_slice_that_lost() -> None:
    found = run(
        Monitor(settings(), reference()),
        [day(n, wrong=lambda row: 0.6 if row["city"] == "Ulm" else 0.2) for n in range(28, 42)],
    )
    first = alarms(found)[0].causes[0]
    assert (first["field"], first["value"]) == ("city", "Ulm")
    assert first["share_of_loss"] > 0.7
    assert first["low"] < first["share_of_loss"] < first["high"]
    assert first["p"] < 0.05


def test_an_alarm_says_whether_the_inputs_explain_it() -> None:
    found = run(Monitor(settings(), reference()), [day(n, wrong=lambda row: 0.5) for n in range(28, 42)])
    assert "more than the drift of the inputs explains" in alarms(found)[0].message


def test_values_that_were_never_seen_alarm_only_where_that_is_stated() -> None:
    strange = [day(n, shift=50.0) for n in range(28, 31)]
    assert alarms(run(Monitor(settings(), reference()), strange)) == []
    found = run(Monitor(settings(alarm_on={"unseen": 0.5}), reference()), strange)
    assert [f.subject for f in alarms(found)] == ["x"]


def test_labels_are_waited_for_and_a_window_without_enough_of_them_is_no_evidence() -> None:
    monitor = Monitor(settings(label_wait_hours=48), reference())
    rows = day(28)
    truths = {record.id: record.label or 0.0 for record in rows}
    for record in rows:
        record.label = None
        monitor.observe(record)
    for id in list(truths)[: PER_DAY // 4]:
        monitor.label(id, truths[id], at=29.5 * DAY_S)
    assert [f.source for f in monitor.advance(30.9 * DAY_S) if f.source == "performance"] == []
    (found,) = (f for f in monitor.advance(31.1 * DAY_S) if f.source == "performance")
    assert found.kind is Kind.NO_EVIDENCE
    assert found.message == "25% of the records have labels, expected 50%"


def test_a_record_after_its_window_is_counted_and_not_used() -> None:
    monitor = Monitor(settings(), reference())
    run(monitor, [day(28)])
    monitor.observe(Record("late", 28.5 * DAY_S))
    assert monitor.late == 1


@pytest.mark.parametrize(
    ("metric", "usual", "now"),
    [("latency_s", 0.5, 1.0), ("cost_pico_usd", 4e6, 8e6)],
)
def test_cost_and_latency_alarm_in_the_same_words(metric: str, usual: float, now: float) -> None:
    watched = settings(loss="none", metrics=[{"name": metric}])
    monitor = Monitor(watched, reference(values={metric: usual}))
    found = run(monitor, [day(n, values={metric: now}) for n in range(28, 40)])
    assert [(f.source, f.subject) for f in alarms(found)] == [("metric", metric)]


def test_a_score_that_falls_alarms_where_lower_is_worse() -> None:
    watched = settings(loss="none", metrics=[{"name": "judge", "worse": "lower"}])
    monitor = Monitor(watched, reference(values={"judge": 0.8}))
    found = alarms(run(monitor, [day(n, values={"judge": 0.4}) for n in range(28, 40)]))
    assert len(found) == 1
    assert found[0].value == pytest.approx(0.4, abs=0.05)


def test_a_monitor_without_a_reference_learns_it_first() -> None:
    monitor = Monitor(settings(reference_windows=28))
    assert run(monitor, [day(n) for n in range(27)]) == []
    assert monitor.learning
    run(monitor, [day(27)])
    assert not monitor.learning
    assert len(alarms(run(monitor, [day(n, wrong=lambda row: 0.45) for n in range(28, 40)]))) >= 1


def test_a_restarted_monitor_finds_what_one_that_ran_through_finds() -> None:
    days = [day(n, wrong=lambda row: 0.27) for n in range(28, 48)]
    through = run(Monitor(settings(), reference()), days)
    first = Monitor(settings(), reference())
    found = run(first, days[:9])
    state = json.loads(json.dumps(first.state()))
    found += run(Monitor.restored(settings(), state), days[9:])
    assert [(f.kind, f.subject, f.evidence) for f in found] == [
        (f.kind, f.subject, f.evidence) for f in through
    ]


def test_the_budget_is_split_over_windows_and_tests() -> None:
    # 30 windows of a day, and two tests: performance, seen and estimated
    assert settings().alpha == pytest.approx(1 / 60)
    assert settings(alarms_per_30_days=3, estimate=False).alpha == pytest.approx(3 / 30)


def test_a_reference_without_labels_is_refused_in_words() -> None:
    rows = reference()
    for record in rows:
        record.label = None
    with pytest.raises(
        DataError, match="windows of the reference have labels and scores, expected 4 or more"
    ):
        Monitor(settings(), rows)


def test_findings_hold_no_text() -> None:
    monitor = Monitor(settings(), reference())
    rows = day(28)
    for record in rows:
        record.text = "call Ann Example on 555 0100"
    found = run(monitor, [rows])
    assert "Ann" not in json.dumps([f.to_json() for f in found] + [monitor.state()])
