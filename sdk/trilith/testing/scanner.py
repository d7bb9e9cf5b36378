"""An in-memory scanner: the twin of the one that loads a language model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trilith.types import Finding

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){15}\d(?!\d)")


class PatternScanner:
    """Finds e-mail addresses, sixteen-digit cards, and the names that it is given.

    Args:
        names: What counts as PERSON.
        fail_with: Raised by every scan, to try out what a policy does then.
    """

    def __init__(self, names: Sequence[str] = (), *, fail_with: Exception | None = None) -> None:
        self._patterns = {"EMAIL_ADDRESS": _EMAIL, "CREDIT_CARD": _CARD}
        if names:
            self._patterns["PERSON"] = re.compile("|".join(map(re.escape, names)))
        self._fail_with = fail_with

    def scan(self, text: str, entities: Sequence[str]) -> list[Finding]:
        """Return findings in order of `start`."""
        if self._fail_with is not None:
            raise self._fail_with
        found = [
            Finding(entity, match.start(), match.end(), 1.0)
            for entity in entities
            if entity in self._patterns
            for match in self._patterns[entity].finditer(text)
        ]
        return sorted(found, key=lambda finding: finding.start)
