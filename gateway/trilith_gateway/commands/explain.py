"""`trilith explain REQUEST_ID`: who asked, what answered and why, what it used and what it cost.

All of it stands in the ledger; spans, where they are stored, add how long each part took.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trilith.errors import DataError
from trilith.money import format_usd
from trilith.settings.schema import Settings
from trilith.telemetry import names
from trilith_gateway import decision, kept, tracing
from trilith_gateway.commands.option import add_settings, read_settings
from trilith_gateway.commands.traces import Node, load
from trilith_gateway.store.opening import open_connection

_RULES = {
    "usage": "the upstream reported what was used",
    "estimate": "the upstream reported nothing: bytes / 3, rounded up",
    "aborted": "the caller left: what was reported by then",
    "broken": "the upstream broke off: what was reported by then",
    "cached": "answered from the cache, or by a call that another one pays for: nothing is charged",
    "failed": "no answer: nothing is charged",
    "unpriced": "the model has no price for it: the amount is unknown, not zero",
    "rerated": "the same at another price",
}


class Explain:
    """Explain one request."""

    help = "why a request was answered as it was, by what, and what it cost"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "id", help="the request's id, from the header x-request-id, or the id of its response"
        )
        parser.add_argument(
            "--json", action="store_true", help="print JSON; amounts are integers of pico-USD"
        )
        add_settings(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the explanation."""
        settings = read_settings(arguments)
        found = explain(settings, arguments.id)
        print(json.dumps(found, indent=2) if arguments.json else _text(found))
        return 0


def explain(settings: Settings, id: str) -> dict[str, Any]:
    """Collect what ledger, audit log and traces know of one request.

    Raises:
        DataError: none of them knows it.
    """
    with closing(open_connection(settings)) as connection:
        charges = [
            dict(row)
            for row in connection.execute(
                "select * from ledger where request_id = ? or id = ? or kept_as = ? order by at, attempt",
                (id, id, kept.digest(id)),
            )
        ]
        keys = {row["id"]: row["name"] for row in connection.execute("select id, name from keys")}
        audited = [
            {"event": row["event"], **json.loads(row["detail"])}
            for row in connection.execute("select event, detail from audit where detail like ?", (f"%{id}%",))
        ]
    for charge in charges:
        charge["key_name"] = keys.get(charge["key_id"], "-")
        charge["decided"] = [
            {"fact": fact, "words": decision.words(fact)} for fact in decision.read(charge["decided"])
        ]
    steps = _steps(settings.home, id)
    if not charges and not steps:
        raise DataError(
            f"nothing is known of the request {id!r}: it was not let in, or another platform answered it. "
            "`trilith traces` lists the newest"
        )
    return {"request_id": id, "charges": charges, "audit": audited, "steps": steps}


def _steps(home: Path, id: str) -> list[dict[str, Any]]:
    path = tracing.database(home)
    if not path.exists():
        return []
    try:
        roots = load(path, id)
    except (DataError, sqlite3.Error):
        return []
    found: list[dict[str, Any]] = []

    def visit(node: Node) -> None:
        attributes = json.loads(node.row["attributes"])
        if attributes.get(names.REQUEST_ID) == id or found:
            found.append(
                {
                    "name": node.row["name"],
                    "ms": round((node.row["ended_ns"] - node.row["started_ns"]) / 1e6, 3),
                    "attributes": attributes,
                }
            )
        for child in node.children:
            visit(child)

    for root in roots:
        visit(root)
    return found


def _text(found: dict[str, Any]) -> str:
    lines = [found["request_id"]]
    for charge in found["charges"]:
        lines += _charge(charge)
    for entry in found["audit"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in entry.get("entities", {}).items())
        lines.append(f"  policy    {entry.get('policy', '-')}: {entry['event']} ({kinds or 'nothing found'})")
    if not any(charge["decided"] for charge in found["charges"]):  # refused at the door, or of an old release
        for step in found["steps"]:
            lines += [f"  decided   {why}" for why in step["attributes"].get(names.DECISIONS, ())]
    for step in found["steps"]:
        told = step["attributes"]
        state = told.get(names.ERROR_TYPE) or told.get(names.HTTP_STATUS, "")
        lines.append(f"  {step['ms']:>9.1f} ms  {step['name']}  {state}".rstrip())
    return "\n".join(lines)


def _charge(charge: dict[str, Any]) -> list[str]:
    at = datetime.fromtimestamp(charge["at"], UTC).isoformat(timespec="milliseconds")
    amount = charge["amount_pico_usd"]
    used = ", ".join(
        f"{charge[name]} {name.replace('_', ' ')}"
        for name in ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "rows")
        if charge[name]
    )
    first = charge["first_byte_ms"]
    times = f"{charge['duration_ms']:.1f} ms in all"
    if first is not None:
        times += f", {first:.1f} ms to the upstream's first byte"
    head = {"attempt": f"  try {charge['attempt']}", "adjustment": "  adjusted"}.get(
        charge["category"], "  answered"
    )
    return [
        f"{head:<11} {at}, answered with status {charge['status']}"
        + (", streamed" if charge["streamed"] else ""),
        f"  asked by  key {charge['key_name']} ({charge['key_id']}) of team {charge['team']}"
        + (f" of {charge['org']}" if charge["org"] else ""),
        f"  model     {charge['model']} ({charge['kind']}), release {charge['release']}"
        + (f", for {charge['asked']}" if charge["asked"] else ""),
        *_upstream(charge),
        *_budget(charge),
        *(f"  decided   {one['words']}" for one in charge["decided"]),
        f"  used      {used or 'nothing'}",
        f"  cost      {'unknown' if amount is None else format_usd(amount) + ' USD'} at price "
        f"{charge['price'] or '-'}, rule {charge['rule']}: {_RULES.get(charge['rule'], '')}",
        f"  took      {times}",
    ]


def _upstream(charge: dict[str, Any]) -> list[str]:
    if charge["upstream"]:
        return [f"  upstream  {charge['upstream']}"]
    if charge["rule"] == "cached":
        return ["  upstream  none: it was answered from what is kept, or with another's call"]
    if charge["rule"] == "failed":
        return []
    return ["  upstream  none is named: the gateway's own process, or the row of an earlier release"]


def _budget(charge: dict[str, Any]) -> list[str]:
    did, _, account = charge["budget"].partition(" ")
    match did:
        case "soft":
            return [f"  budget    the soft share of {account} is spent"]
        case "degrade":
            return [f"  budget    {charge['asked']} was asked for, and {account} has no more for dear models"]
    return []


command = Explain()
