"""A thin adapter for ragas metrics, with and without a language model.

ragas reports what it could not judge as NaN, or raises and loses the batch, asks without any limit, and waits
without end; here every such row is unscored with a reason and what it cost, so many rows are under way at a
time, and each has a deadline. ragas's usage tracking is switched off before it is imported. Nothing that
ragas deprecates is called where it has a successor, and no event loop is patched.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from trilith.errors import MissingExtra, SettingsError, TrilithError
from trilith.extras import need
from trilith_evals.case import Case, Output
from trilith_evals.purse import place, under_purse
from trilith_evals.score import Score, scored, unscored
from trilith_evals.scorer import require
from trilith_evals.scorers.ragas_model import Embeddings, Endpoint, of_infrastructure
from trilith_evals.scorers.ragas_wire import metered
from trilith_evals.scorers.semantic import TextEmbedder

RagasMetric: TypeAlias = Literal[
    # without a model
    "NonLLMStringSimilarity",
    "ExactMatch",
    "StringPresence",
    "BleuScore",
    "RougeScore",
    "CHRFScore",
    "QuotedSpansAlignment",
    "DataCompyScore",
    "NonLLMContextRecall",
    "NonLLMContextPrecisionWithReference",
    # with embeddings only
    "SemanticSimilarity",
    # with a language model
    "AnswerAccuracy",
    "AnswerCorrectness",
    "AnswerRelevancy",
    "ContextEntityRecall",
    "ContextPrecision",
    "ContextPrecisionWithReference",
    "ContextPrecisionWithoutReference",
    "ContextRecall",
    "ContextRelevance",
    "ContextUtilization",
    "DomainSpecificRubrics",
    "FactualCorrectness",
    "Faithfulness",
    "InstanceSpecificRubrics",
    "NoiseSensitivity",
    "ResponseGroundedness",
    "SQLSemanticEquivalence",
    "SummaryScore",
]

_LEGACY = {
    # The collections module has no twin of these two without a language model (ragas 0.4.3).
    "NonLLMContextRecall": "ragas.metrics._context_recall",
    "NonLLMContextPrecisionWithReference": "ragas.metrics._context_precision",
}
_LIBRARIES = {
    # ragas says so only in the middle of the run.
    "NonLLMStringSimilarity": "rapidfuzz",
    "BleuScore": "sacrebleu",
    "CHRFScore": "sacrebleu",
    "RougeScore": "rouge_score",
    "DataCompyScore": "datacompy",
}
_EMBEDDING = ("SemanticSimilarity", "AnswerCorrectness", "AnswerRelevancy")
_NO_LLM = frozenset(
    {*_LEGACY, *_LIBRARIES, "ExactMatch", "StringPresence", "QuotedSpansAlignment", "SemanticSimilarity"}
)

Judge: TypeAlias = Callable[[dict[str, Any]], Awaitable[float]]


class Ragas:
    """One ragas metric, fed from the case and the output.

    `response` is the answer (or what it cites), `reference` the first expected answer, `user_input` the
    case's input, `retrieved_contexts` the citations' quotes, `reference_contexts` a column of the dataset.
    Metrics with a language model ask it through any OpenAI-compatible server, the gateway among them; what
    the gateway says that a call cost is counted on the row. Within a run every call is under the run's cap,
    pace and retries, and in its journal and cache. Embeddings are MiniLM's.
    """

    def __init__(
        self,
        metric: RagasMetric = "NonLLMStringSimilarity",
        response: Literal["answer", "citations"] = "answer",
        reference_contexts: str = "evidence",
        settings: dict[str, Any] | None = None,
        columns: dict[str, str] | None = None,
        model: str | None = None,
        base_url: str | None = None,
        api_key_env: str = "TRILITH_API_KEY",
        concurrency: int = 8,
        timeout_s: float = 120.0,
        max_retries: int = 2,
        max_tokens: int = 1024,
        *,
        embedder: TextEmbedder | None = None,
    ) -> None:
        """Name the metric; nothing is imported yet.

        Args:
            metric: ragas's name of the metric.
            response: What is judged as the response: the answer's text, or the text of all its citations.
            reference_contexts: Column with the gold passage, or a list of them.
            settings: Keyword arguments for the metric's constructor, such as `threshold`.
            columns: From a name of ragas to a column of the dataset, in place of what is said above, such as
                `{"retrieved_contexts": "contexts"}`.
            model: The judging model, for metrics that have one.
            base_url: Its server; TRILITH_BASE_URL when None.
            api_key_env: Environment variable with the key.
            concurrency: Rows under way at a time.
            timeout_s: Longest time for one row, its retries included, and for one call (seconds); within a
                run, for one call.
            max_retries: Tries of one call after the first that failed on the network or with 429 or 5xx;
                within a run, the run's.
            max_tokens: Longest answer of the judge; one cut short is no valid JSON and is asked again.
            embedder: Anything that embeds, instead of MiniLM.
        """
        require("ragas", *([_LIBRARIES[metric]] if metric in _LIBRARIES else ()))
        if (model is None) != (metric in _NO_LLM):
            need_not = "asks no language model, expected no model" if model else "needs params.model"
            raise SettingsError(f"params.metric: {metric} {need_not}")
        if concurrency < 1 or timeout_s <= 0 or max_retries < 0:
            raise ValueError("concurrency must be 1 or more, timeout_s above 0, max_retries 0 or more")
        self._metric = metric
        self._response = response
        self._column = reference_contexts
        self._settings = dict(settings or {})
        self._columns = dict(columns or {})
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._embeddings = Embeddings(embedder) if metric in _EMBEDDING else None
        self._endpoint = (
            Endpoint(model, base_url, api_key_env, timeout_s, max_retries, max_tokens) if model else None
        )
        self._client: Any = None

    @property
    def name(self) -> str:
        """The metric's name, `ragas:` before ragas's own."""
        return f"ragas:{self._metric}"

    def connect(self, base_url: str | None, api_key: str | None) -> None:
        """Say where the run's server is, for a judge of which no server is named."""
        if self._endpoint is not None and self._endpoint.base_url is None:
            self._endpoint = replace(self._endpoint, base_url=base_url, api_key=api_key)

    def score_all(self, pairs: Sequence[tuple[Case, Output]]) -> list[Score]:
        """Score all cases on an event loop of their own, `concurrency` at a time."""
        judge, wanted = self._load()
        samples = [self._sample(case, output) for case, output in pairs]
        if self._embeddings is not None:
            texts = (sample.get(key) for sample in samples for key in ("response", "reference", "user_input"))
            self._embeddings.prepare([text for text in texts if isinstance(text, str) and text])
        places = _places(pairs)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._each(judge, samples, wanted, places))
        with ThreadPoolExecutor(1) as pool:  # called from a loop, in a notebook: that one is left alone
            return pool.submit(asyncio.run, self._each(judge, samples, wanted, places)).result()

    async def _each(
        self,
        judge: Judge,
        samples: Sequence[dict[str, Any]],
        wanted: frozenset[str],
        places: Sequence[tuple[str, int]],
    ) -> list[Score]:
        free = asyncio.Semaphore(self._concurrency)
        # A run bounds every call, without the wait for its turn, which may be long.
        timeout_s = None if under_purse() else self._timeout_s

        async def one(sample: dict[str, Any], at: tuple[str, int]) -> Score:
            async with free:
                with metered() as meter, place(*at):
                    score = await _judged(judge, sample, wanted, timeout_s)
                if meter.refused and score.value is None:
                    score = unscored(str(meter.refused), infrastructure=True)
                return replace(score, cost_pico_usd=meter.cost_pico_usd)

        try:
            return list(await asyncio.gather(*map(one, samples, places)))
        finally:
            if self._client is not None:
                await self._client.close()
                self._client = None

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
        for key, column in self._columns.items():
            value = case.fields.get(column)
            sample[key] = [value] if key.endswith("contexts") and isinstance(value, str) else value
        return {key: value for key, value in sample.items() if value is not None and value != []}

    def _load(self) -> tuple[Judge, frozenset[str]]:
        os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")
        if self._metric in _LEGACY:
            metric = _made(getattr(_ragas(_LEGACY[self._metric]), self._metric), self._settings)
            sample_class = _ragas("ragas").SingleTurnSample

            async def judge_sample(sample: dict[str, Any]) -> float:
                return float(await metric.single_turn_ascore(sample_class(**sample)))

            return judge_sample, frozenset({"retrieved_contexts", "reference_contexts"})
        kind = getattr(_ragas("ragas.metrics.collections"), self._metric, None) or getattr(
            _ragas("ragas.metrics.collections.quoted_spans"), self._metric
        )
        modern = _made(kind, self._settings | self._models())
        accepted = inspect.signature(modern.ascore).parameters

        async def judge_modern(sample: dict[str, Any]) -> float:
            given = {key: value for key, value in sample.items() if key in accepted}
            return float((await modern.ascore(**given)).value)

        return judge_modern, frozenset(k for k, p in accepted.items() if p.default is inspect.Parameter.empty)

    def _models(self) -> dict[str, Any]:
        models: dict[str, Any] = {}
        if self._endpoint is not None:
            self._client = self._endpoint.client()
            models["llm"] = self._endpoint.llm(self._client)
        if self._embeddings is not None:
            models["embeddings"] = self._embeddings.for_ragas()
        return models


def _places(pairs: Sequence[tuple[Case, Output]]) -> list[tuple[str, int]]:
    """Return case and repeat of each row: a case that comes again is its next repeat."""
    seen: Counter[str] = Counter()
    places = []
    for case, _ in pairs:
        places.append((case.id, seen[case.id]))
        seen[case.id] += 1
    return places


def _ragas(module: str) -> Any:
    """Import a part of ragas.

    Raises:
        MissingExtra: it is not there, or a library beneath it does not fit.
    """
    try:
        return need(module, extra="evals")
    except ImportError as error:
        fits = ", ragas 0.4.3 needs langchain-community<0.4.2" if "langchain" in str(error) else ""
        raise MissingExtra(
            f"ragas cannot be imported ({error}){fits}; what fits comes with: pip install 'trilith[evals]'"
        ) from error


def _made(metric: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    try:
        return metric(**settings)
    except (TypeError, ValueError) as error:
        own = {key: value for key, value in settings.items() if key not in ("llm", "embeddings")}
        raise TrilithError(f"ragas refused the metric's settings {own!r}: {error}") from error


async def _judged(
    judge: Judge, sample: dict[str, Any], wanted: frozenset[str], timeout_s: float | None
) -> Score:
    missing = sorted(wanted - sample.keys())
    if missing:
        return unscored(f"ragas needs {', '.join(missing)}, which the case does not have")
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            value = await judge(sample)
    except Exception as error:  # ragas lets errors of every kind through; the row says which
        if isinstance(error, TimeoutError) and deadline.expired():
            return unscored(f"ragas gave no score within {timeout_s:g} s", infrastructure=True)
        return unscored(
            f"ragas raised {type(error).__name__}",
            detail=str(error),
            infrastructure=of_infrastructure(error),
        )
    return unscored("ragas gave NaN") if math.isnan(value) else scored(value)
