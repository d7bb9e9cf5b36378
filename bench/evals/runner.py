"""CPU, wall time and losses of the runner beside ragas, against a judge that answers after 50 ms.

Run it as `python -m bench.evals.runner [--rows 200] [--wide 16] [--seed 1] [--without-ragas]`; the judge runs
in a process of its own. A row of ours asks a model and then a judge about its answer, a row of ragas's
`Faithfulness` asks the judge for statements and then for verdicts: two calls each. "ragas" is its
`abatch_score` as it comes; "ragas, wide" has the semaphore that its users write, and keeps what a failed row
raises.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.evals import slow_judge

import trilith_evals as evals
from trilith_evals import Means
from trilith_evals.scorer import build

_TIMEOUT_S = 3.0
"""Of one attempt in the runs with faults, theirs too: a judge that hangs does so for 60 s."""


@dataclass
class Line:
    """What one run came to."""

    name: str
    rows: int
    wall_s: float
    cpu_s: float
    calls: int = 0
    charged: int = 0
    accounted: int = 0
    scored: int = 0
    told: int | None = 0
    """Charged answers that the run's own count of money has; None: it counts none."""
    mean: str = "-"


class Judge:
    """The server, and what it has taken since last asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._before = {"calls": 0, "charged": 0}

    def taken(self) -> dict[str, int]:
        """Return the calls, and those charged, since the last time."""
        with urllib.request.urlopen(self.url) as answer:
            now: dict[str, int] = json.load(answer)
        before, self._before = self._before, now
        return {name: now[name] - before[name] for name in now}


def _measured(judge: Judge, name: str, rows: int, run: Callable[[], dict[str, Any]]) -> Line:
    judge.taken()
    cpu, clock = time.process_time(), time.perf_counter()
    found = run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - clock
    given: dict[str, Any] = {**judge.taken(), **found}
    return Line(name, rows, wall, cpu, **given)


def _ours(judge: Judge, model: str, rows: int, wide: int, name: str, means: Means, *, judged: bool) -> Line:
    cases = [{"id": str(i), "input": f"{name} {i}", "expected": "yes"} for i in range(rows)]
    asked = build("judge", {"model": model, "rubric": "The answer is so.", "timeout_s": _TIMEOUT_S})
    scorers: list[Any] = [asked] if judged else ["exact"]
    options = {"base_url": judge.url, "api_key": "k", "concurrency": wide, "timeout_s": 4 * _TIMEOUT_S}

    def run() -> dict[str, Any]:
        report = evals.run(model, cases, scorers, means=means, **options)
        (found,) = report.suites
        figure, spend = found.figures[0], found.spend
        mean = "-" if figure.estimate is None else f"{figure.estimate.value:.3f}"
        if figure.unscored:
            low, high = figure.bounds or (0.0, 1.0)
            mean += f" of {figure.scored}, {low:.2f} to {high:.2f} whatever the rest"
        return {
            "accounted": len(found.rows),
            "scored": figure.scored,
            "told": spend.total_pico_usd // 10**9 if spend else None,
            "mean": f"{mean}, exit {report.exit_code}",
        }

    return _measured(judge, name, rows, run)


def _ragas(judge: Judge, model: str, rows: int, wide: int | None, name: str, *, patient: bool) -> Line:
    import openai
    from ragas.llms import llm_factory
    from ragas.metrics.collections import Faithfulness

    given = [
        {"user_input": f"{name} {i}?", "response": "It is so.", "retrieved_contexts": ["It is so."]}
        for i in range(rows)
    ]

    async def scores() -> list[Any]:
        timeout = {} if patient else {"timeout": _TIMEOUT_S}
        client = openai.AsyncOpenAI(base_url=f"{judge.url}/v1", api_key="k", **timeout)  # type: ignore[arg-type]
        metric = Faithfulness(llm=llm_factory(model, provider="openai", client=client))
        try:
            if wide is None:
                return list(await metric.abatch_score(given))
            gate = asyncio.Semaphore(wide)

            async def one(row: dict[str, Any]) -> Any:
                async with gate:
                    return await metric.ascore(**row)

            return await asyncio.gather(*map(one, given), return_exceptions=True)
        finally:
            await client.close()

    def run() -> dict[str, Any]:
        try:
            found = asyncio.run(scores())
        except Exception as error:  # one row's, for which abatch_score loses all
            return {"accounted": 0, "scored": 0, "told": None, "mean": f"none: {type(error).__name__}"}
        values = [r.value for r in found if not isinstance(r, BaseException) and r.value == r.value]
        mean = f"{statistics.mean(values):.3f} of {len(values)}, unflagged" if values else "-"
        return {"accounted": rows, "scored": len(values), "told": None, "mean": mean}

    return _measured(judge, name, rows, run)


def _print(lines: list[Line], base: Line) -> None:
    print("| run | rows | wall s | CPU s | calls | CPU ms / call | x | accounted | scored | untold | mean |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in lines:
        each = 1000 * line.cpu_s / line.calls
        ratio = each / (1000 * base.cpu_s / base.calls)
        untold = line.charged if line.told is None else max(0, line.charged - line.told)
        print(
            f"| {line.name} | {line.rows} | {line.wall_s:.2f} | {line.cpu_s:.2f} | {line.calls} | "
            f"{each:.2f} | {ratio:.1f} | {line.accounted} | {line.scored} | "
            f"{untold} of {line.charged} | {line.mean} |"
        )


def _all(judge: Judge, rows: int, wide: int, folder: Path, *, ragas: bool) -> None:
    def ours(name: str, model: str = "m", means: Means | None = None, *, judged: bool = True) -> Line:
        return _ours(judge, model, rows, wide, name, means or Means(), judged=judged)

    _ours(judge, "m", 20, wide, "warm-up", Means(), judged=True)
    base = ours("target and judge")
    lines = [
        ours("target alone", judged=False),
        base,
        ours("with journal and cap", means=Means(10**15, journal=folder / "j.jsonl")),
        ours("faults", "faulty", Means(10**15, 2 * 10**9, attempt_timeout_s=_TIMEOUT_S)),
    ]
    if ragas:
        _ragas(judge, "m", 20, wide, "warm-up", patient=True)
        lines += [
            _ragas(judge, "m", rows, None, "ragas", patient=True),
            _ragas(judge, "m", rows, wide, "ragas, wide", patient=True),
            _ragas(judge, "faulty", rows, None, "ragas, faults", patient=False),
            _ragas(judge, "faulty", rows, wide, "ragas, wide, faults", patient=False),
        ]
    _print(lines, base)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--wide", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-ragas", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"  # else it waits for its makers' server, and times that
    if arguments.serve:
        asyncio.run(slow_judge.serve(arguments.seed))
        return
    command = [sys.executable, "-m", "bench.evals.runner", "--serve", "--seed", str(arguments.seed)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert server.stdout
        judge = Judge(int(server.stdout.readline()))
        with tempfile.TemporaryDirectory() as folder:
            wanted = not arguments.without_ragas
            _all(judge, arguments.rows, arguments.wide, Path(folder), ragas=wanted)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
