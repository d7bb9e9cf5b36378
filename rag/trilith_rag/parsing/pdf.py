"""PDF: the text layer, page by page, with the lines of a paragraph joined again."""

from __future__ import annotations

import io
import re
from typing import Any

from trilith.errors import DataError
from trilith.extras import need
from trilith.types import Span
from trilith_rag.parsing.parsed import Parsed

_ENDS = (".", "!", "?", ":", '."', '?"', '!"', ".”", "?”", "!”", ".)")
_SHORT = 0.8
"""A line that ends a sentence and is shorter than this share of the page's longest ends its paragraph."""
_NO_TITLE = ("", "untitled", "(anonymous)", "(unspecified)")


def parse_pdf(data: bytes) -> Parsed:
    """Read a PDF's text; every page is a span of it.

    Raises:
        DataError: it is encrypted, or no PDF.
    """
    pypdf = need("pypdf", extra="rag")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DataError("it is encrypted; expected a PDF that opens without a password")
        title = _title(reader)
        texts = [_paragraphs(page.extract_text(), title) for page in reader.pages]
    except pypdf.errors.PyPdfError as error:
        raise DataError(f"it is not a readable PDF ({error})") from error
    text, pages = "", []
    for page in texts:
        text += "\n\n" if text and page else ""
        pages.append(Span(len(text), len(text) + len(page)))
        text += page
    return Parsed(title=title, text=text, pages=tuple(pages))


def _title(reader: Any) -> str:
    title = str((reader.metadata.title if reader.metadata else None) or "").strip()
    return "" if title.lower() in _NO_TITLE else title


def _paragraphs(page: str, title: str) -> str:
    """Join a page's lines into paragraphs, and words that a line end has divided; the title stands alone."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in page.replace("\x00", "").splitlines()]
    longest = max(map(len, lines), default=0)
    text = ""
    for line in lines:
        if not line:
            text = text.rstrip() + "\n\n" if text.strip() else ""
        elif re.search(r"[a-z]-$", text) and re.match(r"[a-z]", line):
            text = text[:-1] + line
        else:
            text += (" " if text and not text.endswith("\n") else "") + line
        if line and line == title or line.endswith(_ENDS) and len(line) < _SHORT * longest:
            text += "\n\n"
    return re.sub(r"\n{3,}", "\n\n", text).strip()
