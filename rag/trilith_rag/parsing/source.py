"""A folder of source files: which there are, and each one read into a document."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trilith.errors import DataError
from trilith.types import Document
from trilith_rag.parsing.html import parse_html
from trilith_rag.parsing.markdown import parse_markdown
from trilith_rag.parsing.parsed import Parsed, title_of
from trilith_rag.parsing.pdf import parse_pdf
from trilith_rag.parsing.text import parse_text

VERSION = "1"
"""Raised when a parser gives another text for the same bytes: all documents are then read anew."""

_PARSERS: dict[str, Callable[[bytes], Parsed]] = {
    ".md": parse_markdown,
    ".markdown": parse_markdown,
    ".html": parse_html,
    ".htm": parse_html,
    ".pdf": parse_pdf,
    ".txt": parse_text,
}
SUFFIXES = tuple(sorted(_PARSERS))
"""File names that are read."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file in a source folder."""

    path: str
    """Relative to the folder, with `/`; also the document's id."""
    file: Path

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return self.file.read_bytes()
        except OSError as error:
            raise DataError(f"it cannot be read ({error.strerror})") from error


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be read, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def list_source(folder: Path) -> list[SourceFile]:
    """Return the readable formats' files below a folder, in order of path; hidden ones are passed over.

    Raises:
        DataError: the folder is not there, so nothing may be concluded about its documents.
    """
    if not folder.is_dir():
        raise DataError(f"{str(folder)!r} is not a folder; expected the documents of the index there")
    found = []
    for file in folder.rglob("*"):
        relative = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if file.suffix.lower() in _PARSERS and not hidden and (file.is_file() or file.is_symlink()):
            found.append(SourceFile(relative.as_posix(), file))
    return sorted(found, key=lambda source: source.path)


def digest(data: bytes) -> str:
    """Return the sha256 of a file's bytes (hexadecimal)."""
    return hashlib.sha256(data).hexdigest()


def parse(path: str, data: bytes) -> tuple[Document, Parsed]:
    """Read one file's bytes into a document.

    Args:
        path: Relative to the source folder; its suffix chooses the parser.
        data: The file's bytes.

    Returns:
        The document, and the parser's own result with the headings.

    Raises:
        DataError: the bytes are not what the suffix promises.
    """
    suffix = Path(path).suffix.lower()
    try:
        parsed = _PARSERS[suffix](data)
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 text (byte {error.start}); expected UTF-8") from error
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        # Parsers of foreign formats fail in their own ways on malformed files; one file must not end the run.
        raise DataError(f"it is not a readable {suffix} file ({type(error).__name__}: {error})") from error
    document = Document(
        id=path,
        path=path,
        title=parsed.title or title_of(path),
        text=parsed.text,
        digest=digest(data),
        pages=parsed.pages,
    )
    return document, parsed
