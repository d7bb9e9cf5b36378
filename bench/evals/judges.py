"""What are judges worth against people, and do corrected figures hold what people would say?

`python -m bench.evals.judges --data DIR [--draws 2000] [--seed 1]` reads recorded verdicts of real judges
(`DIR/llmbar`, from princeton-nlp/LLMBar, MIT) and people's ratings (`DIR/mtrag_human`, from
IBM/mt-rag-benchmark, Apache-2.0). It prints each figure beside the one published for the same files, and then
draws labelled and unlabelled rows many times: how often does an interval hold the mean of all of people's
labels?

Accuracy is the mean over both orders, and over all pairs of a set. A verdict that could not be read is not
right.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.gateway.report import table

from trilith import AsyncClient
from trilith_evals import Case, Output
from trilith_evals.estimate import Estimate
from trilith_evals.figure import brief
from trilith_evals.judging import agreement, pairwise
from trilith_evals.judging.correction import ppi_difference, ppi_mean, rogan_gladen
from trilith_evals.judging.pairwise import JudgedPair
from trilith_evals.judging.scorer import JudgeScorer

_PROMPT = "Vanilla_NoRules"
_SETS = ("llmbar_natural", "llmbar_neighbor", "llmbar_gptinst", "mt_bench")
_KNOWN: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("GPT-4", ("llmbar_natural",), "accuracy", ".935"),
    ("GPT-4", ("mt_bench",), "accuracy", ".810"),
    ("GPT-4", ("llmbar_natural",), "consistency", ".970"),
    ("GPT-4", ("mt_bench",), "consistency", ".870"),
    ("ChatGPT", ("llmbar_natural",), "accuracy", ".790"),
    ("ChatGPT", ("mt_bench",), "accuracy", ".713"),
    ("ChatGPT", ("llmbar_natural",), "consistency", ".680"),
    ("ChatGPT", ("mt_bench",), "consistency", ".575"),
    ("ChatGPT", ("mt_bench",), "picks_first", ".70"),
)
"""Judge, sets, figure, and the value known of the data. Its adversarial figures (.712, .893; .277,
.589) are over four sets, of which two have their verdicts here; its LLaMA2 figures (.333, 83 %) are of
FairEval, which has none."""


def pairs(folder: Path, judge: str, sets: Sequence[str]) -> list[JudgedPair]:
    """Return one judge's recorded verdicts, with people's and the answers' lengths."""
    lengths = {
        (name, row["id"]): ((len(row["output_1"]), len(row["output_2"])), row["input"])
        for name in sets
        for row in map(json.loads, (folder / f"{name}.jsonl").read_text("utf-8").splitlines())
    }
    with gzip.open(folder / "judge_verdicts.jsonl.gz", "rt", encoding="utf-8") as lines:
        told = [row for row in map(json.loads, lines) if row["judge"] == judge and row["prompt"] == _PROMPT]
    return [
        JudgedPair(
            id=f"{row['set']}/{row['id']}",
            gold=row["gold"],
            forward=_choice(row["ab"]),
            backward=_choice(row["ba"]),
            lengths=lengths[row["set"], row["id"]][0],
            # MT-Bench asks a question of many pairs of models: those pairs have the question in common.
            cluster=lengths[row["set"], row["id"]][1],
            tags={"set": row["set"]},
        )
        for row in told
        if row["set"] in sets
    ]


def _choice(verdict: str | None) -> Any:
    return None if verdict is None else int(verdict)


def published(folder: Path) -> str:
    """Return our figures beside the published ones."""
    rows = []
    for judge, sets, figure, known in _KNOWN:
        value = getattr(pairwise.calibrate(pairs(folder, judge, sets)), figure).value
        # .7125 is printed as .713: half counts upwards, as on paper.
        places = len(known) - 1
        ours = f"{int(value * 10**places + 0.5 + 1e-9) / 10**places:.{places}f}".lstrip("0")
        rows.append(
            (judge, " + ".join(sets), figure, f"{value:.4f}", ours, known, "yes" if ours == known else "NO")
        )
    return table(("judge", "set", "figure", "exact", "ours", "known", "same"), rows)


def calibrations(folder: Path) -> str:
    """Return every judge on every set."""
    rows = []
    for judge in ("GPT-4", "PaLM2", "ChatGPT", "LLaMA2"):
        for name, found in pairwise.calibrate(pairs(folder, judge, _SETS)).slices.items():
            of = (found.accuracy, found.both_right, found.consistency, found.picks_first, found.kappa)
            biases = (found.position_bias, found.length_bias)
            cells = (_cell(figure) for figure in (*of, *biases))
            rows.append((judge, name.removeprefix("set="), str(found.pairs), str(found.unread), *cells))
    head = ("judge", "set", "pairs", "unread", "accuracy", "right both ways", "consistent", "picks first")
    return table((*head, "kappa", "position bias", "length bias"), rows)


def people(folder: Path) -> str:
    """Return how people and automatic scores agree on answers from documents, by conversation."""
    told = [json.loads(line) for line in (folder / "mtrag_human.jsonl").read_text("utf-8").splitlines()]
    known = {
        ("faithfulness", "people"): ".54",
        ("completeness", "people"): ".38",
        ("faithfulness", "rl_f"): ".635 [.49, .74]",
        ("faithfulness", "Bert-KPrec"): ".654 [.56, .73]",
        ("faithfulness", "rb_agg"): ".515",
        ("faithfulness", "RougeL"): ".505",
        ("faithfulness", "Bert-Rec"): ".348",
        ("faithfulness", "rb_llm"): ".289 [.13, .41]",
        ("completeness", "rl_f"): ".534",
        ("completeness", "Bert-KPrec"): ".446",
        ("completeness", "rb_llm"): ".386",
    }
    rows = []
    for (aspect, score), figure in known.items():
        if score == "people":
            kept = [row for row in told if len(row["human"][aspect]) > 1]
            of = [row["conversation"] for row in kept]
            found = agreement.ceiling([row["human"][aspect] for row in kept], of)
        else:
            kept = [row for row in told if row["auto"].get(score) is not None]
            of = [row["conversation"] for row in kept]
            means = [sum(row["human"][aspect]) / len(row["human"][aspect]) for row in kept]
            found = agreement.spearman(means, [row["auto"][score] for row in kept], of)
        name = "a person with the others (ceiling)" if score == "people" else score
        rows.append((aspect, name, str(len(kept)), _cell(found), figure))
    return table(("people's rating", "score", "answers", "Spearman", "known"), rows)


@dataclass
class Held:
    """How often intervals held the truth, and how wide they were."""

    held: int = 0
    tries: int = 0
    width: float = 0.0

    def note(self, found: Estimate | None, truth: float) -> None:
        """Count one interval; none at all counts as not tried."""
        if found is not None and found.low is not None and found.high is not None:
            self.tries += 1
            self.held += found.low <= truth <= found.high
            self.width += found.high - found.low

    @property
    def told(self) -> str:
        """Share and mean width."""
        if not self.tries:
            return "-"
        return f"{self.held / self.tries:.3f} (width {self.width / self.tries:.2f})"


def coverage(folder: Path, draws: int, seed: int) -> str:
    """Return how often intervals hold the share of pairs whose first answer people prefer."""
    rows = []
    cases = [(judge, _SETS) for judge in ("GPT-4", "ChatGPT", "LLaMA2")] + [("GPT-4", _SETS[:1])]
    for judge, sets in cases:
        given = [pair for pair in pairs(folder, judge, sets) if pair.forward is not None]
        pool = [(float(pair.gold == 1), float(pair.forward == 1)) for pair in given]
        truth = sum(label for label, _ in pool) / len(pool)
        for labelled in (20, 50, 100):
            rng = random.Random(seed)
            corrected, bare, judged, rogan = Held(), Held(), Held(), Held()
            for _ in range(draws):
                drawn = [rng.choice(pool) for _ in range(500)]
                labels = [label if at < labelled else None for at, (label, _) in enumerate(drawn)]
                verdicts = [verdict for _, verdict in drawn]
                found = ppi_mean(labels, verdicts, bounds=(0, 1))
                corrected.note(found.estimate, truth)
                bare.note(found.people, truth)
                judged.note(found.judge, truth)
                known = [None if label is None else label == 1 for label in labels]
                rogan.note(rogan_gladen(known, [v == 1 for v in verdicts]), truth)
            name = "all four" if len(sets) > 1 else sets[0]
            held = (corrected.told, rogan.told, bare.told, judged.told)
            rows.append((judge, name, f"{truth:.3f}", f"{labelled} of 500", *held))
    head = ("judge", "set", "truth", "labelled", "ppi++", "Rogan-Gladen", "labels alone", "judge alone")
    return table(head, rows)


def by_conversation(folder: Path, draws: int, seed: int) -> str:
    """Return the coverage where rows come in conversations, for a mean and for a paired difference."""
    told = [json.loads(line) for line in (folder / "mtrag_human.jsonl").read_text("utf-8").splitlines()]
    answers: dict[str, dict[tuple[str, int], tuple[float, float]]] = {}
    groups: dict[str, list[tuple[str, int]]] = {}
    for row in told:
        if row["auto"].get("rl_f") is not None:
            ratings = row["human"]["faithfulness"]
            place = (row["conversation"], row["turn"])
            score = (sum(ratings) / len(ratings) - 1) / 3
            answers.setdefault(row["model"], {})[place] = (score, row["auto"]["rl_f"])
    places = sorted(set(answers["llama-3.1-405b-instruct"]) & set(answers["gpt-4o"]))
    for place in places:
        groups.setdefault(place[0], []).append(place)
    rows = []
    for name in ("mean of llama", "gpt-4o less llama"):
        pairs_of = [
            (
                answers["llama-3.1-405b-instruct"][place],
                answers["gpt-4o"][place] if name.startswith("gpt") else None,
            )
            for place in places
        ]
        values = [second[0] - first[0] if second else first[0] for first, second in pairs_of]
        truth, rng = sum(values) / len(values), random.Random(seed)
        clustered, alone, judged = Held(), Held(), Held()
        for _ in range(draws):
            drawn = [(at, place) for at in range(60) for place in groups[rng.choice(list(groups))]]
            keys: list[Any] = [at for at, _ in drawn]
            for of, tally in ((keys, clustered), (None, alone)):
                found = _found(name, drawn, answers, of)
                tally.note(found.estimate, truth)
                if of is keys:
                    judged.note(found.judge, truth)
        rows.append((name, f"{truth:.3f}", clustered.told, alone.told, judged.told))
    head = ("faithfulness (0 to 1)", "truth", "ppi++ by conversation", "ppi++ every row alone", "judge alone")
    return table(head, rows)


def _found(name: str, drawn: Sequence[Any], answers: Any, of: Any) -> Any:
    first = [answers["llama-3.1-405b-instruct"][place] for _, place in drawn]
    known = [at < 20 for at, _ in drawn]  # the conversations that people labelled
    labels = [row[0] if on else None for row, on in zip(first, known, strict=True)]
    if not name.startswith("gpt"):
        return ppi_mean(labels, [row[1] for row in first], of, bounds=(0, 1))
    second = [answers["gpt-4o"][place] for _, place in drawn]
    more = [row[0] if on else None for row, on in zip(second, known, strict=True)]
    return ppi_difference((labels, more), ([r[1] for r in first], [r[1] for r in second]), of, bounds=(0, 1))


SIMULATED = {"good": (0.9, 0.1), "coin": (0.5, 0.5), "contrary": (0.3, 0.7)}
"""Share of yes that a judge says where people say yes, and where they say no."""


def simulated(draws: int, seed: int) -> str:
    """Return the coverage for judges and people that are drawn, whose truth is known.

    500 rows; of documents, each has a share of yes of its own (Beta, correlation 0.3), and whole ones are
    labelled.
    """
    rows = []
    for truth in (0.3, 0.7, 0.9):
        for documents, labelled in ((0, 20), (0, 50), (0, 200), (50, 50), (50, 200), (20, 100), (20, 200)):
            cells = []
            for judge in SIMULATED:
                rng, held = random.Random(seed), Held()
                for _ in range(draws):
                    drawn = _simulated(rng, truth, documents, SIMULATED[judge])
                    labels: list[float | None] = [*drawn[0][:labelled], *[None] * (500 - labelled)]
                    found = ppi_mean(labels, drawn[1], drawn[2] if documents else None, bounds=(0, 1))
                    held.note(found.estimate, truth)
                cells.append(held.told)
            kind = f"{documents}, {labelled * documents // 500} labelled" if documents else "none"
            rows.append((f"{truth}", kind, f"{labelled} of 500", *cells))
    return table(("truth", "documents", "labelled", *SIMULATED), rows)


def _simulated(
    rng: random.Random, truth: float, documents: int, judge: tuple[float, float]
) -> tuple[list[float], list[float], list[int]]:
    labels, verdicts, of = [], [], []
    strength = 1 / 0.3 - 1
    for document in range(documents or 500):
        rate = rng.betavariate(truth * strength, (1 - truth) * strength) if documents else truth
        for _ in range(500 // documents if documents else 1):
            label = rng.random() < rate
            labels.append(float(label))
            verdicts.append(float(rng.random() < judge[not label]))
            of.append(document)
    return labels, verdicts, of


def overhead(calls: int) -> str:
    """Return the CPU that a judge call takes on our side, over real HTTP on loopback."""
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": _REPLY}}], "id": "1"}
    raw = json.dumps(body).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(raw)))
            self.send_header("x-trilith-cost-usd", "0.002")
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    async def measured(url: str) -> tuple[float, float]:
        async with AsyncClient(url, "k") as client:
            scorer = JudgeScorer("judge", "The answer is right.", passages="evidence", client=client)
            passages: list[Any] = ["word " * 200] * 3
            cases = [Case(str(at), "?", "Paris", fields={"evidence": passages}) for at in range(calls)]
            for case in cases[:50]:
                await scorer(case, Output("Paris"))
            began = time.thread_time()
            for case in cases:
                await scorer(case, Output("Paris"))
            judged = time.thread_time() - began
            began = time.thread_time()
            for _ in cases:
                turns = [{"role": "user", "content": "word " * 600}]
                await client.chat.completions.create(model="judge", messages=turns)
            return judged, time.thread_time() - began

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    judged, called = asyncio.run(measured(f"http://127.0.0.1:{server.server_address[1]}"))
    server.shutdown()
    rows = [
        ("judge, all of it", f"{judged / calls * 1000:.2f}"),
        ("the call alone", f"{called / calls * 1000:.2f}"),
    ]
    return table(("per verdict", "CPU ms"), rows)


_REPLY = json.dumps({"reasons": "because " * 30, "verdict": "yes"})


def _cell(found: Estimate | None) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return brief(found.value)
    return f"{brief(found.value)} [{brief(found.low)}, {brief(found.high)}]"


def main() -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with llmbar/ and mtrag_human/")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    verdicts, ratings = given.data / "llmbar", given.data / "mtrag_human"
    for folder, file in ((verdicts, "judge_verdicts.jsonl.gz"), (ratings, "mtrag_human.jsonl")):
        if not (folder / file).is_file():
            parser.error(
                f"{folder / file} is missing; --data is the folder that holds llmbar/ and mtrag_human/"
            )
    began = time.process_time()
    print(f"Recorded verdicts, prompt {_PROMPT}; beside the published figures:\n\n{published(verdicts)}\n")
    print(f"Every judge and set, 95 % intervals by question:\n\n{calibrations(verdicts)}\n")
    print(
        "People and scores over all answers (which rows the known values rest on is not told):\n\n"
        f"{people(ratings)}\n"
    )
    print(f"Share of {given.draws:,} draws whose 95 % interval holds people's truth:\n")
    print(coverage(verdicts, given.draws, given.seed), "\n")
    print("The same by conversation, 20 of 60 conversations labelled:\n")
    print(by_conversation(ratings, given.draws, given.seed))
    print(f"\nOf judges that are drawn ({given.draws // 4:,} draws), for ppi++:\n")
    print(simulated(given.draws // 4, given.seed))
    print(f"\nWhat a verdict costs here (thread CPU, 2,000 calls):\n\n{overhead(2000)}")
    print(f"\n{time.process_time() - began:.0f} s of CPU, seed {given.seed}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
