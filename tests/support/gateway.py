"""A real gateway on a real socket, with in-memory upstreams behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import trilith_governance as governance
from trilith.seams import Upstream
from trilith.settings.schema import Settings
from trilith.testing import PatternScanner
from trilith_gateway import key, platform, server
from trilith_gateway.app import assemble
from trilith_gateway.platform import Platform
from trilith_gateway.store import sqlite

PRICE = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "3"}
"""1e6 pico-USD per input token, 3e6 per output token."""


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    token: str
    home: Path
    platform: Platform

    def client(self, **options: Any) -> httpx.Client:
        headers = {
            "authorization": f"Bearer {options.pop('token', self.token)}",
            **options.pop("headers", {}),
        }
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)

    def chat(self, text: str = "hello there", **fields: Any) -> httpx.Response:
        body = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
        with self.client() as client:
            return client.post("/v1/chat/completions", json=body)

    def mint(self, **options: Any) -> str:
        made, token = key.mint("extra", **options)
        with closing(sqlite.connect(sqlite.database(self.home))) as connection:
            key.save(connection, made)
        self.platform.keys.reload()
        return token

    def rows(self, statement: str, given: Sequence[Any] = ()) -> list[dict[str, Any]]:
        self.platform.store.flush()
        with self.platform.store.reading() as connection:
            return [dict(row) for row in connection.execute(statement, given)]

    def ledger(self) -> list[dict[str, Any]]:
        return self.rows("select * from ledger order by at")


class StartGateway(Protocol):
    def __call__(
        self,
        upstreams: Mapping[str, Upstream],
        *,
        gateway: Mapping[str, Any] | None = None,
        **models: dict[str, Any],
    ) -> Gateway: ...


class Running:
    """A gateway in a thread of its own, for as long as the block lasts."""

    def __init__(self, settings: Settings, upstreams: Mapping[str, Upstream]) -> None:
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)
        made, token = key.mint("test", team="test")
        protector = governance.Protector(settings.policies, PatternScanner(names=["Ada Lovelace"]))
        built = platform.build(
            settings, given=upstreams, protector=protector, provider=_Kept(provider), fixed_keys=(made,)
        )
        self._listener = server.listen(settings.gateway.model_copy(update={"port": 0}))
        self._gateway = Gateway(server.address(self._listener), token, settings.home, built)
        self._server = server.make(assemble(built), settings.gateway)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[self._listener]))
        )

    def __enter__(self) -> Gateway:
        self._thread.start()
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
            client.get(f"{self._gateway.url}/healthz").raise_for_status()
        return self._gateway

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


class _Kept(TracerProvider):
    """The run's provider, which outlives the gateway that is handed it."""

    def __init__(self, inner: TracerProvider) -> None:
        self._inner = inner
        self._active_span_processor = inner._active_span_processor
        self._resource = inner.resource

    def get_tracer(self, *arguments: Any, **options: Any) -> trace.Tracer:
        return self._inner.get_tracer(*arguments, **options)

    def shutdown(self) -> None:
        pass
