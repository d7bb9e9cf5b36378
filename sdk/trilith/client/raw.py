"""An answer with its headers: what `with_raw_response` returns in place of the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from trilith.client.async_client import (
        AsyncChat,
        AsyncChatCompletions,
        AsyncClient,
        AsyncEmbeddings,
        AsyncModels,
    )
    from trilith.client.client import Chat, ChatCompletions, Client, Embeddings, Models

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


def _raw(method: Callable[P, T]) -> Callable[P, RawResponse[T]]:
    """Type a method of a client whose driver is raw."""
    return cast("Callable[P, RawResponse[T]]", method)


def _araw(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[RawResponse[T]]]:
    """Type a method of an async client whose driver is raw."""
    return cast("Callable[P, Awaitable[RawResponse[T]]]", method)


class RawChatCompletions:
    """`client.with_raw_response.chat.completions`."""

    def __init__(self, completions: ChatCompletions) -> None:
        self.create = _raw(completions.create)


class RawChat:
    """`client.with_raw_response.chat`."""

    def __init__(self, chat: Chat) -> None:
        self.completions = RawChatCompletions(chat.completions)


class RawEmbeddings:
    """`client.with_raw_response.embeddings`."""

    def __init__(self, embeddings: Embeddings) -> None:
        self.create = _raw(embeddings.create)


class RawModels:
    """`client.with_raw_response.models`."""

    def __init__(self, models: Models) -> None:
        self.list = _raw(models.list)
        self.retrieve = _raw(models.retrieve)


class RawClient:
    """`client.with_raw_response`: the same calls, answered with headers."""

    def __init__(self, client: Client) -> None:
        """Take a client whose driver is raw."""
        self.chat = RawChat(client.chat)
        self.embeddings = RawEmbeddings(client.embeddings)
        self.models = RawModels(client.models)
        self.ask = _raw(client.ask)
        self.predict = _raw(client.predict)
        self.feedback = _raw(client.feedback)


class AsyncRawChatCompletions:
    """`client.with_raw_response.chat.completions`."""

    def __init__(self, completions: AsyncChatCompletions) -> None:
        self.create = _araw(completions.create)


class AsyncRawChat:
    """`client.with_raw_response.chat`."""

    def __init__(self, chat: AsyncChat) -> None:
        self.completions = AsyncRawChatCompletions(chat.completions)


class AsyncRawEmbeddings:
    """`client.with_raw_response.embeddings`."""

    def __init__(self, embeddings: AsyncEmbeddings) -> None:
        self.create = _araw(embeddings.create)


class AsyncRawModels:
    """`client.with_raw_response.models`."""

    def __init__(self, models: AsyncModels) -> None:
        self.list = _araw(models.list)
        self.retrieve = _araw(models.retrieve)


class AsyncRawClient:
    """`client.with_raw_response`: the same calls, answered with headers."""

    def __init__(self, client: AsyncClient) -> None:
        """Take a client whose driver is raw."""
        self.chat = AsyncRawChat(client.chat)
        self.embeddings = AsyncRawEmbeddings(client.embeddings)
        self.models = AsyncRawModels(client.models)
        self.ask = _araw(client.ask)
        self.predict = _araw(client.predict)
        self.feedback = _araw(client.feedback)
