"""Fixtures for tests of retrieval."""

from __future__ import annotations

from pathlib import Path

import pytest
from rag_words import WordEmbedder

from trilith.settings.schema import IndexSettings


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def source(tmp_path: Path) -> IndexSettings:
    """Three short documents in three formats."""
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "cats.md").write_text("# Cats\n\nA cat purrs when it is content. Kittens play.\n", "utf-8")
    (folder / "tax.txt").write_text("The tax return is due in May. A late return costs a fee.\n", "utf-8")
    words = "<script>x()</script><p>The sea is salty.</p><p>Ships sail it.</p>"
    page = f"<html><title>Sea</title><body>{words}</body></html>"
    (folder / "sea.html").write_text(page, "utf-8")
    return IndexSettings(source=folder, chunk_chars=200, chunk_overlap_chars=20)
