"""An upstream that speaks OpenAI's protocol over HTTP: vLLM, a provider, or the provider worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import aiohttp
from yarl import URL

from trilith.errors import APIConnectionError, APITimeoutError
from trilith.seams import Call

_IDLE_S = 300.0
"""Longest silence within an answer before it counts as broken (seconds)."""


class HttpReply:
    """An answer whose body is still arriving."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it is read from the socket."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except TimeoutError as error:
            raise APITimeoutError(f"it was silent for {_IDLE_S:.0f} s within its answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise APIConnectionError(f"it broke off its answer ({type(error).__name__})") from error

    async def aclose(self) -> None:
        """Close the connection if the answer is not complete, so that the upstream stops; else keep it."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class HttpUpstream:
    """One OpenAI-compatible server, with a pool of connections."""

    def __init__(self, base_url: str, *, api_key: str | None = None, unix_socket: str | None = None) -> None:
        """Take a base URL that ends in `/v1`; the connection pool opens with the first call."""
        self._base = URL(base_url.removesuffix("/").removesuffix("/v1"))
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._unix_socket = unix_socket
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._base.host or "", self._base.port or 0

    async def send(self, call: Call) -> HttpReply:
        """Send one call; returns when the headers are there."""
        session = self._session or self._open()
        request = session.post(
            self._base.joinpath(call.path.lstrip("/"), encoded=True),
            data=call.body,
            headers={**call.headers, **self._headers},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=call.timeout_s, sock_connect=10, sock_read=_IDLE_S),
        )
        try:
            return HttpReply(await request)
        except TimeoutError as error:
            raise APITimeoutError("it did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise APIConnectionError(f"the connection failed ({type(error).__name__})") from error

    async def ready(self) -> bool:
        """Say whether the server lists its models."""
        session = self._session or self._open()
        try:
            async with session.get(
                self._base.joinpath("v1/models"),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=5),
            ) as response:
                return response.status < 500
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _open(self) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        if self._unix_socket is not None:
            connector = aiohttp.UnixConnector(self._unix_socket)
        else:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        # Proxies from the environment are not used, cookies are not kept, and nothing is decompressed twice.
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers={"accept-encoding": "identity"}
        )
        return self._session

    async def aclose(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # lets the transports notice
