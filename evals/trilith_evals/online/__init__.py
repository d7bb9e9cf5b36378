"""Evaluation of what runs: production traffic in windows, drift, performance with late labels, and alarms.

Drift alone is a notice. An alarm needs a loss of performance, seen or estimated, or a condition that the
user has stated; how many alarms may be false is a budget per 30 days.
"""

from trilith.extras import need

need("numpy", extra="evals")

from trilith_evals.online.finding import Finding, Kind  # noqa: E402
from trilith_evals.online.monitor import Monitor  # noqa: E402
from trilith_evals.online.record import Record, Reference, Window  # noqa: E402
from trilith_evals.online.sampling import DailyBudget, OnlineScorer, Sampler  # noqa: E402
from trilith_evals.online.setting import MonitorSettings  # noqa: E402

__all__ = [
    "DailyBudget",
    "Finding",
    "Kind",
    "Monitor",
    "MonitorSettings",
    "OnlineScorer",
    "Record",
    "Reference",
    "Sampler",
    "Window",
]
