"""What scoring costs, whether the numbers are the reference's, and how often patterns are right on real text.

`python -m bench.evals.scorers --data FOLDER [--peers FOLDER] [--only strings semantic refusal secrets]`

FOLDER holds `evals/mtrag_human/mtrag_human.jsonl` (IBM/mt-rag-benchmark, Apache-2.0),
`evals/halueval_general/general.jsonl.gz` (RUCAIBox/HaluEval, MIT) and
`governance/secrets/gitleaks_cases.jsonl` (gitleaks's own test cases, MIT). The peers live in
`venv-scorers` below --peers:

    uv venv --python 3.11 ~/.cache/trilith-bench/venv-scorers
    uv pip install --python ~/.cache/trilith-bench/venv-scorers/bin/python \
        sacrebleu==2.6.0 rouge-score==0.1.2 ragas==0.4.3 'langchain-community<0.4.2'

CPU seconds are those of the scoring alone: imports and the loading of a model are not in them.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gzip
import importlib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from bench.gateway.report import table

from trilith_evals import Case, Output
from trilith_evals.scorer import Scorer
from trilith_evals.scorers.overlap import Bleu, Chrf, Edit, Rouge
from trilith_evals.scorers.refusal import refuses
from trilith_evals.scorers.safety import SecretLeak
from trilith_evals.scorers.semantic import Semantic
from trilith_evals.scorers.text import Exact

Weights: TypeAlias = Counter[tuple[bool, bool]]

_STRINGS: dict[str, Scorer] = {
    "bleu": Bleu(),
    "chrf": Chrf(),
    "rouge1": Rouge("1"),
    "rouge2": Rouge("2"),
    "rougeL": Rouge("L"),
    "exact": Exact(),
    "edit": Edit(),
}


def rows_of(data: Path, name: str) -> Iterator[dict[str, Any]]:
    """Read one of the data sets, line by line."""
    file = data / name
    if not file.is_file():
        raise SystemExit(f"{file} is missing; --data wants the folder that holds {name}")
    raw = file.read_bytes()
    for line in (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode().splitlines():
        yield json.loads(line)


def answers(data: Path, count: int) -> list[tuple[str, str]]:
    """Return answers of models with the human reference: so many, each repeated as often as it takes."""
    pairs = [
        (row["response"], row["reference"])
        for row in rows_of(data, "evals/mtrag_human/mtrag_human.jsonl")
        if row["response"] != row["reference"]
    ]
    # A repeat is marked, so that nothing is found in a cache.
    return [
        (f"{pairs[at % len(pairs)][0]} {at}", f"{pairs[at % len(pairs)][1]} {at + 1}") for at in range(count)
    ]


def strings(data: Path, peers: Path, count: int) -> str:
    """Compare 1,000 rows of string metrics with the reference implementations and ragas."""
    rows = answers(data, count)
    python = peers / "venv-scorers" / "bin" / "python"
    theirs: dict[str, Any] = {"reference": {}, "ragas": {}, "versions": {}}
    if python.exists():
        script = Path(__file__).with_name("string_peers.py")
        done = subprocess.run(
            [str(python), "-P", str(script)],  # this folder has a `statistics` of its own
            input=json.dumps(rows),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "RAGAS_DO_NOT_TRACK": "true", "PYTHONPATH": ""},
        )
        theirs = json.loads(done.stdout)
    pairs = [(Case(str(at), "q", gold), Output(text=said)) for at, (said, gold) in enumerate(rows)]
    for scorer in _STRINGS.values():
        scorer(*pairs[0])  # numpy and rapidfuzz are imported

    def values_of(scorer: Scorer) -> list[float]:
        return [float(scorer(*pair).value) for pair in pairs]  # type: ignore[union-attr, arg-type]

    lines, total = [], dict.fromkeys(("ours", "reference", "ragas"), 0.0)
    for name, scorer in _STRINGS.items():
        spent, values = _timed(functools.partial(values_of, scorer))
        cells = [name, f"{spent:.3f}"]
        total["ours"] += spent
        for peer in ("reference", "ragas"):
            told = theirs[peer].get(name)
            cells.append(f"{told['cpu_s']:.3f}" if told else "-")
            total[peer] += told["cpu_s"] if told else 0.0
        truth = theirs["reference"].get(name)
        off = max(abs(a - b) for a, b in zip(values, truth["values"], strict=True)) if truth else None
        lines.append((*cells, "-" if off is None else f"{off:.0e}"))
    lines.append(("all", *(f"{total[who]:.3f}" for who in ("ours", "reference", "ragas")), ""))
    words = sum(len(text.split()) for row in rows for text in row) / len(rows) / 2
    head = ("metric", "ours (CPU s)", "reference (CPU s)", "ragas (CPU s)", "ours - reference, at most")
    said = ", ".join(f"{name} {version}" for name, version in theirs["versions"].items()) or "no peers found"
    return f"{len(rows):,} rows, {words:.0f} words a text; {said}\n\n{table(head, lines)}"


def semantic(data: Path, count: int = 60) -> str:
    """Compare batches of MiniLM with ragas's SemanticSimilarity over the same model, text by text."""
    rows = answers(data, count)
    short = [(" ".join(said.split()[:8]), " ".join(gold.split()[:8])) for said, gold in rows]
    head = ("rows", "who", "CPU s", "times ours", "difference, at most")
    return table(head, [*_semantic(rows, "whole answers"), *_semantic(short, "their first 8 words")])


def _semantic(rows: list[tuple[str, str]], what: str) -> list[tuple[str, ...]]:
    pairs = [(Case(str(at), "q", gold), Output(text=said)) for at, (said, gold) in enumerate(rows)]
    scorer = Semantic()
    scorer.score_all([(Case("0", "q", "a"), Output(text="b"))])  # the model is loaded
    module = importlib.import_module("trilith_evals.scorers.semantic")
    metrics = importlib.import_module("ragas.metrics.collections")
    base = importlib.import_module("ragas.embeddings.base").BaseRagasEmbedding

    class Same(base):  # type: ignore[misc, valid-type]  # ragas ships no types
        def embed_text(self, text: str, **_: Any) -> list[float]:
            vector: list[float] = module._model().encode([text], show_progress_bar=False)[0].tolist()
            return vector

        async def aembed_text(self, text: str, **_: Any) -> list[float]:
            return self.embed_text(text)

    metric = metrics.SemanticSimilarity(embeddings=Same())

    async def every() -> list[float]:
        return [float((await metric.ascore(reference=gold, response=said)).value) for said, gold in rows]

    spent, ours = _timed(lambda: [float(score.value) for score in scorer.score_all(pairs)])  # type: ignore[arg-type]
    theirs_spent, theirs = _timed(lambda: asyncio.run(every()))
    torch = importlib.import_module("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone_spent, _ = _timed(lambda: asyncio.run(every()))
    torch.set_num_threads(threads)
    off = max(abs(a - max(0.0, b)) for a, b in zip(ours, theirs, strict=True))
    named = f"{len(rows)} {what}"
    by_default = f"ragas, {threads} threads (as it comes)"
    return [
        (named, "ours", f"{spent:.2f}", "", f"{off:.0e}"),
        (named, by_default, f"{theirs_spent:.2f}", f"{theirs_spent / spent:.1f}", ""),
        (named, "ragas, one thread", f"{alone_spent:.2f}", f"{alone_spent / spent:.1f}", ""),
    ]


def refusal(data: Path) -> str:
    """Hold the patterns against answers of ChatGPT labelled by hand, weighted by what each stands for."""
    labelled = json.loads(Path(__file__).with_name("refusal_labels.json").read_text(encoding="utf-8"))
    texts = {
        row["ID"]: row["chatgpt_response"] for row in rows_of(data, "evals/halueval_general/general.jsonl.gz")
    }
    weights: Weights = Counter()
    count = 0
    for stratum in labelled["strata"]:
        share = stratum["stands_for"] / len(stratum["labels"])
        for name, truth in stratum["labels"].items():
            weights[truth, refuses(texts[name])] += share
            count += 1
    return _right(weights, f"{count} labelled of {len(texts):,} answers in English")


def secrets(data: Path) -> str:
    """Hold the patterns of secrets against gitleaks's own test cases.

    They are of 69 kinds, most of which the scorer does not claim. Those without a secret are chosen as hard:
    many are well-formed keys that a list of known harmless ones excuses, so that share says little.
    """
    scorer = SecretLeak()
    weights: Weights = Counter()
    rows = list(rows_of(data, "governance/secrets/gitleaks_cases.jsonl"))
    for row in rows:
        found = scorer(Case("1", ""), Output(text=row["text"])).value
        weights[bool(row["label"]), bool(found)] += 1
    return _right(weights, f"{len(rows)} strings")


def _right(weights: Weights, what: str) -> str:
    """Return precision and recall from (truth, found) to weight."""
    hits = weights[True, True]
    found, true = hits + weights[False, True], hits + weights[True, False]
    head = ("of", "precision", "recall", "wrongly found, of those without")
    wrongly = weights[False, True] / (weights[False, True] + weights[False, False])
    return table(head, [(what, f"{hits / found:.2f}", f"{hits / true:.2f}", f"{wrongly:.3f}")])


def _timed(work: Callable[[], list[float]]) -> tuple[float, list[float]]:
    started = time.process_time()
    values = work()
    return time.process_time() - started, values


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "trilith-bench")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=("strings", "semantic", "refusal", "secrets"))
    given = parser.parse_args()
    parts: dict[str, Callable[[], str]] = {
        "strings": lambda: strings(given.data, given.peers, given.rows),
        "semantic": lambda: semantic(given.data),
        "refusal": lambda: refusal(given.data),
        "secrets": lambda: secrets(given.data),
    }
    for name, part in parts.items():
        if given.only is None or name in given.only:
            print(f"## {name}\n\n{part()}\n", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
