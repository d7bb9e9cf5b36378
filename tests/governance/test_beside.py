"""Personal data beside the conversation: in labels, predictions, documents and stored prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from trilith.settings.policy import PiiSettings
from trilith.testing import PatternScanner
from trilith_governance.item import mask_message, mask_response
from trilith_governance.protection import Protection
from trilith_governance.walk import mask_chat, mask_completion, mask_embedding_input

MAIL = "jane@example.org"


def protection() -> Protection:
    return Protection(PatternScanner(), PiiSettings(entities=("EMAIL_ADDRESS",)))


CHAT = {"model": "m", "messages": [{"role": "user", "content": f"Write to {MAIL}"}]}
BESIDE = {
    "user": MAIL,
    "safety_identifier": MAIL,
    "metadata": {"who": MAIL},
    "prediction": {"type": "content", "content": f"Dear {MAIL}"},
    "documents": [{"title": "t", "text": MAIL}],
    "prompt_cache_key": MAIL,
}
DOCUMENT = {"type": "text", "media_type": "text/plain", "data": f"mail {MAIL}"}


@pytest.mark.parametrize(
    ("mask", "body"),
    [
        (mask_chat, CHAT | BESIDE),
        (mask_completion, {"model": "m", "prompt": MAIL} | BESIDE),
        (mask_embedding_input, {"model": "m", "input": [MAIL]} | BESIDE),
        (mask_response, {"input": MAIL, "prompt": {"id": "p", "variables": {"name": MAIL}}} | BESIDE),
        (
            mask_message,
            {
                "messages": [{"role": "user", "content": [{"type": "document", "source": DOCUMENT}]}],
                "metadata": {"user_id": MAIL},
            },
        ),
    ],
)
def test_no_field_of_a_request_carries_it_on(
    mask: Callable[[Any, Protection], Any], body: dict[str, Any]
) -> None:
    masked = mask(body, protection())
    assert MAIL not in json.dumps(masked)
    assert "EMAIL_ADDRESS" in json.dumps(masked)


def test_what_names_a_person_to_the_provider_does_not_go_on_and_labels_do() -> None:
    masked = mask_chat(CHAT | BESIDE, protection())
    assert masked.keys() & {"user", "safety_identifier"} == set()
    assert masked["metadata"]["who"] == masked["prompt_cache_key"]
    assert masked["documents"][0]["title"] == "t"
