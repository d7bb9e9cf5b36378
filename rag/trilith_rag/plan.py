"""What a run has to do: the source's files against the ledger, and the ledger against the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trilith.errors import DataError
from trilith_rag.parsing import Failure, SourceFile
from trilith_rag.parsing.source import digest
from trilith_rag.shelf import Seen


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one run."""

    added: list[SourceFile] = field(default_factory=list)
    changed: list[SourceFile] = field(default_factory=list)
    """Other bytes, or read under other settings."""
    unchanged: list[SourceFile] = field(default_factory=list)
    incomplete: list[SourceFile] = field(default_factory=list)
    """Unchanged ones of which the store has lost chunks."""
    removed: list[str] = field(default_factory=list)
    """Paths in the ledger that the source no longer has."""
    missing: list[str] = field(default_factory=list)
    """Chunk ids that the ledger knows and the store does not hold."""
    orphans: list[str] = field(default_factory=list)
    """Chunk ids that the store holds and the ledger does not know."""
    failed: list[Failure] = field(default_factory=list)


def make_plan(files: Sequence[SourceFile], seen: Seen, fingerprint: str) -> Plan:
    """Compare source, ledger and store.

    Args:
        files: Everything that the source lists.
        seen: The index as it is.
        fingerprint: Names the settings of this run.
    """
    plan = Plan()
    listed = {file.path for file in files}
    plan.removed.extend(path for path in sorted(seen.entries) if path not in listed)
    booked = {id for entry in seen.entries.values() for id in entry.ids}
    plan.missing.extend(sorted(booked - seen.stored.keys()))
    plan.orphans.extend(sorted(seen.stored.keys() - booked))
    missing = set(plan.missing)
    for file in files:
        try:
            found = digest(file.read())
        except DataError as error:
            plan.failed.append(Failure(file.path, str(error)))
            continue
        entry = seen.entries.get(file.path)
        if entry is None:
            plan.added.append(file)
        elif entry.digest != found or entry.fingerprint != fingerprint:
            plan.changed.append(file)
        elif missing.intersection(entry.ids):
            plan.incomplete.append(file)
        else:
            plan.unchanged.append(file)
    return plan
