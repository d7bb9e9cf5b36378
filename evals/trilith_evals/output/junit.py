"""JUnit XML, as CI systems read it: a testcase per check, and one per group of unscored rows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from xml.etree import ElementTree

from trilith_evals.atomic import write
from trilith_evals.gate import Check, Outcome
from trilith_evals.output.telling import notes, opinion, spent
from trilith_evals.report import Report, SuiteReport
from trilith_evals.score import State

# What XML 1.0 cannot hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """Return the report as JUnit XML.

    A failed check is a failure, one that could not run an error. No evidence is a failure too, of the type
    `no evidence`: the run did not show what it was asked to. Unscored rows are skipped testcases; whether
    they are too many is the coverage check's business.
    """
    root = ElementTree.Element("testsuites", name="trilith eval", time=f"{report.duration_s:.3f}")
    for suite in report.suites:
        root.append(_suite(suite, report))
    _count(root)
    del root.attrib["skipped"]  # the schema has it on a suite only
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def write_junit(report: Report, path: Path) -> None:
    """Write the report as JUnit XML."""
    write(path, junit(report))


def _suite(suite: SuiteReport, report: Report) -> ElementTree.Element:
    element = ElementTree.Element("testsuite", name=_clean(suite.name), time=f"{suite.duration_s:.3f}")
    # The schema knows no offset: the time is in UTC.
    element.set("timestamp", f"{report.started.astimezone(UTC):%Y-%m-%dT%H:%M:%S}")
    if told := _properties(suite):
        properties = ElementTree.SubElement(element, "properties")
        for name, value in told:
            ElementTree.SubElement(properties, "property", name=name, value=_clean(value))
    for check in suite.checks:
        element.append(_check(suite, check, content=report.content))
    for line in suite.lines:
        if line.check in suite.checks:
            continue
        name = f"{line.check.name} against {suite.baseline or 'the run before'}"
        if line.slice:
            name = f"{name} ({line.slice})"
        element.append(_check(suite, replace(line.check, name=name), content=report.content))
    for group, count in _unscored(suite).items():
        case = _case(suite, group)
        ElementTree.SubElement(case, "skipped", message=f"{count} of {len(suite.rows)} rows")
        element.append(case)
    _count(element)
    return element


def _properties(suite: SuiteReport) -> list[tuple[str, str]]:
    """Return what stands beside the checks; of judges, first those that nobody has calibrated."""
    told = [("uncalibrated judge", opinion(mark)) for mark in suite.judges if not mark.calibrated]
    told += [("judge", f"{mark.metric}: {mark.agreement}") for mark in suite.judges if mark.calibrated]
    told += [("rests on", suite.rests_on)] if suite.rests_on else []
    told += [("note", note) for note in notes(suite)]
    return told + ([("spent", spent(suite.spend))] if suite.spend else [])


def _unscored(suite: SuiteReport) -> Counter[str]:
    """Count the unscored rows by reason: once for a row without an answer, else once per metric."""
    groups: Counter[str] = Counter()
    for row in suite.rows:
        if row.failure:
            groups[f"no answer: {row.failure.reason}"] += 1
            continue
        for metric, score in row.scores.items():
            if score.state is State.UNSCORED:
                groups[f"{metric} unscored: {score.reason}"] += 1
    return groups


def _check(suite: SuiteReport, check: Check, *, content: bool) -> ElementTree.Element:
    case = _case(suite, check.name)
    message = _clean(
        suite.stopped.told(content=content) if suite.stopped and check.name == "run" else check.message
    )
    if check.outcome is Outcome.PASS:
        ElementTree.SubElement(case, "system-out").text = message
    elif check.outcome is Outcome.COULD_NOT_RUN:
        ElementTree.SubElement(case, "error", type=check.outcome.value, message=message)
    else:
        ElementTree.SubElement(case, "failure", type=check.outcome.value, message=message)
    return case


def _case(suite: SuiteReport, name: str) -> ElementTree.Element:
    return ElementTree.Element("testcase", classname=_clean(f"eval.{suite.name}"), name=_clean(name))


def _count(element: ElementTree.Element) -> None:
    counted = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    for attribute, tag in counted.items():
        element.set(attribute, str(sum(1 for _ in element.iter(tag))))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
