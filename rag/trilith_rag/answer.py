"""OpenAI-shaped replies of upstreams that run in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

DONE = b"data: [DONE]\n\n"


class ProcessReply:
    """A reply whose body this process makes."""

    def __init__(
        self,
        status: int,
        parts: AsyncIterator[bytes],
        content_type: str = "application/json",
        close: Callable[[], Any] | None = None,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": content_type}
        self.upstream = ""
        """Which replica of another model was asked on the way."""
        self._parts = parts
        self._close = close

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it is made."""
        async for part in self._parts:
            yield part

    async def aclose(self) -> None:
        """Give the answer up; what it waits for is closed too."""
        if self._close is not None:
            await self._close()


def whole(body: object, status: int = 200) -> ProcessReply:
    """Return a reply with one JSON body."""

    async def parts() -> AsyncIterator[bytes]:
        yield json.dumps(body, ensure_ascii=False).encode()

    return ProcessReply(status, parts())


def refusal(message: str, *, status: int = 400, param: str | None = None) -> ProcessReply:
    """Return OpenAI's error object."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return whole({"error": error}, status)


def event(value: object) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
