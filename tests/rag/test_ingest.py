"""`trilith ingest`'s work on the real engine: what a run does, and that a second one does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rag_words import WordEmbedder

from trilith.errors import DataError
from trilith.seams import Embedder
from trilith.settings.schema import IndexSettings
from trilith_rag import SyncReport, open_index, sync
from trilith_rag.parsing import parse

Run = Callable[[], SyncReport]

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo" / "documents"


@pytest.fixture
def run(tmp_path: Path, source: IndexSettings, embedder: Embedder) -> Run:
    return lambda: sync(source, tmp_path / "home", "docs", embedder=embedder)


def counts(report: SyncReport) -> tuple[int, int, int, int]:
    return report.added, report.changed, report.removed, report.unchanged


def test_a_second_run_changes_and_embeds_nothing(run: Run, embedder: WordEmbedder) -> None:
    assert counts(run()) == (3, 0, 0, 0)
    read = embedder.read
    second = run()
    assert counts(second) == (0, 0, 0, 3)
    assert (second.embedded, embedder.read) == (0, read)


def test_a_changed_a_removed_and_a_new_document_are_each_seen(run: Run, source: IndexSettings) -> None:
    run()
    (source.source / "cats.md").write_text("# Cats\n\nA cat sleeps.\n", "utf-8")
    (source.source / "tax.txt").unlink()
    (source.source / "new.txt").write_text("A new text.\n", "utf-8")
    assert counts(run()) == (1, 1, 1, 1)


def test_what_the_store_lost_comes_back_and_what_it_gained_goes(
    run: Run,
    source: IndexSettings,
    embedder: Embedder,
    tmp_path: Path,
) -> None:
    from rag_words import chunk

    from trilith_rag.generation import Generations, index_folder
    from trilith_rag.index.edge import EdgeIndex

    run()
    current = Generations(index_folder(tmp_path / "home", "docs")).current()
    assert current is not None
    (shard,) = {path.parent for path in current.rglob("edge_config.json")}
    index = EdgeIndex(shard, dimension=embedder.dimension, create=False)
    index.delete(list(index.ids())[:1])
    index.upsert([chunk("stray", "A stray text.")], [[1.0] + [0.0] * (embedder.dimension - 1)])
    index.close()
    healed = run()
    assert (healed.store_missing, healed.store_orphans) == (1, 1)
    assert (run().store_missing, run().store_orphans) == (0, 0)


def test_a_document_that_cannot_be_read_is_named_and_the_others_go_on(
    run: Run, source: IndexSettings
) -> None:
    (source.source / "broken.pdf").write_bytes(b"%PDF-1.4 and then nothing")
    report = run()
    assert [failure.path for failure in report.failed] == ["broken.pdf"]
    assert report.added == 3


def test_a_missing_folder_is_refused_and_nothing_is_lost(run: Run, source: IndexSettings) -> None:
    run()
    for path in source.source.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no document"):
        run()


def test_a_running_reader_sees_the_next_run(
    run: Run,
    source: IndexSettings,
    embedder: Embedder,
    tmp_path: Path,
) -> None:
    run()
    retriever = open_index(source, home=tmp_path / "home", name="docs", embedder=embedder)
    (source.source / "moon.txt").write_text("The moon circles the earth.\n", "utf-8")
    run()
    paths = [hit.chunk.path for hit in retriever.retrieve("moon circles earth", 2)]
    retriever.close()
    assert paths[0] == "moon.txt"


def test_a_passage_is_a_span_of_its_document(
    run: Run, source: IndexSettings, embedder: Embedder, tmp_path: Path
) -> None:
    run()
    retriever = open_index(source, home=tmp_path / "home", name="docs", embedder=embedder)
    hits = retriever.retrieve("the sea is salty", 3)
    retriever.close()
    for hit in hits:
        document, _ = parse(hit.chunk.path, (source.source / hit.chunk.path).read_bytes())
        assert document.text[hit.chunk.start : hit.chunk.end] == hit.chunk.text


@pytest.mark.parametrize("suffix", [".md", ".html", ".txt", ".pdf"])
def test_every_format_of_the_demo_is_read_with_its_text(suffix: str) -> None:
    for path in DEMO.glob(f"*{suffix}"):
        document, _ = parse(path.name, path.read_bytes())
        assert len(document.text) > 1000
        assert document.title
        assert "<" not in document.text
        if suffix == ".pdf":
            assert "".join(document.text[page.start : page.end] for page in document.pages).strip()


def test_a_kept_answer_can_tell_that_its_documents_have_changed(
    run: Run, tmp_path: Path, source: IndexSettings, embedder: Embedder
) -> None:
    run()
    retriever = open_index(source, home=tmp_path / "home", name="docs", embedder=embedder)
    first = retriever.version()
    run()  # which changes nothing
    assert first is not None
    assert retriever.version() == first
    (source.source / "new.txt").write_text("A new text.\n", "utf-8")
    run()
    assert retriever.version() not in (None, first)
    retriever.close()


def test_a_servers_documents_are_known_by_their_book_or_not_at_all(
    tmp_path: Path, source: IndexSettings, embedder: Embedder
) -> None:
    from trilith_rag.retriever import _book

    ledger = tmp_path / "ledger.db"
    assert _book(ledger) is None
    ledger.write_bytes(b"1")
    first = _book(ledger)
    ledger.write_bytes(b"12")
    assert _book(ledger) not in (None, first)
