"""What a parser makes of one file: text, and where in it headings and pages lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from trilith.types import Span


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a document's text."""

    start: int
    """Its first character in the text."""
    level: int
    """1 is the outermost."""
    title: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text of one file, before it is a document of an index."""

    title: str
    """Empty where the file names none."""
    text: str
    headings: tuple[Heading, ...] = ()
    """In order of `start`."""
    pages: tuple[Span, ...] = ()
    """Where each page lies in `text`, first page first; empty where the format has no pages."""


def title_of(path: str) -> str:
    """Return a title made from a file's name, for files that hold none."""
    return PurePosixPath(path).stem.replace("_", " ").replace("-", " ").strip()


def decoded(data: bytes) -> str:
    r"""Return UTF-8 text (UTF-16 with its mark, too) without byte order mark, with line ends as `\n`.

    Raises:
        UnicodeDecodeError: it is something else.
    """
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = data.decode("utf-16" if wide else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")
