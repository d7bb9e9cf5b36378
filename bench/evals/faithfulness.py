"""Does a faithfulness score without a language model rank answers as people do?

`python -m bench.evals.faithfulness --data mtrag_human.jsonl [--resamples 2000] [--seed 1]` reads MTRAG's
answers with three human ratings each (Katsis et al. 2025) and prints the Spearman correlation of `faithful`,
and of the scores that the file records, with the mean rating. Intervals draw whole conversations. The
conversations' ids in order, every other one from the first on, are the half on which the scorer's constants
were chosen; the figure to believe is that of the other half.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from bench.gateway.report import table

from trilith_evals.case import Case, Output
from trilith_evals.score import Score, State
from trilith_evals.scorers.faithful import Faithful

_RECORDED = ("Bert-KPrec", "rl_f", "rb_agg", "RougeL", "Bert-Rec", "rb_llm")
_NO_CLAIM = 0.5
"""Where an answer without a claim stands in a ranking of all rows; the scorer itself abstains."""

Row = Mapping[str, Any]


def read(path: Path) -> list[Row]:
    """Return the rated answers.

    Raises:
        SystemExit: there is no such file.
    """
    if not path.is_file():
        raise SystemExit(f"--data {path}: no such file; expected MTRAG's human ratings, one answer a line")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def judged(rows: Sequence[Row]) -> tuple[list[Score], float]:
    """Return the scorer's scores, and its CPU time per row without the loading (milliseconds)."""
    scorer = Faithful()
    pairs = [
        (
            Case(f"{row['id']}/{row['model']}", "", fields={"contexts": row["contexts"]}),
            Output(row["response"]),
        )
        for row in rows
    ]
    Faithful().score_all(pairs[:1])  # loads the model
    began = time.process_time()
    scores = scorer.score_all(pairs)
    return scores, (time.process_time() - began) / len(rows) * 1000


def ranks(values: Sequence[float]) -> Any:
    """Return ranks; values that tie share their mean rank."""
    _, where, counts = numpy.unique(numpy.asarray(values, float), return_inverse=True, return_counts=True)
    return (numpy.cumsum(counts) - (counts - 1) / 2)[where]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's correlation; NaN where one of them does not vary."""
    a, b = ranks(first), ranks(second)
    if a.std() == 0 or b.std() == 0:
        return math.nan
    return float(numpy.corrcoef(a, b)[0, 1])


def interval(
    score: Sequence[float], human: Sequence[float], clusters: Sequence[str], resamples: int, seed: int
) -> tuple[float, float]:
    """Return the 95 % percentile interval of Spearman's correlation; whole clusters are drawn."""
    names = sorted(set(clusters))
    members = [numpy.flatnonzero(numpy.asarray(clusters) == name) for name in names]
    one, other = numpy.asarray(score, float), numpy.asarray(human, float)
    generator = numpy.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        at = numpy.concatenate([members[i] for i in generator.integers(len(names), size=len(names))])
        drawn.append(spearman(one[at], other[at]))
    low, high = numpy.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def rating(row: Row) -> float:
    """Return the mean of the ratings of faithfulness: three, of a few answers two."""
    given = row["human"]["faithfulness"]
    return float(sum(given) / len(given))


def ceiling(rows: Sequence[Row]) -> float:
    """Return how well one rater agrees with the mean of the other two; answers with three ratings only."""
    ratings = [three for row in rows if len(three := row["human"]["faithfulness"]) == 3]
    found = []
    for one in range(3):
        rest = [(sum(three) - three[one]) / 2 for three in ratings]
        found.append(spearman([three[one] for three in ratings], rest))
    return sum(found) / len(found)


def correlations(rows: Sequence[Row], scores: Sequence[Score], resamples: int, seed: int) -> str:
    """Return the table of all scores over all selections of rows."""
    conversations = sorted({row["conversation"] for row in rows})
    design = set(conversations[::2])
    selections: dict[str, Callable[[Row, Score], bool]] = {
        "other half": lambda row, _: row["conversation"] not in design,
        "design half": lambda row, _: row["conversation"] in design,
        "all": lambda row, _: True,
        "all, without the references": lambda row, _: row["model"] != "reference",
        "all, answers with a claim": lambda _, score: score.state is State.SCORED,
    }
    lines = []
    for name, chosen in selections.items():
        kept = [(row, score) for row, score in zip(rows, scores, strict=True) if chosen(row, score)]
        part = [row for row, _ in kept]
        human, clusters = [rating(row) for row in part], [row["conversation"] for row in part]
        columns = {"faithful": [_NO_CLAIM if s.value is None else s.value for _, s in kept]}
        columns |= {column: [float(row["auto"][column]) for row in part] for column in _RECORDED}
        cells = []
        for values in columns.values():
            low, high = interval(values, human, clusters, resamples, seed)
            cells.append(f"{spearman(values, human):.3f} [{low:.2f}, {high:.2f}]")
        lines.append((name, str(len(part)), str(len(set(clusters))), *cells, f"{ceiling(part):.3f}"))
    return table(("rows", "n", "conversations", "faithful", *_RECORDED, "one rater"), lines)


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="mtrag_human.jsonl")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    rows = read(asked.data)
    scores, cost_ms = judged(rows)
    print(correlations(rows, scores, asked.resamples, asked.seed))
    states = {state.value: sum(score.state is state for score in scores) for state in State}
    print(f"\n{len(rows)} rows, {states}; {cost_ms:.0f} ms of CPU a row, passages embedded once")


if __name__ == "__main__":
    main(sys.argv[1:])
