"""`trilith eval dataset`: makes datasets from traces, checks them, cuts them into parts, forgets people."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from trilith.cli import moment
from trilith.errors import DataError
from trilith_evals.trace import Opinions, Order, Stratum

if TYPE_CHECKING:
    from trilith_evals.dataset import Columns
    from trilith_evals.inspection import Inspection, Pair

_KEY = Path(".trilith/erasure.key")
_SHOWN = 10


def configure(actions: Any) -> None:
    """Add the action and its arguments."""
    dataset = actions.add_parser("dataset", help="make a dataset from traces, check one, cut it into parts")
    inner = dataset.add_subparsers(dest="dataset_action", required=True, parser_class=type(dataset))
    _configure_traces(inner)
    _configure_check(inner)
    _configure_split(inner)
    erase = inner.add_parser("erase", help="take a person's rows out of a dataset that came from traces")
    erase.add_argument("file", type=Path, help="the .jsonl")
    erase.add_argument(
        "--subject",
        action="append",
        required=True,
        metavar="VALUE",
        help="name, address, number; or key:ID of who called; repeatable",
    )
    erase.add_argument("--erasure-key", type=Path, default=_KEY, metavar="PATH", help="default %(default)s")
    erase.set_defaults(act=_erase)


def _configure_traces(inner: Any) -> None:
    traces = inner.add_parser(
        "from-traces",
        help="make a dataset from recorded calls, without the personal data in them",
        description="Make a dataset from spans that `trilith traces --export` or a collector wrote.",
    )
    traces.add_argument("spans", nargs="+", help="files or folders of OTLP JSON; - is standard input")
    traces.add_argument("--out", type=Path, required=True, metavar="PATH", help="the .jsonl to write")
    for name in ("model", "release", "team"):
        traces.add_argument(f"--{name}", action="append", default=[], metavar="NAME", help="only these")
    traces.add_argument("--since", type=moment, metavar="WHEN", help="only from then on (ISO 8601)")
    traces.add_argument("--until", type=moment, metavar="WHEN", help="only before then")
    traces.add_argument(
        "--feedback", choices=get_args(Opinions), default="any", help="only with such feedback"
    )
    traces.add_argument("--middle", type=float, default=0.5, help="scores below it are bad (%(default)s)")
    traces.add_argument("--limit", type=int, metavar="N", help="at most so many cases")
    traces.add_argument(
        "--order", choices=get_args(Order), default="newest", help="which come first (%(default)s)"
    )
    traces.add_argument("--by", choices=get_args(Stratum), help="take from each of these in turn")
    traces.add_argument("--seed", type=int, default=0, help="of whatever is drawn")
    traces.add_argument(
        "--alike", type=float, default=0.85, help="questions so alike count once (%(default)s)"
    )
    traces.add_argument(
        "--entity", action="append", default=[], metavar="KIND", help="personal data to look for; repeatable"
    )
    traces.add_argument(
        "--erasure-key",
        type=Path,
        nargs="?",
        const=_KEY,
        metavar="PATH",
        help=f"keep keyed hashes of what was taken out, so that `erase` finds a person's rows ({_KEY})",
    )
    traces.set_defaults(act=_from_traces)


def _configure_check(inner: Any) -> None:
    check = inner.add_parser(
        "check",
        help="look for faults, near-duplicates and leaks between parts",
        description="Check a dataset. Exit code: 0 good, 1 near-duplicates in different parts, 3 wrong.",
    )
    check.add_argument("file", type=Path, help="the dataset")
    check.add_argument("--alike", type=float, default=0.85, help="inputs so alike are near-duplicates")
    check.add_argument("--suggest", action="store_true", help="print a schema for it instead")
    _add_columns(check)
    check.set_defaults(act=_check)


def _configure_split(inner: Any) -> None:
    split = inner.add_parser(
        "split",
        help="write into NAME.schema.yaml how the dataset is cut into parts",
        description="Cut a dataset by a hash of the cluster, else of the id: added rows move nobody.",
    )
    split.add_argument("file", type=Path, help="the dataset")
    split.add_argument("parts", nargs="+", metavar="NAME=SHARE", help="such as train=0.8 test=0.2")
    split.add_argument("--held-out", action="append", default=[], metavar="NAME", help="nobody tunes on it")
    split.add_argument("--seed", type=int, default=0)
    _add_columns(split)
    split.set_defaults(act=_split)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", action="append", default=[], metavar="COLUMN", help="default: input")
    parser.add_argument("--expected", metavar="COLUMN")
    parser.add_argument("--id", metavar="COLUMN")
    parser.add_argument("--cluster", metavar="COLUMN", help="rows that share it stay together")


def _columns(arguments: argparse.Namespace) -> Columns:
    from trilith_evals.dataset import Columns

    given = tuple(arguments.input)
    input = given if len(given) > 1 else given[0] if given else "input"
    return Columns(input, arguments.expected, arguments.id, arguments.cluster)


def _from_traces(arguments: argparse.Namespace) -> int:
    from trilith_evals import subject
    from trilith_evals.harvest import Wanted, from_traces
    from trilith_evals.sidecar import beside

    wanted = Wanted(
        models=frozenset(arguments.model),
        releases=frozenset(arguments.release),
        teams=frozenset(arguments.team),
        since=arguments.since,
        until=arguments.until,
        opinions=arguments.feedback,
        middle=arguments.middle,
        limit=arguments.limit,
        order=arguments.order,
        by=arguments.by,
        seed=arguments.seed,
        alike=arguments.alike,
    )
    key = subject.open_key(arguments.erasure_key, make=True) if arguments.erasure_key else None
    told = from_traces(arguments.spans, arguments.out, wanted, entities=arguments.entity, erasure_key=key)
    print(
        f"{told.cases} cases of {told.read} calls in {arguments.out}, "
        f"their origin in {beside(arguments.out).name}"
    )
    for title, counts in (("left out", told.left_out), ("personal data replaced", told.personal)):
        print(f"{title}: {_listed(counts.items()) or 'none'}")
    return 0


def _listed(counts: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts)


def _check(arguments: argparse.Namespace) -> int:
    if arguments.suggest:
        from trilith.extras import need
        from trilith_evals.schema import infer

        found = infer(arguments.file).model_dump(mode="json", exclude_defaults=True)
        print(need("yaml", extra="evals").safe_dump(found, sort_keys=False), end="")
        return 0
    from trilith_evals.inspection import inspect

    inspection = inspect(arguments.file, _columns(arguments), alike=arguments.alike)
    print(_told(inspection))
    return 1 if inspection.leaks else 0


def _told(found: Inspection) -> str:
    data = found.data
    lines = [
        f"{data.label}: {len(data.cases)} cases"
        + (f" in {found.clusters} clusters" if found.clusters else ""),
        f"content: sha256 {data.content_digest}",
        f"held out: {'yes' if data.held_out else 'no'}",
        f"without an expected answer: {found.without_expected}",
    ]
    if found.parts:
        lines.append(f"parts: {_listed(found.parts.items())}")
    if found.labels:
        least = min(found.labels.values())
        lines.append(f"labels: {_listed(found.labels.items())} (the rarest {least / len(data.cases):.1%})")
    same = [pair for pair in found.pairs if not pair.leaks and not pair.clustered]
    lines.append(f"near-duplicates without a common cluster: {len(same)}{_pairs(same)}")
    if found.parts:
        lines.append(f"LEAKS: near-duplicates in different parts: {len(found.leaks)}{_pairs(found.leaks)}")
    return "\n".join(lines)


def _pairs(pairs: Sequence[Pair]) -> str:
    lines = [
        f"\n  {pair.one} ~ {pair.other} ({pair.share:.0%}"
        + (f", {pair.parts[0]} and {pair.parts[1]})" if pair.leaks else ")")
        for pair in pairs[:_SHOWN]
    ]
    return "".join(lines) + ("\n  ..." if len(pairs) > _SHOWN else "")


def _split(arguments: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from trilith_evals.dataset import load
    from trilith_evals.document import words
    from trilith_evals.sidecar import PartsSettings, Sidecar, read_sidecar, write_sidecar

    shares = dict(map(_share, arguments.parts))
    unknown = [name for name in arguments.held_out if name not in shares]
    if unknown:
        raise DataError(f"--held-out {unknown[0]}: no such part, expected one of {', '.join(shares)}")
    try:
        splits = PartsSettings(shares=shares, seed=arguments.seed)
    except ValidationError as error:
        raise DataError(f"the parts cannot be cut: {words(error.errors()[0])}") from None
    columns = _columns(arguments)
    data = load(arguments.file, columns)
    before = read_sidecar(arguments.file) or Sidecar()
    counts = {
        name: len(load(arguments.file, columns, split=splits.part(name), may_be_empty=True).cases)
        for name in shares
    }
    held_out = tuple(arguments.held_out) or before.held_out
    written = write_sidecar(
        arguments.file, before.model_copy(update={"splits": splits, "held_out": held_out})
    )
    print(f"{written}: {_listed((name, count) for name, count in counts.items())} of {len(data.cases)} cases")
    return 0


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise DataError(f"{text!r}: expected NAME=SHARE, such as test=0.2") from None


def _erase(arguments: argparse.Namespace) -> int:
    from trilith_evals.subject import erase, open_key

    gone = erase(arguments.file, open_key(arguments.erasure_key), arguments.subject)
    print(f"{gone} rows erased from {arguments.file}")
    return 0
