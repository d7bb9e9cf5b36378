"""Cuts documents into passages whose offsets are exact and whose ids are the same on every run."""

from __future__ import annotations

import bisect
import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

from trilith.errors import IntegrityError
from trilith.extras import need
from trilith.types import Chunk, Document, Span
from trilith_rag.parsing.parsed import Heading

VERSION = "1"
"""Raised when the same document would be cut in another way."""

_NAMESPACE = uuid.UUID("6f0f7d5e-0d0c-5b0e-9a55-6c1f1f6d2f0a")
_SEPARATORS = [r"(?=\n#{1,6} )", r"\n\n", r"\n", r"(?<=[.!?]) ", " ", ""]


class Chunker:
    """Cuts with langchain's recursive splitter; a passage never crosses a page."""

    def __init__(self, index: str, *, size: int, overlap: int, fingerprint: str) -> None:
        """Take the index's name, lengths in characters, and what else a chunk's id depends on.

        Args:
            index: Name of the index, part of every id.
            size: Longest passage (characters).
            overlap: How much neighbours share (characters).
            fingerprint: Names all settings that decide the chunks and their vectors.
        """
        self._index = index
        self._fingerprint = fingerprint
        self._splitter: Any = need("langchain_text_splitters", extra="rag").RecursiveCharacterTextSplitter(
            chunk_size=size,
            chunk_overlap=overlap,
            separators=_SEPARATORS,
            is_separator_regex=True,
            keep_separator="end",
            add_start_index=True,
        )

    def cut(self, document: Document, headings: Sequence[Heading] = ()) -> list[Chunk]:
        """Return the document's passages in order; each equals `document.text[start:end]`.

        Raises:
            IntegrityError: the splitter gave offsets that are not those of its text.
        """
        chunks = []
        starts = [heading.start for heading in headings]
        paged = bool(document.pages)
        for number, part in enumerate(document.pages or (Span(0, len(document.text)),), start=1):
            for piece in self._splitter.create_documents([document.text[part.start : part.end]]):
                start = part.start + piece.metadata["start_index"]
                span = Span(start, start + len(piece.page_content))
                if document.text[span.start : span.end] != piece.page_content:
                    raise IntegrityError(
                        f"{document.path}: the splitter's offset {start} is not where its passage stands"
                    )
                above = _path_to(headings[: bisect.bisect_right(starts, start)], document.title)
                chunks.append(self._chunk(document, span, above, number if paged else None))
        names = {document.title, *(heading.title for heading in headings)}
        # A heading alone answers nothing, but its few words would outrank passages that do.
        return [chunk for chunk in chunks if chunk.text.strip("# \n") not in names] or chunks

    def _chunk(self, document: Document, span: Span, heading: str, page: int | None) -> Chunk:
        text = document.text[span.start : span.end]
        chunk = Chunk(
            "", document.id, document.path, document.title, text, span.start, span.end, page, heading
        )
        told = hashlib.sha256(search_text(chunk).encode()).hexdigest()
        parts = (self._index, document.id, str(span.start), told, self._fingerprint)
        return Chunk(
            str(uuid.uuid5(_NAMESPACE, "\0".join(parts))),
            document.id,
            document.path,
            document.title,
            text,
            span.start,
            span.end,
            page,
            heading,
        )


def search_text(chunk: Chunk) -> str:
    """Return what is embedded and searched for a chunk: its title and headings, then its text."""
    return "\n".join(part for part in (chunk.title, chunk.heading, chunk.text) if part)


def _path_to(headings: Sequence[Heading], title: str) -> str:
    """Return the headings that enclose a place, outermost first, without one that repeats the title."""
    path: list[Heading] = []
    for heading in headings:
        path = [outer for outer in path if outer.level < heading.level]
        path.append(heading)
    return " > ".join(heading.title for heading in path if heading.title != title)
