"""Patterns for structured personal data, with the checks that tell a card from any sixteen digits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from trilith.types import Finding

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9](?:[\w.+-]{0,62}[\w+-])?@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"
)
_CARD = re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-])")
_PHONE = re.compile(
    r"""(?<![\w.,:/$€£#-])(?:
        (?:\+\d{1,3}[ .-]?)?\(\d{1,4}\)[ .-]?\d{2,4}(?:[ .-]\d{2,4}){1,4}   # +1 (212) 555-0199
      | \+\d{1,3}[ .-]\d{2,4}(?:[ .-]\d{2,4}){1,4}                          # +49 30 1234 5678
      | \d{2,4}(?:[ .-]\d{2,4}){2,4}                                        # 030 1234 5678
      | \+\d{8,15}                                                          # +4930123456
    )(?:\s?(?:x|ext\.?)\s?\d{1,5})?(?![\w-]|[.,:/]\d)""",
    re.VERBOSE,
)


def luhn(text: str) -> bool:
    """Say whether the digits pass the Luhn check (ISO/IEC 7812-1)."""
    digits = [int(c) for c in text if c.isdecimal()]
    doubled = [d if at % 2 == 0 else sum(divmod(2 * d, 10)) for at, d in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _phone(text: str) -> bool:
    digits = sum(c.isdecimal() for c in text)
    return 7 <= digits <= 15 and not re.fullmatch(r"\d{4}-\d{2}-\d{2}|\d{1,2}[.-]\d{1,2}[.-]\d{2,4}", text)


_PATTERNS: dict[str, tuple[re.Pattern[str], Callable[[str], bool], float]] = {
    "EMAIL_ADDRESS": (_EMAIL, lambda _: True, 1.0),
    "CREDIT_CARD": (_CARD, luhn, 1.0),
    "PHONE_NUMBER": (_PHONE, _phone, 0.6),
}

COMPLETE = frozenset({"EMAIL_ADDRESS", "CREDIT_CARD"})
"""Kinds that the patterns find as well as anything does; for the others they add to what Presidio finds."""


def find(text: str, entities: Sequence[str]) -> list[Finding]:
    """Return what the patterns for `entities` match; kinds without a pattern are left to others."""
    found = []
    for entity in entities:
        if entity in _PATTERNS:
            pattern, valid, score = _PATTERNS[entity]
            found += [
                Finding(entity, m.start(), m.end(), score) for m in pattern.finditer(text) if valid(m[0])
            ]
    return resolve(found)


def resolve(findings: Iterable[Finding]) -> list[Finding]:
    """Drop findings that overlap a better one: higher score first, then the longer; in order of `start`."""
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda f: (-f.score, f.start - f.end, f.start)):
        if all(finding.end <= other.start or finding.start >= other.end for other in kept):
            kept.append(finding)
    return sorted(kept, key=lambda f: f.start)
