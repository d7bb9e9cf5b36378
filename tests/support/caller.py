"""Both clients behind one face, so that one test holds for plain code and for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from trilith import AsyncClient, Client

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
"""A chat answer."""


class Caller(Protocol):
    """Makes one call with a client of its own; notes pauses in place of sleeping."""

    pauses: list[float]

    def __call__(self, url: str, call: Callable[[Any], Any], **options: Any) -> Any:
        """Return what `call(client)` returns; a stream's chunks as a list."""
        ...


class PlainCaller:
    """Calls with `Client`."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self, url: str, call: Callable[[Any], Any], **options: Any) -> Any:
        with Client(url, **{"api_key": "key", "_pause": self.pauses.append, **options}) as client:
            result = call(client)
            return list(result) if hasattr(result, "__next__") else result


class CoroutineCaller:
    """Calls with `AsyncClient`."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self, url: str, call: Callable[[Any], Any], **options: Any) -> Any:
        return asyncio.run(self._call(url, call, {"api_key": "key", "_pause": self._pause, **options}))

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def _call(self, url: str, call: Callable[[Any], Any], options: dict[str, Any]) -> Any:
        async with AsyncClient(url, **options) as client:
            result = await call(client)
            return [item async for item in result] if hasattr(result, "__anext__") else result


def chat(client: Any, **options: Any) -> Any:
    """Make a small chat."""
    messages = [{"role": "user", "content": "hello"}]
    return client.chat.completions.create(**{"model": "m", "messages": messages, **options})


def stream(client: Any, **options: Any) -> Any:
    """Make a small chat that is streamed."""
    return chat(client, stream=True, **options)
