"""Makes a dataset from what was asked in production: picks calls, takes personal data out, writes cases.

Personal data is replaced before anything is written; where that cannot be done, nothing is written.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilith.errors import APIError, DataError
from trilith.types import Json
from trilith_evals import likeness, subject
from trilith_evals.schema import ColumnSettings
from trilith_evals.sidecar import Sidecar, read_sidecar, write_sidecar
from trilith_evals.trace import Call, Opinions, Order, Spans, Stratum

if TYPE_CHECKING:
    from trilith.seams import Scanner
    from trilith_governance import Protection


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls become cases."""

    models: frozenset[str] = frozenset()
    """Empty: all."""
    releases: frozenset[str] = frozenset()
    """Digests of releases; empty: all."""
    teams: frozenset[str] = frozenset()
    """Empty: all."""
    since: datetime | None = None
    until: datetime | None = None
    """Not included."""
    opinions: Opinions = "any"
    """What people thought of the answer."""
    middle: float = 0.5
    """Feedback scores below it say that the answer was bad."""
    limit: int | None = None
    """Most cases; None: all."""
    order: Order = "newest"
    """Which come first: the newest, drawn at random, or those whose answers are doubtful."""
    by: Stratum | None = None
    """Take as many of each of these as there are, in turn; None: no matter."""
    seed: int = 0
    """Of whatever is drawn."""
    alike: float = likeness.ALIKE
    """Questions at least so alike (0 to 1) count once, the first by `order`; above 1: all stay."""

    def lacks(self, call: Call) -> str:
        """Say why a call is not wanted; empty when it is."""
        for name, wanted in (("model", self.models), ("release", self.releases), ("team", self.teams)):
            if wanted and getattr(call, name) not in wanted:
                return f"of another {name}"
        if (self.since and call.at < self.since) or (self.until and call.at >= self.until):
            return "of another time"
        if call.failed:
            return "without an answer"
        verdict = call.verdict(self.middle)
        fits = {"any": True, "some": bool(verdict), "none": not verdict}
        return "" if fits.get(self.opinions, verdict == self.opinions) else "of other feedback"


@dataclass(frozen=True, slots=True)
class Harvest:
    """What came of it."""

    cases: int
    read: int
    """Calls with text."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Why calls and spans became no cases."""
    personal: Mapping[str, int] = field(default_factory=dict)
    """Distinct values per case that were taken out, by kind."""


def from_traces(
    paths: Sequence[str],
    to: Path,
    wanted: Wanted | None = None,
    *,
    scanner: Scanner | None = None,
    entities: Sequence[str] = (),
    erasure_key: bytes | None = None,
) -> Harvest:
    """Write a dataset and what stands beside it; over an earlier one, whose parts stay what they were.

    Args:
        paths: Files and folders of exported spans, `-` for standard input.
        to: The `.jsonl` to write.
        wanted: Which calls.
        scanner: What finds personal data; None takes the platform's own.
        entities: Kinds to look for; empty takes those that a policy looks for.
        erasure_key: Keeps keyed hashes of what was taken out, and of who called, on every row.

    Raises:
        DataError: the spans cannot be read, no call is wanted, or the dataset cannot be written.
        SettingsError: what stands beside an earlier dataset is wrong.
        TrilithError: personal data could not be looked for; nothing is written then.
        MissingExtra: a library is not installed.
    """
    if to.suffix != ".jsonl":
        raise DataError(f"{to}: a dataset from traces ends in .jsonl")
    wanted = wanted or Wanted()
    spans = Spans(tuple(paths))
    calls, left_out = [], spans.skipped
    read = 0
    for call in spans:
        read += 1
        if lacks := wanted.lacks(call):
            left_out[lacks] += 1
        else:
            calls.append(call)
    if not calls:
        raise DataError(_nothing(paths, left_out, read))
    chosen = _chosen(calls, wanted, left_out)
    cleaner = _Cleaner(scanner, entities, erasure_key)
    rows = [cleaner.row(call, wanted.middle) for call in chosen]
    before = read_sidecar(to)
    subject.replace(to, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    told = Harvest(len(rows), read, dict(left_out.most_common()), dict(cleaner.found.most_common()))
    sidecar = _sidecar(chosen, wanted, told, erasable=erasure_key is not None)
    if before is not None:  # newer rows of the same dataset: what was held out stays so
        sidecar = sidecar.model_copy(update={"splits": before.splits, "held_out": before.held_out})
    write_sidecar(to, sidecar)
    return told


def _nothing(paths: Sequence[str], left_out: Counter[str], read: int) -> str:
    why = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()) or "no spans"
    hint = "" if read else "; spans hold text only where `telemetry.content` is on"
    return f"{', '.join(paths)}: no call is wanted ({why}){hint}"


def _chosen(calls: Sequence[Call], wanted: Wanted, left_out: Counter[str]) -> list[Call]:
    ordered = _ordered(calls, wanted)
    if wanted.alike <= 1:
        kept = likeness.firsts([likeness.text_of(call.input) for call in ordered], alike=wanted.alike)
        left_out["like another"] += len(ordered) - len(kept)
        ordered = [ordered[at] for at in kept]
    if wanted.by is not None:
        ordered = _in_turn(ordered, _stratum(wanted))
    if wanted.limit is not None and len(ordered) > wanted.limit:
        left_out["beyond the limit"] += len(ordered) - wanted.limit
        ordered = ordered[: wanted.limit]
    return ordered


def _ordered(calls: Sequence[Call], wanted: Wanted) -> list[Call]:
    # Sorted first, so that the order of the files does not change a draw.
    ordered = sorted(calls, key=lambda call: (call.at, call.id), reverse=True)
    if wanted.order != "newest":
        random.Random(wanted.seed).shuffle(ordered)
    if wanted.order == "doubtful":
        ordered.sort(key=lambda call: call.doubt, reverse=True)  # keeps the draw among equals
    return ordered


def _stratum(wanted: Wanted) -> Callable[[Call], str]:
    def of(call: Call) -> str:
        match wanted.by:
            case "day":
                return f"{call.at:%F}"
            case "opinion":
                return call.verdict(wanted.middle)
        return str(getattr(call, wanted.by or "model"))

    return of


def _in_turn(calls: Sequence[Call], stratum: Callable[[Call], str]) -> list[Call]:
    """Order calls so that any beginning of the list has as many of each stratum as there are."""
    by: dict[str, list[Call]] = {}
    for call in calls:
        by.setdefault(stratum(call), []).append(call)
    rounds = max(map(len, by.values()))
    return [group[turn] for turn in range(rounds) for _, group in sorted(by.items()) if turn < len(group)]


class _Cleaner:
    """Makes rows of calls, each with placeholders of its own in place of personal data."""

    def __init__(self, scanner: Scanner | None, entities: Sequence[str], erasure_key: bytes | None) -> None:
        from trilith.settings.policy import PiiSettings

        if scanner is None:
            from trilith_governance.presidio import PresidioScanner

            scanner = PresidioScanner()
        self._scanner = scanner
        self._settings = PiiSettings(entities=tuple(entities)) if entities else PiiSettings()
        self._key = erasure_key
        self.found: Counter[str] = Counter()

    def row(self, call: Call, middle: float) -> dict[str, Json]:
        """Return one row; the same value has the same placeholder in all of it."""
        from trilith_governance import Protection

        protection = Protection(self._scanner, self._settings)
        input, answer, correction = self._masked(
            [call.input, call.answer, call.correction or None], protection
        )
        self.found.update(protection.counts)
        row: dict[str, Json] = {"id": call.id, "input": input}
        if correction is not None:
            row["expected"] = correction
        row |= {
            "answer": answer,
            "conversation": call.conversation or call.trace_id,
            "model": call.model,
            "release": call.release,
            "at": call.at.isoformat(timespec="seconds"),
            "opinion": call.verdict(middle),
            "doubt": round(call.doubt, 4),
        }
        if self._key is not None:
            values = {*protection.originals.values(), *(f"key:{call.key_id}" for _ in call.key_id[:1])}
            row[subject.COLUMN] = sorted(subject.hashed(self._key, value) for value in values)
        return row

    def _masked(self, texts: Any, protection: Protection) -> Any:
        def reserve(text: str) -> str:
            protection.reserve(text)
            return text

        try:
            _each(texts, reserve)
            once = _each(texts, protection.mask)
        except APIError as error:
            cause = type(error.__cause__ or error).__name__
            raise DataError(
                f"personal data could not be looked for ({cause}); nothing was written, as it may hold some"
            ) from error
        # What was found later in the row stands for the same person where it was overlooked before.
        return _each(once, protection.mask_known)


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each(one, change) for one in value]
    if isinstance(value, Mapping):  # a message: its role is ours
        return {k: inner if k == "role" else _each(inner, change) for k, inner in value.items()}
    return value


def _sidecar(calls: Iterable[Call], wanted: Wanted, told: Harvest, *, erasable: bool) -> Sidecar:
    times = [call.at for call in calls]
    text = ColumnSettings(type="text")
    columns = {
        "id": ColumnSettings(type="text", unique=True),
        "input": ColumnSettings(),
        "expected": ColumnSettings(type="text", required=False),
        **dict.fromkeys(("answer", "conversation", "model", "release", "at"), text),
        "opinion": ColumnSettings(type="text", values=("", "up", "down", "mixed")),
        "doubt": ColumnSettings(type="number", min=0, max=1),
    }
    if erasable:
        columns[subject.COLUMN] = ColumnSettings(type="list")
    return Sidecar(
        description="Cases from recorded calls, personal data replaced. conversation is the cluster.",
        columns=columns,
        held_out=False,
        source={
            "kind": "traces",
            "from": min(times).isoformat(timespec="seconds"),
            "to": max(times).isoformat(timespec="seconds"),
            "models": sorted({call.model for call in calls}),
            "cases": told.cases,
            "read": told.read,
            "left_out": dict(told.left_out),
            "personal_data": dict(told.personal),
            "opinions": wanted.opinions,
            "order": wanted.order,
            "by": wanted.by or "",
            "seed": wanted.seed,
        },
    )
