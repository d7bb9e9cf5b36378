"""Hands each request the protection that its policy asks for; all requests share one scanner."""

from __future__ import annotations

from collections.abc import Mapping

from trilith.seams import Scanner
from trilith.settings.policy import PolicySettings
from trilith_governance.protection import Protection


class Protector:
    """The policies of one platform."""

    def __init__(self, policies: Mapping[str, PolicySettings], scanner: Scanner) -> None:
        self._policies = policies
        self._scanner = scanner

    def protect(self, policy: str | None) -> Protection | None:
        """Return a new request's protection; None when nothing has to be looked for."""
        if policy is None:
            return None
        settings = self._policies[policy].pii
        if settings.action == "allow" and not settings.block_entities:
            return None
        return Protection(self._scanner, settings)

    def replace(self, policies: Mapping[str, PolicySettings]) -> None:
        """Take other policies; requests under way keep the protection that they have."""
        self._policies = policies

    def warm(self) -> None:
        """Load what the first scan would otherwise load. Blocking."""
        if any(self.protect(name) for name in self._policies):
            self._scanner.scan("warm up", ("PERSON",))


def open_protector(policies: Mapping[str, PolicySettings]) -> Protector:
    """Make the protector for a platform's policies; its models load with the first scan or with `warm`."""
    from trilith_governance.presidio import PresidioScanner

    return Protector(policies, PresidioScanner())
