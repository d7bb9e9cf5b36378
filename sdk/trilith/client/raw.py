"""An answer with its headers: what `with_raw_response` returns in place of the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


class RawResponse(Generic[T]):
    """Status and headers of a successful call, and the way to its result."""

    def __init__(self, status_code: int, headers: Mapping[str, str], parse: Callable[[], T]) -> None:
        self.status_code = status_code
        self.headers = headers
        """Lower-case names, such as `x-trilith-cost-usd` and `x-ratelimit-remaining-requests`."""
        self.request_id = headers.get("x-request-id")
        """What `feedback` wants; None where the server sent none."""
        self._parse = parse

    def parse(self) -> T:
        """Return what the call without `with_raw_response` returns; a stream is the same one each time."""
        return self._parse()

    def __repr__(self) -> str:
        return f"RawResponse(status_code={self.status_code}, request_id={self.request_id!r})"


def raw(method: Callable[P, T]) -> Callable[P, RawResponse[T]]:
    """Type a method of a client whose driver is raw."""
    return cast("Callable[P, RawResponse[T]]", method)


def araw(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[RawResponse[T]]]:
    """Type a method of an async client whose driver is raw."""
    return cast("Callable[P, Awaitable[RawResponse[T]]]", method)
