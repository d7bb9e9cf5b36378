"""Evaluation: run cases through any target, score them, and pass a verdict with an error bar.

Judges whatever it is handed (a callable, or a model's name behind a gateway) and knows neither rag,
nor classical, nor the gateway.
"""

from trilith_evals.case import Case, Output
from trilith_evals.face import arun, run
from trilith_evals.figure import Figure
from trilith_evals.gate import Check, Outcome, Threshold
from trilith_evals.means import Means
from trilith_evals.paid import Paid, paid
from trilith_evals.report import Report, Row, SuiteReport
from trilith_evals.score import Score, State, abstained, scored, unscored
from trilith_evals.scorer import BatchScorer, Scorer, SuiteMetric

__all__ = [
    "BatchScorer",
    "Case",
    "Check",
    "Figure",
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
    "abstained",
    "arun",
    "paid",
    "run",
    "scored",
    "unscored",
]
