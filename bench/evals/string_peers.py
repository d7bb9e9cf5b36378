"""The reference implementations and ragas on rows from standard input, for `bench.evals.scorers`.

Runs in the peers' venv and knows nothing of Trilith. Reads a JSON list of [answer, expected]; writes, by peer
and metric, the CPU seconds and the values.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Rows = Sequence[tuple[str, str]]


def reference(rows: Rows) -> dict[str, Any]:
    """Return the reference implementations' values between 0 and 1, with every scorer built once."""
    metrics = importlib.import_module("sacrebleu.metrics")
    rouge = importlib.import_module("rouge_score.rouge_scorer")
    bleu, chrf = metrics.BLEU(effective_order=True), metrics.CHRF()
    scorers = {kind: rouge.RougeScorer([kind]) for kind in ("rouge1", "rouge2", "rougeL")}
    found = {
        "bleu": _timed(lambda: [bleu.sentence_score(said, [gold]).score / 100 for said, gold in rows]),
        "chrf": _timed(lambda: [chrf.sentence_score(said, [gold]).score / 100 for said, gold in rows]),
    }

    def rouges(kind: str) -> list[float]:
        return [float(scorers[kind].score(gold, said)[kind].fmeasure) for said, gold in rows]

    for kind in scorers:
        found[kind] = _timed(functools.partial(rouges, kind))
    return found


def ragas(rows: Rows) -> dict[str, Any]:
    """Return ragas's values of its metrics without a language model (its ROUGE stems)."""
    metrics = importlib.import_module("ragas.metrics.collections")
    made = {
        "bleu": metrics.BleuScore(),
        "chrf": metrics.CHRFScore(),
        "rougeL": metrics.RougeScore(rouge_type="rougeL"),
        "exact": metrics.ExactMatch(),
        "edit": metrics.NonLLMStringSimilarity(),
    }

    async def every(score: Callable[..., Awaitable[Any]]) -> list[float]:
        return [float((await score(reference=gold, response=said)).value) for said, gold in rows]

    def finished(score: Callable[..., Awaitable[Any]]) -> list[float]:
        return asyncio.run(every(score))

    return {name: _timed(functools.partial(finished, metric.ascore)) for name, metric in made.items()}


def _timed(work: Callable[[], list[float]]) -> dict[str, Any]:
    started = time.process_time()
    values = work()
    return {"cpu_s": time.process_time() - started, "values": values}


def main() -> None:
    """Read rows, write what each peer made of them."""
    rows = json.load(sys.stdin)
    names = ("sacrebleu", "rouge-score", "ragas")
    versions = {name: importlib.import_module("importlib.metadata").version(name) for name in names}
    json.dump({"versions": versions, "reference": reference(rows), "ragas": ragas(rows)}, sys.stdout)


if __name__ == "__main__":
    main()
