"""`trilith eval calibrate`: holds a judge against people, and writes its certificate."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilith.errors import TrilithError
from trilith_evals.commands.arguments import usd

if TYPE_CHECKING:
    from trilith_evals.judging.hearing import Hearing


def configure(actions: Any) -> None:
    """Add the action and its arguments."""
    calibrate = actions.add_parser(
        "calibrate",
        help="hold a judge against people's verdicts",
        description="Hold a judge against people's verdicts and write its certificate, which suites look up. "
        "Exit code: 0 calibrated, 3 could not be (also for a wrong file).",
    )
    calibrate.add_argument("file", type=Path, help="the judge's file, such as judge.yaml")
    calibrate.add_argument(
        "--base-url", help="gateway or OpenAI-compatible server; default $TRILITH_BASE_URL"
    )
    calibrate.add_argument("--api-key", help="key for it; default $TRILITH_API_KEY")
    calibrate.add_argument("--limit", type=_count, metavar="N", help="only the first N rows")
    calibrate.add_argument(
        "--concurrency", type=_count, default=8, metavar="N", help="rows under way at a time (%(default)s)"
    )
    calibrate.add_argument("--max-cost", type=usd, metavar="USD", help="stop before it costs more than this")
    calibrate.add_argument(
        "--max-call-cost",
        type=usd,
        metavar="USD",
        help="most that one call can cost; makes the cap exact",
    )
    calibrate.add_argument(
        "--journal",
        type=Path,
        metavar="PATH",
        help="keep verdicts here, to go on from; default .trilith/evals beside the file, until complete",
    )
    calibrate.add_argument("--fresh", action="store_true", help="forget what the journal has")
    calibrate.add_argument("--cache", type=Path, metavar="DIR", help="keep verdicts by content between runs")
    calibrate.add_argument("--certificate", type=Path, metavar="PATH", help="write it here")
    calibrate.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    """Calibrate the judge."""
    from trilith_evals.judging.statement import agreement, statement

    hearing = asyncio.run(_held(arguments))
    print(statement(hearing))
    path: Path = arguments.certificate or hearing.file.certificate
    try:
        hearing.certificate(agreement(hearing)).write(path)
    except OSError as error:
        raise TrilithError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    print(f"certificate: {path}")
    return 0


async def _held(arguments: argparse.Namespace) -> Hearing:
    from trilith import AsyncClient
    from trilith_evals.journal import digest
    from trilith_evals.judging.asking import Asker
    from trilith_evals.judging.document import read_judge
    from trilith_evals.judging.hearing import hold, labelled
    from trilith_evals.judging.judge import Judge
    from trilith_evals.means import Means
    from trilith_evals.output.telling import spent

    file = read_judge(arguments.file)
    data = labelled(file, limit=arguments.limit)
    if file.data is not None and file.data.verdict is not None:
        return await hold(file, data, None)
    timeout_s = file.settings.timeout_s
    means = Means(
        arguments.max_cost,
        arguments.max_call_cost,
        journal=arguments.journal,
        folder=file.path.parent / ".trilith" / "evals" / "judges",
        fresh=arguments.fresh,
        cache=arguments.cache,
    )
    # More rows of the same file, or a larger cap, go on from the same journal.
    run = digest(["calibrate", file.settings.fingerprint(), data.digest])
    purse = means.purse(run, arguments.concurrency, timeout_s * (1 + means.max_retries))
    try:
        async with AsyncClient(arguments.base_url, arguments.api_key, timeout_s=timeout_s) as client:
            judge = Judge(file.settings, Asker(client, timeout_s=timeout_s))
            with purse.open():
                hearing = await hold(file, data, judge, concurrency=arguments.concurrency)
    except BaseException:
        purse.close()
        raise
    purse.close(remove=means.passing and not hearing.infrastructure)
    print(f"spent {spent(purse.ledger.spend())}")
    return hearing


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return value
