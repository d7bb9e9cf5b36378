"""HTML: the words a reader sees, one block a paragraph, without navigation, scripts and footers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from trilith.extras import need
from trilith_rag.parsing.parsed import Heading, Parsed

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

_UNSEEN = (
    "script style noscript template nav footer aside form button select svg canvas iframe object head"
).split()
_BLOCKS = frozenset(
    (
        "address article blockquote body dd details div dl dt fieldset figcaption figure h1 h2 h3 h4 h5 h6 "
        "header hr li main ol p pre section summary table tbody td tfoot th thead tr ul"
    ).split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def parse_html(data: bytes) -> Parsed:
    """Read HTML in whatever encoding it declares."""
    soup: BeautifulSoup = need("bs4", extra="rag").BeautifulSoup(data, "html.parser")
    title = _line(soup.title.get_text()) if soup.title else ""
    for unseen in soup.find_all(_UNSEEN):
        unseen.decompose()
    writer = _Writer()
    writer.walk(soup.find("main") or soup.find("article") or soup.body or soup)
    writer.end_block()
    outermost = next((heading.title for heading in writer.headings if heading.level == 1), "")
    return Parsed(title=outermost or title, text=writer.text, headings=tuple(writer.headings))


class _Writer:
    """Collects blocks of running text, a blank line between them; rows of a table are one block."""

    def __init__(self) -> None:
        self.text = ""
        self.headings: list[Heading] = []
        self._parts: list[str] = []

    def walk(self, node: Tag) -> None:
        for child in node.children:
            if getattr(child, "name", None) is None:
                if type(child).__name__ == "NavigableString":  # not a comment or a doctype
                    self._parts.append(str(child))
                continue
            tag = cast("Tag", child)
            name = tag.name
            if name == "br":
                self._parts.append(" ")
            elif name == "pre":
                self.end_block()
                self._block(tag.get_text().strip("\n"))
            elif name in _BLOCKS:
                self._nested(tag, name)
            else:
                self.walk(tag)

    def _nested(self, node: Tag, name: str) -> None:
        if name in ("td", "th"):
            self._parts.append(" | " if "".join(self._parts).strip() else "")
            self.walk_cell(node)
            return
        self.end_block()
        if name == "li":
            self._parts.append("- ")
        before = len(self.text)
        self.walk(node)
        self.end_block()
        if name in _HEADINGS and len(self.text) > before:
            start = before + 2 if before else 0
            self.headings.append(Heading(start, _HEADINGS[name], self.text[start:]))

    def walk_cell(self, node: Tag) -> None:
        """Write a cell on its row's line, whatever blocks it holds."""
        self._parts.append(_line(node.get_text(" ")))

    def end_block(self) -> None:
        words = _line("".join(self._parts))
        self._parts = []
        if words and words != "-":
            self._block(words)

    def _block(self, text: str) -> None:
        if text:
            self.text += ("\n\n" if self.text else "") + text


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
