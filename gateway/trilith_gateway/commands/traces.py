"""`trilith traces`: one request's spans as a tree, from the app's function to the model."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from trilith.cli import moment
from trilith.errors import DataError
from trilith.settings.schema import Settings
from trilith.telemetry import names
from trilith_gateway import otlp, tracing
from trilith_gateway.commands.option import add_settings, positive, read_settings, table
from trilith_gateway.store.opening import open_connection


class Traces:
    """Show traces."""

    help = "show the newest traces, or one as a tree"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "id", nargs="?", help="a request id (req_...) or a trace id; none lists the newest"
        )
        parser.add_argument("--limit", type=positive, default=20, help="how many to list (%(default)s)")
        parser.add_argument(
            "--export",
            metavar="PATH",
            help="write all spans as OTLP JSON lines, with the feedback on them; - is standard output",
        )
        parser.add_argument(
            "--since",
            type=moment,
            metavar="WHEN",
            help="export traces from then on (ISO 8601; UTC if it says no zone)",
        )
        add_settings(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the list or the tree, or write all of it."""
        settings = read_settings(arguments)
        path = tracing.database(settings.home)
        if not path.exists():
            raise DataError(
                f"no spans are stored at {path}; is `telemetry.store_spans` on, and did a gateway run?"
            )
        if arguments.export is not None:
            export(settings, path, arguments.export, arguments.since)
        elif arguments.id is None:
            print(newest(path, arguments.limit))
        else:
            print(tree(path, arguments.id))
        return 0


@dataclass(slots=True)
class Node:
    """One span and the spans inside it."""

    row: sqlite3.Row
    children: list[Node] = field(default_factory=list)


def export(settings: Settings, path: Path, to: str, since: datetime | None) -> None:
    """Write spans and feedback; people's own words only where spans hold text as well.

    Raises:
        DataError: the file cannot be written.
    """
    with closing(open_connection(settings)) as connection:
        feedback = otlp.said(connection, comments=settings.telemetry.content)
    since_ns = int(since.timestamp() * 1e9) if since is not None else 0
    count = 0
    try:
        with nullcontext(sys.stdout) if to == "-" else open(to, "w", encoding="utf-8") as file:
            for line in otlp.lines(path, feedback, since_ns=since_ns):
                file.write(line + "\n")
                count += 1
    except OSError as error:
        raise DataError(f"cannot write {to}: {(error.strerror or str(error)).lower()}") from error
    print(f"{count} traces written to {to}", file=sys.stderr)


def newest(path: Path, limit: int) -> str:
    """Return a table of the newest requests."""
    with closing(_connect(path)) as connection:
        rows = connection.execute(
            "select * from spans where request_id is not null order by started_ns desc limit ?", (limit,)
        ).fetchall()
    head = ("REQUEST", "SPAN", "MS", "STATE")
    return table(head, [(r["request_id"], r["name"], _ms(r), _state(r)) for r in rows], right=(2,))


def tree(path: Path, id: str) -> str:
    """Return a trace as an indented tree.

    Raises:
        DataError: no span has this request or trace id.
    """
    roots = load(path, id)
    lines: list[tuple[str, str, str]] = []
    for root in roots:
        _draw(root, "", "", lines)
    width = max(len(line[0]) for line in lines)
    return "\n".join(f"{label:<{width}}  {ms:>10} ms  {detail}".rstrip() for label, ms, detail in lines)


def load(path: Path, id: str) -> list[Node]:
    """Return the roots of a trace; spans whose parent was not stored are roots too."""
    with closing(_connect(path)) as connection:
        found = connection.execute(
            "select trace_id from spans where request_id = ? or trace_id = ? limit 1", (id, id)
        ).fetchone()
        if found is None:
            raise DataError(f"no span has the request or trace id {id!r}; `trilith traces` lists the newest")
        rows = connection.execute(
            "select * from spans where trace_id = ? order by started_ns", (found["trace_id"],)
        ).fetchall()
    nodes = {row["span_id"]: Node(row) for row in rows}
    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(node.row["parent_id"])
        (parent.children if parent else roots).append(node)
    return roots


def _draw(node: Node, stem: str, branch: str, lines: list[tuple[str, str, str]]) -> None:
    lines.append((f"{stem}{branch}{node.row['name']}", _ms(node.row), _detail(node.row)))
    below = stem + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    for at, child in enumerate(node.children):
        _draw(child, below, "└─ " if at == len(node.children) - 1 else "├─ ", lines)


_SHOWN = {
    names.GUARDRAIL_VERDICT: "verdict",
    names.GUARDRAIL_ENTITY_COUNT: "found",
    names.RETRIEVAL_RETURNED: "passages",
    names.INPUT_TOKENS: "in",
    names.OUTPUT_TOKENS: "out",
    names.BATCH_ROWS: "rows",
    names.COST_PICO_USD: "pico-USD",
    names.HTTP_STATUS: "status",
    names.ERROR_TYPE: "error",
}


def _detail(row: sqlite3.Row) -> str:
    attributes = json.loads(row["attributes"])
    return " ".join(f"{short}={attributes[name]}" for name, short in _SHOWN.items() if name in attributes)


def _ms(row: sqlite3.Row) -> str:
    return f"{(row['ended_ns'] - row['started_ns']) / 1e6:.1f}"


def _state(row: sqlite3.Row) -> str:
    return "failed" if row["failed"] else "ok"


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10)
    connection.row_factory = sqlite3.Row
    return connection


command = Traces()
