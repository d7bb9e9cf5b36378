"""What a scorer is, and how one is made from its name in a suite file.

Three shapes: a `Scorer` judges one case, a `BatchScorer` judges all of them in one go (embedding models
want that), a `SuiteMetric` is one figure over the whole suite (R2 has no value for a single row).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from trilith.errors import MissingExtra, SettingsError
from trilith_evals.case import Case, Output
from trilith_evals.score import Score

GROUP = "trilith.scorers"
"""Entry-point group for scorers of other distributions: name to a factory that takes the params."""

Scorer: TypeAlias = Callable[[Case, Output], "Score | float | Awaitable[Score | float]"]
"""Judges one case. A plain number or bool counts as a scored value.

Its metric is called by its attribute `name`, or else by its `__name__`. An attribute
`higher_is_better = False` turns the order of the worst cases round.
"""


@runtime_checkable
class BatchScorer(Protocol):
    """Judges all cases of a suite in one call."""

    @property
    def name(self) -> str:
        """The metric's name."""
        ...

    def score_all(self, pairs: Sequence[tuple[Case, Output]]) -> Sequence[Score]:
        """Return one score per pair, in order. Blocking; called in a thread of its own."""
        ...


@runtime_checkable
class SuiteMetric(Protocol):
    """One figure over the whole suite, made from (truth, prediction) pairs."""

    @property
    def name(self) -> str:
        """The metric's name."""
        ...

    def pair(self, case: Case, output: Output) -> tuple[Any, Any]:
        """Return truth and prediction of one case.

        Raises:
            ValueError: one of them is missing or of the wrong type; the row is then unscored.
        """
        ...

    def loss(self, truth: Any, predicted: Any) -> float:
        """Return how wrong one prediction is, larger is worse; shown per row, never averaged."""
        ...

    def value(self, truths: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Return the figure. Called on resampled pairs too.

        Raises:
            ValueError: it is undefined for these pairs (ROC AUC with one class).
        """
        ...


AnyScorer: TypeAlias = Scorer | BatchScorer | SuiteMetric

_BUILT_IN: Mapping[str, str] = {
    "exact": "trilith_evals.scorers.text:Exact",
    "match": "trilith_evals.scorers.text:Match",
    "contains": "trilith_evals.scorers.text:Contains",
    "regex": "trilith_evals.scorers.text:Regex",
    "number": "trilith_evals.scorers.text:Number",
    "f1": "trilith_evals.scorers.text:F1",
    "edit": "trilith_evals.scorers.overlap:Edit",
    "bleu": "trilith_evals.scorers.overlap:Bleu",
    "corpus_bleu": "trilith_evals.scorers.overlap:CorpusBleu",
    "chrf": "trilith_evals.scorers.overlap:Chrf",
    "rouge": "trilith_evals.scorers.overlap:Rouge",
    "json_schema": "trilith_evals.scorers.structure:JsonSchema",
    "tool_calls": "trilith_evals.scorers.structure:ToolCalls",
    "sql": "trilith_evals.scorers.sql:Sql",
    "pii_leak": "trilith_evals.scorers.safety:PiiLeak",
    "secret_leak": "trilith_evals.scorers.safety:SecretLeak",
    "injection": "trilith_evals.scorers.safety:Injection",
    "refusal": "trilith_evals.scorers.refusal:Refusal",
    "latency": "trilith_evals.scorers.text:Latency",
    "latency_quantile": "trilith_evals.scorers.economy:LatencyQuantile",
    "cost": "trilith_evals.scorers.economy:Cost",
    "tokens": "trilith_evals.scorers.economy:Tokens",
    "semantic": "trilith_evals.scorers.semantic:Semantic",
    "recall": "trilith_evals.scorers.retrieval:Recall",
    "mrr": "trilith_evals.scorers.retrieval:Mrr",
    "ndcg": "trilith_evals.scorers.retrieval:Ndcg",
    "precision": "trilith_evals.scorers.retrieval:Precision",
    "map": "trilith_evals.scorers.retrieval:AveragePrecision",
    "hit": "trilith_evals.scorers.retrieval:Hit",
    "r_precision": "trilith_evals.scorers.retrieval:RPrecision",
    "cited": "trilith_evals.scorers.retrieval:Cited",
    "supported": "trilith_evals.scorers.retrieval:Supported",
    "faithful": "trilith_evals.scorers.faithful:Faithful",
    "ragas": "trilith_evals.scorers.ragas_metric:Ragas",
    "judge": "trilith_evals.judging.scorer:JudgeScorer",
    "mae": "trilith_evals.scorers.predictor:Mae",
    "rmse": "trilith_evals.scorers.predictor:Rmse",
    "r2": "trilith_evals.scorers.predictor:R2",
    "accuracy": "trilith_evals.scorers.predictor:Accuracy",
    "roc_auc": "trilith_evals.scorers.predictor:RocAuc",
    "mape": "trilith_evals.scorers.regression:Mape",
    "smape": "trilith_evals.scorers.regression:Smape",
    "medae": "trilith_evals.scorers.regression:MedianError",
    "pinball": "trilith_evals.scorers.regression:Pinball",
    "class_precision": "trilith_evals.scorers.classes:ClassPrecision",
    "class_recall": "trilith_evals.scorers.classes:ClassRecall",
    "class_f1": "trilith_evals.scorers.classes:ClassF1",
    "balanced_accuracy": "trilith_evals.scorers.classes:BalancedAccuracy",
    "mcc": "trilith_evals.scorers.classes:Mcc",
    "pr_auc": "trilith_evals.scorers.probability:PrAuc",
    "log_loss": "trilith_evals.scorers.probability:LogLoss",
    "brier": "trilith_evals.scorers.probability:Brier",
    "calibration_error": "trilith_evals.scorers.probability:CalibrationError",
    "calibration_slope": "trilith_evals.scorers.probability:CalibrationSlope",
    "calibration_intercept": "trilith_evals.scorers.probability:CalibrationIntercept",
    "parity_gap": "trilith_evals.scorers.fairness:ParityGap",
    "parity_ratio": "trilith_evals.scorers.fairness:ParityRatio",
    "opportunity_gap": "trilith_evals.scorers.fairness:OpportunityGap",
    "odds_gap": "trilith_evals.scorers.fairness:OddsGap",
    "worst_group_accuracy": "trilith_evals.scorers.fairness:WorstGroup",
}


def built_in() -> Mapping[str, str]:
    """Return the built-in scorers: name to `module:attribute`."""
    return _BUILT_IN


def metric_name(scorer: AnyScorer) -> str:
    """Return the name of the metric that a scorer makes."""
    named = getattr(scorer, "name", None) or getattr(scorer, "__name__", None)
    return str(named) if named else type(scorer).__name__


def higher_is_better(scorer: AnyScorer) -> bool:
    """Say whether a larger score is a better one."""
    return bool(getattr(scorer, "higher_is_better", True))


def connect(scorers: Iterable[AnyScorer], base_url: str | None, api_key: str | None) -> None:
    """Tell the scorers that ask models where the run's target is; they ask there unless told otherwise."""
    for scorer in scorers:
        if (tell := getattr(scorer, "connect", None)) is not None:
            tell(base_url, api_key)


def require(*modules: str) -> None:
    """Refuse a scorer whose libraries are not installed when it is made, not after the calls are paid for.

    Raises:
        MissingExtra: one of the modules cannot be found. Nothing is imported.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(f"{module} is not installed; it comes with: pip install 'trilith[evals]'")


def build(name: str, params: Mapping[str, Any], folder: Path | None = None) -> AnyScorer:
    """Make a scorer by name, built in or of another distribution.

    Args:
        name: Its name.
        params: What it takes.
        folder: What the params that are files count from (a factory names those in `paths`); None: as they
        are.

    Raises:
        SettingsError: no such scorer, or it does not take these params.
        MissingExtra: it needs a library that is not installed.
    """
    factory = _factory(name)
    accepted = list(inspect.signature(factory).parameters)
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    checked: dict[str, Any] = {}
    for key, value in params.items():
        if key not in accepted:
            takes = ", ".join(accepted) or "no params"
            raise SettingsError(f"params.{key}: the scorer {name!r} does not take it, expected {takes}")
        checked[key] = _of_type(f"params.{key}", value, hints[key]) if key in hints else value
        if folder is not None and key in getattr(factory, "paths", ()) and checked[key] is not None:
            checked[key] = str(folder / checked[key])
    try:
        scorer: AnyScorer = factory(**checked)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"params: the scorer {name!r} refused them: {error}") from error
    return scorer


def _factory(name: str) -> Callable[..., Any]:
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return factory
    foreign = _foreign()
    if name not in foreign:
        names = ", ".join(sorted({*_BUILT_IN, *foreign}))
        raise SettingsError(f"scorer: {name!r} is not known, expected one of {names}")
    loaded: Callable[..., Any] = foreign[name].load()
    return loaded


@functools.cache
def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _of_type(key: str, value: Any, hint: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise SettingsError(f"{key} is {value!r}: {error.errors()[0]['msg'].lower()}") from None
