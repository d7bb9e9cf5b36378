"""Brings an index in step with its source folder and says what it did; a second run does nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from trilith.errors import DataError, IntegrityError
from trilith.seams import Embedder, VectorIndex
from trilith.settings.schema import IndexSettings
from trilith.types import Chunk
from trilith_rag import chunk, sparse
from trilith_rag.cache import EmbeddingCache
from trilith_rag.chunk import Chunker, search_text
from trilith_rag.embedder import MiniLmEmbedder
from trilith_rag.generation import building, index_folder
from trilith_rag.ledger import Entry, Ledger
from trilith_rag.parsing import SUFFIXES, Failure, SourceFile, list_source, parse, source
from trilith_rag.plan import Plan, make_plan
from trilith_rag.shelf import Seen, open_shelf

MEAN_LENGTH = "mean_length"
EMBEDDER = "embedder"

_DRIFT = 0.05
"""BM25 weights are made anew when the corpus's mean length has moved by more than this share."""
_GROUP = 128
"""Chunks that are embedded and stored together, with their documents' entries in the ledger."""

Progress = Callable[[int, int], None]
"""Told how many of how many chunks are done."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one run found and did."""

    index: str
    added: int
    changed: int
    """Documents with other bytes, or read under other settings than now."""
    removed: int
    unchanged: int
    chunks: int
    """Chunks in the index after the run."""
    embedded: int
    """Texts that the model had to read; the others' vectors were kept from earlier runs."""
    store_missing: int
    """Chunks that the ledger knew and the store had lost; they are there again."""
    store_orphans: int
    """Chunks that the store held and the ledger did not know; they are gone."""
    failed: tuple[Failure, ...]
    """Documents that could not be read; what the index had of them stays."""
    empty: tuple[str, ...]
    """Documents without any text."""
    seconds: float
    dry_run: bool = False
    """Nothing was changed: the figures are what a run would do, `embedded` is 0."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A document, ready to be stored."""

    entry: Entry
    chunks: list[Chunk]


def sync(
    settings: IndexSettings,
    home: Path,
    name: str,
    *,
    embedder: Embedder | None = None,
    dry_run: bool = False,
    allow_empty: bool = False,
    progress: Progress | None = None,
) -> SyncReport:
    """Bring the index `name` in step with its source folder.

    The plan compares three things: the folder, the ledger, and the chunk ids that the store really holds;
    what was lost from the store or put there by others is healed. A run that is killed leaves an index
    as it was (or, on a server, one that the next run completes).

    Args:
        settings: Source folder, chunk lengths, and where the index is.
        home: The platform's folder.
        name: The index's name in the settings.
        embedder: What makes the vectors; by default the settings' own.
        dry_run: Only say what would be done.
        allow_empty: Let a source without any document make an index without any.
        progress: Told how far embedding and storing are.

    Raises:
        DataError: the source folder is not there or has no document.
        EngineError: another process is building this index.
        IntegrityError: after the run the store does not hold what the ledger says.
    """
    started = time.monotonic()
    embedder = embedder or MiniLmEmbedder()
    folder = index_folder(home, name)
    shelf = open_shelf(settings, home, name, dimension=embedder.dimension)
    fingerprint = fingerprint_of(settings, embedder)
    with nullcontext() if dry_run else building(folder, name):
        files = list_source(settings.source)
        seen = shelf.look()
        if not files and not allow_empty:
            raise DataError(
                f"{str(settings.source)!r} has no document, and the index {name!r} has {len(seen.entries)}; "
                f"expected files that end in {', '.join(SUFFIXES)}. "
                "If there are really none, say --allow-empty"
            )
        if seen.facts.get(EMBEDDER, embedder.fingerprint) != embedder.fingerprint:
            seen = replace(seen, damaged=True)  # its vectors do not compare with the new ones
        plan = make_plan(files, seen, fingerprint)
        if dry_run:
            return _report(name, plan, seen.entries, 0, started, dry_run=True)
        chunker = Chunker(
            name, size=settings.chunk_chars, overlap=settings.chunk_overlap_chars, fingerprint=fingerprint
        )
        cache = EmbeddingCache(folder / "embeddings.db", embedder)
        try:
            run = _Run(chunker, cache, fingerprint, plan, seen)
            mean_length = run.read()
            if not run.writes:
                return _report(name, plan, seen.entries, 0, started)
            with shelf.change(seen, mean_length) as (index, ledger):
                entries = run.write(index, ledger, progress or (lambda *_: None))
                ledger.note(MEAN_LENGTH, repr(mean_length))
                ledger.note(EMBEDDER, embedder.fingerprint)
            shelf.tidy()
            cache.keep_only(key for entry in entries.values() for _, key in entry.chunks)
            return _report(name, plan, entries, cache.embedded, started)
        finally:
            cache.close()


def fingerprint_of(settings: IndexSettings, embedder: Embedder) -> str:
    """Return 16 hexadecimal digits that change when the same document would be stored in another way."""
    parts = (
        source.VERSION,
        chunk.VERSION,
        str(settings.chunk_chars),
        str(settings.chunk_overlap_chars),
        embedder.fingerprint,
        sparse.FINGERPRINT,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class _Run:
    """One run's work: reads documents, then writes them."""

    def __init__(
        self, chunker: Chunker, cache: EmbeddingCache, fingerprint: str, plan: Plan, seen: Seen
    ) -> None:
        self._chunker = chunker
        self._cache = cache
        self._fingerprint = fingerprint
        self._plan = plan
        self._seen = seen
        self._read: list[_Read] = []

    def read(self) -> float:
        """Read what is to be written; returns the mean BM25 length to weigh it by (tokens)."""
        plan = self._plan
        self._parse([*plan.added, *plan.changed, *plan.incomplete])
        measured = self._mean_length()
        used = float(self._seen.facts.get(MEAN_LENGTH, 0.0))
        if used and abs(measured - used) <= _DRIFT * used and not self._seen.damaged:
            return used
        self._parse(plan.unchanged)
        return measured

    def _parse(self, files: Sequence[SourceFile]) -> None:
        for file in files:
            try:
                document, parsed = parse(file.path, file.read())
            except DataError as error:
                self._plan.failed.append(Failure(file.path, str(error)))
                continue
            chunks = self._chunker.cut(document, parsed.headings) if document.text.strip() else []
            texts = [search_text(one) for one in chunks]
            keys = [self._cache.key(text) for text in texts]
            entry = Entry(
                path=file.path,
                digest=document.digest,
                fingerprint=self._fingerprint,
                tokens=sum(sparse.count_tokens(texts)),
                chunks=tuple((one.id, key) for one, key in zip(chunks, keys, strict=True)),
            )
            self._read.append(_Read(entry, chunks))

    def _mean_length(self) -> float:
        removed = set(self._plan.removed)
        entries = {path: entry for path, entry in self._seen.entries.items() if path not in removed}
        entries |= {read.entry.path: read.entry for read in self._read}
        count = sum(len(entry.chunks) for entry in entries.values())
        return sum(entry.tokens for entry in entries.values()) / count if count else sparse.DEFAULT_LENGTH

    @property
    def writes(self) -> bool:
        """Whether anything is to be changed."""
        first = MEAN_LENGTH not in self._seen.facts
        return bool(first or self._seen.damaged or self._read or self._plan.removed or self._plan.orphans)

    def write(self, index: VectorIndex, ledger: Ledger, progress: Progress) -> dict[str, Entry]:
        """Bring index and ledger to the new state; returns all entries.

        The order makes every crash repairable: new chunks first, then the old ones of the same documents,
        then the ledger.
        """
        before = ledger.entries()
        done, total = 0, sum(len(read.chunks) for read in self._read)
        for group in _groups(self._read):
            chunks = [one for read in group for one in read.chunks]
            index.upsert(chunks, self._cache.vectors([search_text(one) for one in chunks]))
            stale = {id for read in group if read.entry.path in before for id in before[read.entry.path].ids}
            index.delete(sorted(stale.difference(one.id for one in chunks)))
            ledger.put([read.entry for read in group])
            done += len(chunks)
            progress(done, total)
        gone = [path for path in (*self._plan.removed, *self._lost(before)) if path in before]
        index.delete([id for path in gone for id in before[path].ids])
        ledger.drop(gone)
        entries = ledger.entries()
        booked = {id for entry in entries.values() for id in entry.ids}
        index.delete(sorted(set(self._plan.orphans) - booked))
        _verify(index, booked)
        return entries

    def _lost(self, before: Mapping[str, Entry]) -> list[str]:
        """Return documents that can no longer be read and that the store has lost chunks of."""
        missing = set(self._plan.missing)
        failed = (before.get(failure.path) for failure in self._plan.failed)
        return [entry.path for entry in failed if entry is not None and missing.intersection(entry.ids)]


def _groups(reads: Sequence[_Read]) -> Iterator[list[_Read]]:
    group: list[_Read] = []
    size = 0
    for read in reads:
        group.append(read)
        size += len(read.chunks)
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _verify(index: VectorIndex, booked: set[str]) -> None:
    stored = index.ids().keys()
    missing, extra = len(booked - stored), len(stored - booked)
    if missing or extra:
        raise IntegrityError(
            f"after the run the store lacks {missing} chunks of the ledger and holds {extra} others; "
            "expected none. Is another process writing to it? Run `trilith ingest` again"
        )


def _report(
    name: str,
    plan: Plan,
    entries: Mapping[str, Entry],
    embedded: int,
    started: float,
    *,
    dry_run: bool = False,
) -> SyncReport:
    failed = {failure.path for failure in plan.failed}
    return SyncReport(
        index=name,
        added=sum(file.path not in failed for file in plan.added),
        changed=sum(file.path not in failed for file in plan.changed),
        removed=len(plan.removed),
        unchanged=len(plan.unchanged) + len(plan.incomplete),
        chunks=sum(len(entry.chunks) for entry in entries.values()),
        embedded=embedded,
        store_missing=len(plan.missing),
        store_orphans=len(plan.orphans),
        failed=tuple(plan.failed),
        empty=tuple(path for path, entry in sorted(entries.items()) if not entry.chunks),
        seconds=time.monotonic() - started,
        dry_run=dry_run,
    )
