"""The seam between the client and whatever carries its bytes: HTTP, or a gateway in this process.

Paths start with `/` and names of headers are in lower case on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from trilith.seams import Reply as AsyncReply

__all__ = ["Answer", "AsyncReply", "AsyncWire", "Reply", "Request", "Wire"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ready to be sent, as often as needed."""

    method: str
    path: str
    """Path on the server, percent-encoded."""
    headers: Mapping[str, str]
    body: bytes
    """JSON, UTF-8; empty for GET."""
    timeout_s: float
    """Longest wait for the connection, and for each next part of the answer (seconds)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has been read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Reply(Protocol):
    """An answer whose body is still arriving; `AsyncReply` is its twin."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives; raises `APIConnectionError` when it breaks off."""
        ...

    def close(self) -> None:
        """Give the answer up. If it is not complete, the other side sees the caller leave at once."""
        ...


class Wire(Protocol):
    """Carries requests from plain code."""

    def send(self, request: Request) -> Reply:
        """Send one request; returns when the answer's headers are known.

        Raises:
            APIConnectionError: nothing answered.
            APITimeoutError: nothing answered within `request.timeout_s`.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class AsyncWire(Protocol):
    """Carries requests from coroutines; raises as `Wire` does."""

    async def send(self, request: Request) -> AsyncReply:
        """Send one request; returns when the answer's headers are known."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...
