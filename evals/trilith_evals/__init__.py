"""Evaluation: run cases through any target, score them, and pass a verdict with an error bar.

Judges whatever it is handed (a callable, or a model's name behind a gateway) and knows neither rag,
nor classical, nor the gateway.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trilith_evals.case import Case, Output, ToolCall
    from trilith_evals.face import arun, run
    from trilith_evals.figure import Figure
    from trilith_evals.gate import Check, Gate, Outcome, Threshold
    from trilith_evals.means import Means
    from trilith_evals.purse import Paid, paid
    from trilith_evals.report import Report, Row, SuiteReport
    from trilith_evals.score import Score, State, abstained, scored, unscored
    from trilith_evals.scorer import BatchScorer, Scorer, SuiteMetric

__all__ = [
    "BatchScorer",
    "Case",
    "Check",
    "Figure",
    "Gate",
    "Means",
    "Outcome",
    "Output",
    "Paid",
    "Report",
    "Row",
    "Score",
    "Scorer",
    "State",
    "SuiteMetric",
    "SuiteReport",
    "Threshold",
    "ToolCall",
    "abstained",
    "arun",
    "paid",
    "run",
    "scored",
    "unscored",
]

# Looked up when first used: pytest imports this package in every session of whoever has it installed, for
# the plugin's sake, and that must cost nothing where no test is an evaluation.
_HOMES = {
    "BatchScorer": "trilith_evals.scorer",
    "Case": "trilith_evals.case",
    "Check": "trilith_evals.gate",
    "Figure": "trilith_evals.figure",
    "Gate": "trilith_evals.gate",
    "Means": "trilith_evals.means",
    "Outcome": "trilith_evals.gate",
    "Output": "trilith_evals.case",
    "Paid": "trilith_evals.purse",
    "Report": "trilith_evals.report",
    "Row": "trilith_evals.report",
    "Score": "trilith_evals.score",
    "Scorer": "trilith_evals.scorer",
    "State": "trilith_evals.score",
    "SuiteMetric": "trilith_evals.scorer",
    "SuiteReport": "trilith_evals.report",
    "Threshold": "trilith_evals.gate",
    "ToolCall": "trilith_evals.case",
    "abstained": "trilith_evals.score",
    "arun": "trilith_evals.face",
    "paid": "trilith_evals.purse",
    "run": "trilith_evals.face",
    "scored": "trilith_evals.score",
    "unscored": "trilith_evals.score",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found
