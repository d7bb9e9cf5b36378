"""Settings of governance rules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trilith.settings.section import Section


class PiiSettings(Section):
    """What a policy does about personal data."""

    action: Literal["mask", "block", "allow"] = "mask"
    """mask: the model sees placeholders and the caller the originals; block: refuse; allow: do not look."""
    entities: tuple[str, ...] = ("PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD")
    """Which kinds, by Presidio's names."""
    block_entities: tuple[str, ...] = ()
    """Kinds that refuse the request whatever `action` says."""
    min_score: float = Field(0.4, ge=0, le=1)
    """Findings below this confidence are ignored."""
    on_error: Literal["closed", "open"] = "closed"
    """When detection itself fails: closed refuses the request, open lets it pass. Both are audited."""


class PolicySettings(Section):
    """A named governance rule; models point at it."""

    pii: PiiSettings = PiiSettings()
    """Personal data."""
