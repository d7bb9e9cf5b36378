"""Runs of suites as `trilith eval run --json` writes them, judged for real by a function."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import trilith_evals as evals
from trilith_evals.dataset import Columns

ROWS = [
    {"id": f"q-{i}", "input": f"capital {i}?", "expected": f"city {i}", "lang": "de" if i % 3 else "en"}
    for i in range(60)
]


def told(
    wrong: Collection[int] = (),
    *,
    suite: str = "capitals",
    target: str = "support",
    releases: tuple[str, ...] = (),
    content: bool = True,
    word: str = "",
) -> dict[str, Any]:
    """Return a run in which the questions of these numbers were answered wrong, as plain JSON values."""

    def answer(question: str) -> str:
        number = int(question.split()[1][:-1])
        return f"{word} town {number}" if number in wrong else f"{word} city {number}"

    report = evals.run(
        answer,
        ROWS,
        ["contains"],
        name=suite,
        columns=Columns(tags=("lang",)),
        thresholds=[evals.Threshold("contains", min=0.5)],
    )
    suites = tuple(replace(one, target=target, task="chat", releases=releases) for one in report.suites)
    whole = replace(report, suites=suites, content=content)
    plain: dict[str, Any] = json.loads(json.dumps(whole.to_json()))
    return plain


FINDING = {
    "monitor": "bikes",
    "kind": "alarm",
    "source": "performance",
    "subject": "mae",
    "start": 1000.0,
    "end": 2000.0,
    "message": "worse than in the reference",
    "value": 4.5,
    "n": 120,
}
"""A line of `trilith eval monitor`."""
