"""A name, a mail address and a card number: seen by the caller, by nobody else, and on no disk."""

from __future__ import annotations

import re
import time
from pathlib import Path

from support.installed import Platform, until

from trilith import Client

NAME, MAIL, CARD = "Marianne Keller", "marianne.keller@example.org", "4111 1111 1111 1111"
PROMPT = f"Repeat exactly: The order of {NAME} was paid with card {CARD}; write to {MAIL}."


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_engine_sees_placeholders_the_caller_originals_and_no_file_holds_them(
    platform: Platform, key: str
) -> None:
    with Client(base_url=platform.url, api_key=key, timeout_s=120) as client:
        stream = client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": PROMPT}],
            stream=True,
            temperature=0,
            max_tokens=60,
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        client.ask("encyclopedia", f"My name is {NAME}, my mail is {MAIL}. Who won Super Bowl 50?")
    assert NAME in text
    assert re.search(r"<[A-Z_]+_\d+>", text) is None

    log = platform.home / "logs" / "smollm2.log"
    until(
        lambda: "<CREDIT_CARD_1>" in log.read_text(encoding="utf-8"),
        what="the engine's log showing the prompt",
    )
    assert "<PERSON_1>" in log.read_text(encoding="utf-8")
    assert "<EMAIL_ADDRESS_1>" in log.read_text(encoding="utf-8")

    time.sleep(2)  # the last spans and facts are written in batches
    searched = files(platform.path.parent)
    assert {"trilith.db", "traces.db", "smollm2.log", platform.log.name} <= {path.name for path in searched}
    for secret in (NAME, MAIL, CARD, CARD.replace(" ", "")):
        assert [path for path in searched if secret.encode() in path.read_bytes()] == []


def test_masked_requests_are_audited_by_types_and_counts_and_the_chain_holds(platform: Platform) -> None:
    entries = platform.command("audit", "list")
    assert '"CREDIT_CARD":1' in entries
    assert "Keller" not in entries
    assert "intact" in platform.command("audit", "verify")
