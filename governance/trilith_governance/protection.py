"""One request's protection: values become placeholders on the way in and come back on the way out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from trilith.errors import InternalServerError, PermissionDeniedError
from trilith.seams import Scanner
from trilith.settings.policy import PiiSettings
from trilith.types import Finding, Verdict

PLACEHOLDER = re.compile(r"<([A-Z][A-Z_]*)_(\d+)>")


class Protection:
    """Reversible masking that is consistent within one request; fulfils `trilith.seams.Shield`.

    The same value always gets the same placeholder, `<PERSON_1>`, `<EMAIL_ADDRESS_1>` and so on; e-mail
    addresses and names are compared without case. Placeholders that the caller wrote stay as they are: their
    numbers are not given out, so they are not taken for ours on the way back. All of it lives in memory, for
    as long as the request.
    """

    def __init__(self, scanner: Scanner, settings: PiiSettings) -> None:
        self._scanner = scanner
        self._settings = settings
        self._entities = tuple(dict.fromkeys((*settings.entities, *settings.block_entities)))
        self._placeholders: dict[tuple[str, str], str] = {}
        self._originals: dict[str, str] = {}
        self._values: dict[str, str] = {}
        self._taken: set[str] = set()
        self.counts: Counter[str] = Counter()
        """Distinct values found, by kind."""
        self.verdict = Verdict.ALLOW
        """What was done so far."""

    @property
    def originals(self) -> dict[str, str]:
        """Placeholder to original, for restoring."""
        return self._originals

    def reserve(self, text: str) -> None:
        """Keep the numbers of placeholders that the caller wrote in `text` from being given out."""
        self._taken.update(match[0] for match in PLACEHOLDER.finditer(text))

    def mask(self, text: str) -> str:
        """Find personal data in `text` and put placeholders in its place.

        Raises:
            PermissionDeniedError: the policy refuses a kind that the text holds.
            InternalServerError: 503, detection failed and the policy is closed on errors.
        """
        self.reserve(text)
        findings = self._find(text)
        self._refuse(findings)
        if self._settings.action != "mask":
            return text
        return self.mask_known(_replaced(text, findings, self._placeholder))

    def check(self, text: str) -> None:
        """Refuse `text` as `mask` would, and change nothing.

        Raises:
            PermissionDeniedError: the policy refuses a kind that the text holds.
            InternalServerError: 503, detection failed and the policy is closed on errors.
        """
        self._refuse(self._find(text))

    def mask_known(self, text: str) -> str:
        """Replace values that `mask` found before, as whole words and without regard to case."""
        if not self._values:
            return text
        longest_first = sorted(self._values, key=len, reverse=True)
        known = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
        return known.sub(lambda match: self._values[match[0].lower()], text)

    def restore(self, text: str) -> str:
        """Put the originals back where their placeholders stand, whatever case a model gave them."""
        return PLACEHOLDER_LOOSE.sub(lambda match: self._originals.get(match[0].upper(), match[0]), text)

    def _find(self, text: str) -> list[Finding]:
        try:
            found = self._scanner.scan(text, self._entities)
        except Exception as error:  # whatever a detector dies of, the policy decides what that means
            self.verdict = Verdict.ERROR
            if self._settings.on_error == "open":
                return []
            raise InternalServerError(
                "Personal data could not be looked for, and the policy then lets nothing pass.",
                status_code=503,
                code="guardrail_unavailable",
                type="server_error",
            ) from error
        return [finding for finding in found if finding.score >= self._settings.min_score]

    def _refuse(self, findings: list[Finding]) -> None:
        blocked = (
            set(self._entities) if self._settings.action == "block" else set(self._settings.block_entities)
        )
        kinds = sorted({finding.entity for finding in findings} & blocked)
        if not kinds:
            return
        self.verdict = Verdict.BLOCK
        self.counts.update(finding.entity for finding in findings if finding.entity in blocked)
        raise PermissionDeniedError(
            f"The request holds {', '.join(kinds)}, which this model's policy does not accept. "
            "Remove it and try again.",
            status_code=403,
            code="content_blocked",
            type="permission_error",
        )

    def _placeholder(self, entity: str, value: str) -> str:
        same = (entity, value.lower())
        if (known := self._placeholders.get(same)) is not None:
            return known
        number = self.counts[entity] + 1
        while (made := f"<{entity}_{number}>") in self._taken:
            number += 1
        self._taken.add(made)
        self.counts[entity] += 1
        if self.verdict is Verdict.ALLOW:
            self.verdict = Verdict.MASK
        self._placeholders[same], self._originals[made] = made, value
        self._values[value.lower()] = made
        return made


PLACEHOLDER_LOOSE = re.compile(r"<[A-Z][A-Z_]*_\d+>", re.IGNORECASE)


def _replaced(text: str, findings: list[Finding], replace: Callable[[str, str], str]) -> str:
    parts, at = [], 0
    for finding in findings:
        parts += [text[at : finding.start], replace(finding.entity, text[finding.start : finding.end])]
        at = finding.end
    return "".join((*parts, text[at:]))
