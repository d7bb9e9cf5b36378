"""What a replica answers, as the router hands it on: whole, as a stream that is counted, or the last word."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from trilith.errors import APIConnectionError, APITimeoutError
from trilith.seams import Call, Reply
from trilith_gateway.routing.endpoint import Endpoint


async def ask(endpoint: Endpoint, call: Call) -> Reply:
    """Send a call; returns a stream with its head, and any other answer once all of it is there."""
    reply = await endpoint.upstream.send(call)
    return reply if streams(reply) else await _read(reply, endpoint.name)


async def _read(reply: Reply, name: str) -> Whole:
    parts: list[bytes] = []
    try:
        async for part in reply.chunks():
            parts.append(part)
    except APIConnectionError as error:
        if reply.status < 400:
            error.received = b"".join(parts)
        raise
    finally:
        await reply.aclose()
    return Whole(reply.status, reply.headers, parts[0] if len(parts) == 1 else b"".join(parts), name)


def streams(reply: Reply) -> bool:
    """Say whether a reply is a stream of events."""
    return reply.headers.get("content-type", "").startswith("text/event-stream")


class Whole:
    """An answer that has been read to its end."""

    __slots__ = ("_body", "headers", "status", "upstream")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, upstream: str) -> None:
        self.status = status
        self.headers = headers
        self.upstream = upstream
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        yield self._body

    async def aclose(self) -> None:
        """Do nothing: it is over."""


class Told:
    """An error that stands after all replicas were tried; the caller is told so."""

    __slots__ = ("_reply", "chunks", "headers", "status", "upstream")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.status = reply.status
        self.headers = {**reply.headers, "x-should-retry": "false"}
        self.chunks = reply.chunks
        self.upstream = getattr(reply, "upstream", "")

    async def aclose(self) -> None:
        """Give the answer up."""
        await self._reply.aclose()


class Counted:
    """A reply that tells its endpoint when it is over."""

    __slots__ = ("_endpoint", "_failed", "_reply", "headers", "status", "upstream")

    def __init__(self, reply: Reply, endpoint: Endpoint, failed: Callable[[Endpoint], None]) -> None:
        self._reply = reply
        self._failed = failed
        self._endpoint: Endpoint | None = endpoint
        self.upstream = endpoint.name
        self.status = reply.status
        self.headers = reply.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        endpoint = self._endpoint
        try:
            async for chunk in self._reply.chunks():
                yield chunk
        except APIConnectionError as error:
            if endpoint is not None and not isinstance(error, APITimeoutError):
                self._failed(endpoint)
            raise
        finally:
            self._over()

    async def aclose(self) -> None:
        """Give the answer up."""
        self._over()
        await self._reply.aclose()

    def _over(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.outstanding -= 1
