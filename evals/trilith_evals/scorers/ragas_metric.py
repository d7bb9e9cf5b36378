"""A thin adapter for ragas metrics that need no language model.

ragas reports what it could not judge as NaN, or raises and loses the batch; here every such row is
unscored with a reason. ragas's usage tracking is switched off before it is imported.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from trilith.errors import TrilithError
from trilith.extras import need
from trilith_evals.case import Case, Output
from trilith_evals.score import Score, scored, unscored
from trilith_evals.scorer import require

RagasMetric: TypeAlias = Literal[
    "NonLLMStringSimilarity",
    "ExactMatch",
    "StringPresence",
    "NonLLMContextRecall",
    "NonLLMContextPrecisionWithReference",
]

_LEGACY = {
    # The collections module has no twin of these two without a language model (ragas 0.4.3).
    "NonLLMContextRecall": "ragas.metrics._context_recall",
    "NonLLMContextPrecisionWithReference": "ragas.metrics._context_precision",
}


class Ragas:
    """One ragas metric, fed from the case and the output.

    `response` is the answer (or what it cites), `reference` the first expected answer, `user_input` the
    case's input, `retrieved_contexts` the citations' quotes, `reference_contexts` a column of the dataset.
    """

    def __init__(
        self,
        metric: RagasMetric = "NonLLMStringSimilarity",
        response: Literal["answer", "citations"] = "answer",
        reference_contexts: str = "evidence",
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Name the metric; nothing is imported yet.

        Args:
            metric: ragas's name of the metric.
            response: What is judged as the response: the answer's text, or the text of all its citations.
            reference_contexts: Column with the gold passage, or a list of them.
            settings: Keyword arguments for the metric's constructor, such as `threshold`.
        """
        require("ragas")
        self._metric = metric
        self._response = response
        self._column = reference_contexts
        self._settings = dict(settings or {})

    @property
    def name(self) -> str:
        """The metric's name, `ragas:` before ragas's own."""
        return f"ragas:{self._metric}"

    def score_all(self, pairs: Sequence[tuple[Case, Output]]) -> list[Score]:
        """Score all cases, one after the other, on an event loop of their own."""
        judge, wanted = self._load()

        async def each() -> list[Score]:
            return [await _judged(judge, self._sample(case, output), wanted) for case, output in pairs]

        return asyncio.run(each())

    def _sample(self, case: Case, output: Output) -> dict[str, Any]:
        contexts = case.fields.get(self._column)
        quotes = [citation.quote for citation in output.citations]
        sample: dict[str, Any] = {
            "user_input": case.input if isinstance(case.input, str) else None,
            "response": output.text if self._response == "answer" else "\n".join(quotes),
            "reference": case.golds[0] if case.golds else None,
            # ragas takes the maximum over an empty list and raises; an empty passage resembles nothing.
            "retrieved_contexts": quotes or [""],
            "reference_contexts": [contexts] if isinstance(contexts, str) else contexts,
        }
        return {key: value for key, value in sample.items() if value is not None and value != []}

    def _load(self) -> tuple[Callable[[dict[str, Any]], Awaitable[float]], frozenset[str]]:
        os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")
        if self._metric in _LEGACY:
            metric = _made(getattr(need(_LEGACY[self._metric], extra="evals"), self._metric), self._settings)
            sample_class = need("ragas", extra="evals").SingleTurnSample

            async def judge_sample(sample: dict[str, Any]) -> float:
                return float(await metric.single_turn_ascore(sample_class(**sample)))

            return judge_sample, frozenset({"retrieved_contexts", "reference_contexts"})
        modern = _made(
            getattr(need("ragas.metrics.collections", extra="evals"), self._metric), self._settings
        )

        async def judge_modern(sample: dict[str, Any]) -> float:
            return float((await modern.ascore(**sample)).value)

        return judge_modern, frozenset(inspect.signature(modern.ascore).parameters)


def _made(metric: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    try:
        return metric(**settings)
    except (TypeError, ValueError) as error:
        raise TrilithError(f"ragas refused the metric's settings {dict(settings)!r}: {error}") from error


async def _judged(
    judge: Callable[[dict[str, Any]], Awaitable[float]], sample: dict[str, Any], wanted: frozenset[str]
) -> Score:
    missing = sorted(wanted - sample.keys())
    if missing:
        return unscored(f"ragas needs {', '.join(missing)}, which the case does not have")
    try:
        value = await judge({key: sample[key] for key in wanted})
    except Exception as error:  # ragas lets errors of every kind through; the row says which
        return unscored(f"ragas raised {type(error).__name__}", detail=str(error))
    return unscored("ragas gave NaN") if math.isnan(value) else scored(value)
