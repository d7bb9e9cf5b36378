"""The gateway as it is installed, in a process of its own, before a server that speaks everything."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from support.installed import Platform, language_server

PRICE = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}


@dataclass
class Service:
    """Where the gateway is, and a key for it."""

    url: str
    """Without `/v1`."""
    key: str
    platform: Platform


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with language_server("open_server.py") as url:
        place = {"url": url}
        models: dict[str, Any] = {
            "chat": {"kind": "chat", "upstream": place, "price": PRICE},
            "plain": {"kind": "chat", "upstream": place | {"protocol": "chat"}, "price": PRICE},
            "claude": {"kind": "chat", "upstream": place | {"protocol": "anthropic"}, "price": PRICE},
            "org/embed": {"kind": "embedding", "upstream": place, "price": PRICE},
            "order": {"kind": "rerank", "upstream": place},
            "paint": {"kind": "image", "upstream": place, "price": {"usd_per_image": "0.01"}},
            "voice": {"kind": "audio", "upstream": place},
            "judge": {"kind": "moderation", "upstream": place},
            "double": {"kind": "predictor", "upstream": {"url": url.removesuffix("/v1")}},
        }
        platform = Platform(tmp_path_factory.mktemp("conformance"), {"models": models})
        key = platform.command("keys", "create", "tests", "--team", "tests", "--quiet")
        platform.start()
        yield Service(platform.url, key, platform)
        assert platform.stop(signal.SIGTERM) == 0


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0) as made:
        yield made
