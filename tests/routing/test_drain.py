"""A gateway that is told to stop: readiness goes first, requests are taken a while, streams end properly."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.installed import Platform, language_server, until

LONG = " ".join(["word"] * 150)  # three seconds at the language server's pace


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with language_server() as url:
        made = Platform(
            tmp_path,
            {
                "models": {"echo": {"kind": "chat", "upstream": {"url": url}}},
                "telemetry": {"store_spans": False},
            },
        )
        yield made
        made.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stopping_gateway_loses_nothing(platform: Platform, workers: str) -> None:
    platform.environment["TRILITH_GATEWAY__DRAIN_NOTICE_S"] = "1.5"
    platform.start("serve", "--workers", workers)
    headers = {"authorization": f"Bearer {platform.command('keys', 'create', 'test').split()[0]}"}
    body = {"model": "echo", "messages": [{"role": "user", "content": LONG}], "stream": True}
    url = f"{platform.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=30) as answer:
        parts = answer.iter_text()
        told = next(parts)
        assert platform.process is not None
        platform.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{platform.url}/readyz").status_code == 503, what="unreadiness")
        short = body | {"messages": [{"role": "user", "content": "hi"}], "stream": False}
        assert httpx.post(url, json=short, headers=headers, timeout=30).status_code == 200
        told += "".join(parts)
    assert told.endswith("data: [DONE]\n\n")
    assert platform.process.wait(timeout=30) == 0
