"""Markdown: the source text itself, so that offsets are those of the file; headings are noted."""

from __future__ import annotations

import re

from trilith_rag.parsing.parsed import Heading, Parsed, decoded

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_LINE = re.compile(r"^.*$", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")


def parse_markdown(data: bytes) -> Parsed:
    """Read Markdown; front matter is set aside, except for its title."""
    text = decoded(data)
    front = _FRONT_MATTER.match(text)
    title = ""
    if front is not None:
        named = _FRONT_TITLE.search(front.group(1))
        title = named.group(1).strip("\"'") if named else ""
        # Blanked, not cut: the offsets of all that follows stay those of the file.
        text = re.sub(r"[^\n]", " ", front.group(0)) + text[front.end() :]
    headings = _headings(text)
    outermost = next((heading.title for heading in headings if heading.level == 1), "")
    return Parsed(title=title or outermost, text=text, headings=headings)


def _headings(text: str) -> tuple[Heading, ...]:
    found: list[Heading] = []
    fence = ""
    for line in _LINE.finditer(text):
        marks = _FENCE.match(line.group())
        if marks is not None:
            mark = marks.group(1)
            if not fence:
                fence = mark
            elif mark.startswith(fence) and not line.group().strip(" " + fence[0]):
                fence = ""
            continue
        heading = None if fence else _HEADING.match(line.group())
        if heading is not None and heading.group(2):
            found.append(Heading(line.start(), len(heading.group(1)), heading.group(2)))
    return tuple(found)
