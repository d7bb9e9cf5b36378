"""How often does a gate stop an unchanged target, and how often does it see a worse one?

`python -m bench.evals.gate --data FOLDER [--runs 2000] [--seed 1]` draws runs from real recorded scores and
holds them against each other. FOLDER has `mtrag_human/mtrag_human.jsonl` (people's ratings of answers in 12
conversations, by people and by a model; IBM/mt-rag-benchmark, Apache-2.0) and
`llmbar/judge_verdicts.jsonl.gz` (verdicts of language-model judges, each pair asked twice;
princeton-nlp/LLMBar, MIT).

A repeat of an unchanged target scores every case again: it gets one of the scores that the case was given
(another rater, the pair asked the other way round). Conversations are drawn anew for every pair of runs, as
another dataset of that kind would have others. A worse target has some of its cases answered by a worse one.

Beside the gate stand the rules in use: red at any drop of the mean, and red where an unpaired t test over all
cases, taken as independent, says so (one-sided 2.5 %).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.report import table
from scipy import stats

from trilith_evals.gate import Gate, Outcome
from trilith_evals.recorded import RecordedMetric, RecordedSuite
from trilith_evals.trial import judged_against

_HEAD = ("scores", "worse answers", "change", "gate", "unpaired t", "bare difference", "gate decided")
LOOK_EVERY = 20
"""Cases between two looks of a run that may stop when decided, as the runner does."""
Scores = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Recorded:
    """Cases with every score that each was given, by the usual target and by a worse one."""

    name: str
    usual: Scores
    worse: Scores
    clusters: Mapping[str, str]


def mtrag(folder: Path) -> Recorded:
    """Return ratings of completeness, 0 to 1: usual, answers by people; worse, a model's."""
    usual: dict[str, list[float]] = {}
    worse: dict[str, list[float]] = {}
    clusters = {}
    with _opened(folder / "mtrag_human" / "mtrag_human.jsonl") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        kept = {"reference": usual, "llama-3.1-405b-instruct": worse}.get(row["model"])
        if kept is None:
            continue
        case = f"{row['conversation']}/{row['turn']}"
        kept[case] = [(rating - 1) / 3 for rating in row["human"]["completeness"]]
        clusters[case] = row["conversation"]
    return Recorded("ratings (mtrag, completeness)", usual, worse, clusters)


def llmbar(folder: Path) -> Recorded:
    """Return which verdicts were right: usual, GPT-4; worse, ChatGPT, on the same pairs."""
    usual: dict[str, list[float]] = {}
    worse: dict[str, list[float]] = {}
    with _opened(folder / "llmbar" / "judge_verdicts.jsonl.gz") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        kept = {"GPT-4": usual, "ChatGPT": worse}.get(row["judge"])
        if kept is not None and row["prompt"] == "Vanilla_NoRules":
            verdicts = [float(str(row[order]) == str(row["gold"])) for order in ("ab", "ba")]
            kept[f"{row['set']}/{row['id']}"] = verdicts
    return Recorded("right or wrong (LLMBar)", usual, worse, {})


def measured(data: Recorded, mixed: float, runs: int, seed: int, margin: float) -> tuple[str, ...]:
    """Return how often each rule is red, for a target that answers a share of its cases as the worse one."""
    rng = random.Random(seed)
    groups: dict[str, list[str]] = {}
    for case in data.usual:
        if case in data.worse:
            groups.setdefault(data.clusters.get(case, case), []).append(case)
    red = {"gate": 0, "decided": 0, "bare": 0, "unpaired": 0}
    for _ in range(runs):
        before, after, clusters = {}, {}, {}
        for number, group in enumerate(rng.choices(list(groups), k=len(groups))):
            for case in groups[group]:
                name = f"{number}/{case}"
                clusters[name] = str(number)
                before[name] = rng.choice(data.usual[case])
                after[name] = rng.choice((data.worse if rng.random() < mixed else data.usual)[case])
        found = judged_against(
            Gate("score", not_worse_by=margin), _suite(before, clusters), _suite(after, clusters)
        )
        red["gate"] += found.outcome is Outcome.FAIL
        red["decided"] += found.outcome is not Outcome.NO_EVIDENCE
        red["bare"] += sum(after.values()) < sum(before.values()) - margin * len(before)
        test = stats.ttest_ind(
            [score + margin for score in after.values()], list(before.values()), alternative="less"
        )
        red["unpaired"] += bool(test.pvalue < 0.025)
    cases = [case for group in groups.values() for case in group]
    change = mixed * sum(_mean(data.worse[case]) - _mean(data.usual[case]) for case in cases) / len(cases)
    rates = (f"{red[rule] / runs:.3f}" for rule in ("gate", "unpaired", "bare", "decided"))
    return (f"{change:+.3f}", *rates)


def early(data: Recorded, mixed: float, runs: int, seed: int, margin: float) -> tuple[str, ...]:
    """Return what the gate comes to in runs that may stop when decided, and how many cases they ask."""
    rng = random.Random(seed)
    cases = [case for case in data.usual if case in data.worse]
    found = dict.fromkeys(Outcome, 0)
    asked = 0
    for _ in range(runs):
        before, after = {}, {}
        for number, case in enumerate(rng.choices(cases, k=len(cases))):
            before[f"{number}"] = rng.choice(data.usual[case])
            after[f"{number}"] = rng.choice((data.worse if rng.random() < mixed else data.usual)[case])
        names = list(after)
        for seen in [*range(LOOK_EVERY, len(names), LOOK_EVERY), len(names)]:
            part = {name: after[name] for name in names[:seen]}
            gate = Gate("score", not_worse_by=margin)
            check = judged_against(gate, _suite(before, {}), _suite(part, {}), planned_rows=len(names))
            if check.outcome in (Outcome.PASS, Outcome.FAIL):
                break
        found[check.outcome] += 1
        asked += seen
    change = mixed * sum(_mean(data.worse[case]) - _mean(data.usual[case]) for case in cases) / len(cases)
    rates = (f"{found[outcome] / runs:.3f}" for outcome in (Outcome.FAIL, Outcome.PASS, Outcome.NO_EVIDENCE))
    return (f"{change:+.3f}", *rates, f"{asked / runs / len(cases):.0%} of {len(cases)}")


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def _suite(scores: Mapping[str, float], clusters: Mapping[str, str]) -> RecordedSuite:
    return RecordedSuite("suite", "", clusters, {"score": RecordedMetric(scores, len(scores), True, False)})


def _opened(path: Path):  # type: ignore[no-untyped-def]  # an open text file
    if not path.is_file():
        sys.exit(f"{path} is not there; --data names the folder that has it (see the module's first lines)")
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def main() -> int:
    """Print a table per margin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the recorded scores")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.process_time()
    sets = [mtrag(given.data), llmbar(given.data)]
    for margin in (0.0, 0.05):
        print(f"\nRed of {given.runs} runs, not_worse_by {margin:g} (false where no change is beyond it):\n")
        rows = [
            (data.name, f"{mixed:.0%}", *measured(data, mixed, given.runs, given.seed, margin))
            for data in sets
            for mixed in (0.0, 0.1, 0.25, 0.5, 1.0)
        ]
        print(
            table(
                (
                    "scores",
                    "worse answers",
                    "change",
                    "gate",
                    "unpaired t",
                    "bare difference",
                    "gate decided",
                ),
                rows,
            )
        )
    few = given.runs // 4
    print(f"\nOf {few} runs that may stop when decided (a look after every {LOOK_EVERY} cases), LLMBar:\n")
    rows = [
        (f"{margin:g}", f"{mixed:.0%}", *early(sets[1], mixed, few, given.seed, margin))
        for margin in (0.0, 0.05)
        for mixed in (0.0, 0.1, 0.25, 0.5, 1.0)
    ]
    print(table(("margin", "worse answers", "change", "red", "passed", "no evidence", "cases asked"), rows))
    print(f"\n{time.process_time() - began:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
