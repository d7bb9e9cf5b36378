"""Requests over HTTP. With `line` the only module of the SDK that imports httpx, on first use only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from urllib.request import getproxies

import httpx
from httpx import AsyncClient as AsyncPool
from httpx import Client as Pool

from trilith.client.wire import Request
from trilith.errors import APIConnectionError, APITimeoutError, SettingsError

__all__ = ["AsyncHttpWire", "AsyncPool", "HttpWire", "Pool"]

_CONNECT_S = 10.0
"""Longest wait for a connection (seconds), however long an answer may take."""

_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)

_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""There was no connection: nobody has acted upon the call, or charged for it."""


class HttpReply:
    """An answer whose body is still arriving."""

    def __init__(self, response: httpx.Response, origin: str) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._origin = origin

    def chunks(self) -> Iterator[bytes]:
        """Yield the body, decompressed, as it is read from the socket."""
        with _named(self._origin):
            yield from self._response.iter_bytes()

    def close(self) -> None:
        """Keep the connection if the answer is complete, else close it."""
        self._response.close()


class AsyncHttpReply:
    """An answer whose body is still arriving."""

    def __init__(self, response: httpx.Response, origin: str) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._origin = origin

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, decompressed, as it is read from the socket."""
        with _named(self._origin):
            async for chunk in self._response.aiter_bytes():
                yield chunk

    async def aclose(self) -> None:
        """Keep the connection if the answer is complete, else close it."""
        await self._response.aclose()


class HttpWire:
    """One server, with a pool of connections."""

    def __init__(self, origin: str, pool: Pool | None = None) -> None:
        """Take the server's address without a path of the API, and perhaps a caller's own pool.

        Args:
            origin: For example `http://127.0.0.1:8080`.
            pool: Stays the caller's to close.
        """
        self._origin = origin
        self._pool = Pool(limits=_LIMITS) if pool is None else pool
        self._owned = pool is None

    def send(self, request: Request) -> HttpReply:
        """Send one request; returns when the headers are there."""
        with _named(self._origin):
            built = _built(self._pool, self._origin, request)
            return HttpReply(self._pool.send(built, stream=True), self._origin)

    def close(self) -> None:
        """Close the pool, unless it is the caller's."""
        if self._owned:
            self._pool.close()


class AsyncHttpWire:
    """One server, with a pool of connections."""

    def __init__(self, origin: str, pool: AsyncPool | None = None) -> None:
        """Take the same arguments as `HttpWire`."""
        self._origin = origin
        self._pool = _async_pool() if pool is None else pool
        self._owned = pool is None

    @property
    def address(self) -> str | None:
        """The server's address, which makes another wire like this one; None with a caller's own pool."""
        return self._origin if self._owned else None

    async def send(self, request: Request) -> AsyncHttpReply:
        """Send one request; returns when the headers are there."""
        with _named(self._origin):
            built = _built(self._pool, self._origin, request)
            return AsyncHttpReply(await self._pool.send(built, stream=True), self._origin)

    async def aclose(self) -> None:
        """Close the pool, unless it is the caller's."""
        if self._owned:
            await self._pool.aclose()


def _async_pool() -> AsyncPool:
    """Return a pool on connections of our own, or on httpx's where a proxy lies between."""
    if getproxies().keys() & {"http", "https", "all"}:
        return AsyncPool(limits=_LIMITS)
    from trilith.client.line import LineTransport  # not needed with a caller's own pool

    return AsyncPool(transport=LineTransport(_LIMITS))


def _built(pool: Pool | AsyncPool, origin: str, request: Request) -> httpx.Request:
    return pool.build_request(
        request.method,
        origin + request.path,
        headers=request.headers,
        content=request.body or None,
        timeout=httpx.Timeout(request.timeout_s, connect=min(request.timeout_s, _CONNECT_S)),
    )


@contextmanager
def _named(origin: str) -> Iterator[None]:
    """Turn httpx's errors into ours."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise APITimeoutError(
            f"{origin} did not answer in time ({type(error).__name__}); timeout_s sets the longest wait",
            sent=not isinstance(error, _UNSENT),
        ) from error
    except httpx.InvalidURL as error:
        raise SettingsError(f"base_url is {origin!r}, which is no address: {error}") from error
    except httpx.RequestError as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise APIConnectionError(
            f"no answer from {origin} ({reason}); check base_url, and that the gateway runs there",
            sent=not isinstance(error, _UNSENT),
        ) from error
