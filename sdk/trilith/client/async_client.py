"""The client for coroutines: the twin of `client`, with the same calls and the same words."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from trilith.client import operation
from trilith.client.driver import AsyncDriver
from trilith.client.operation import Turn
from trilith.client.option import CallOptions, ChatOptions, EmbeddingOptions
from trilith.client.raw import araw
from trilith.client.schema import ChatCompletion, ChatCompletionChunk, EmbeddingList, Feedback, ModelCard
from trilith.client.session import Session, origin, session
from trilith.client.stream import AsyncStream
from trilith.client.tensor import Rows
from trilith.client.wire import AsyncWire
from trilith.types import Answer, Prediction

if TYPE_CHECKING:
    from trilith.client.http import AsyncPool


class AsyncChatCompletions:
    """`client.chat.completions`."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Iterable[Turn],
        stream: Literal[False] = False,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...
    @overload
    async def create(
        self, *, model: str, messages: Iterable[Turn], stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncStream[ChatCompletionChunk]: ...
    @overload
    async def create(
        self, *, model: str, messages: Iterable[Turn], stream: bool, **options: Unpack[ChatOptions]
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]: ...
    async def create(
        self, *, model: str, messages: Iterable[Turn], stream: bool = False, **options: Unpack[ChatOptions]
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]:
        """Let a `chat` or `rag` model answer a conversation.

        Args:
            model: The public name.
            messages: The conversation so far, oldest first.
            stream: Whether the answer comes piece by piece, while the model writes it.
            **options: OpenAI's parameters, and what every call accepts (`trilith.client.option`).

        Raises:
            APIError: the call failed; its class says whose fault it is, and whether to try again.
        """
        if stream:
            return await self._driver.stream(operation.chat_stream(model, messages, options))
        return await self._driver.run(operation.chat(model, messages, options))


class AsyncChat:
    """`client.chat`."""

    def __init__(self, driver: AsyncDriver) -> None:
        self.completions = AsyncChatCompletions(driver)


class AsyncEmbeddings:
    """`client.embeddings`."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def create(
        self,
        *,
        model: str,
        input: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
        **options: Unpack[EmbeddingOptions],
    ) -> EmbeddingList:
        """Turn texts, or texts as tokens, into vectors."""
        return await self._driver.run(operation.embed(model, input, options))


class AsyncModels:
    """`client.models`."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def list(self, **options: Unpack[CallOptions]) -> list[ModelCard]:
        """Return the models that the key may call."""
        return await self._driver.run(operation.models(options))

    async def retrieve(self, model: str, **options: Unpack[CallOptions]) -> ModelCard:
        """Return one model; raises `NotFoundError` when the key may not call it."""
        return await self._driver.run(operation.model(model, options))


class AsyncClient:
    """Calls models through a Trilith gateway; chats and embeddings also through any OpenAI-compatible server.

    Serves the coroutines of one event loop. Close it, or use it in an `async with` block.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        max_retries: int = 2,
        default_headers: Mapping[str, str] | None = None,
        http_client: AsyncPool | None = None,
        _wire: AsyncWire | None = None,
        _pause: Callable[[float], Awaitable[None]] | None = None,
        _chance: Callable[[], float] = random.random,
    ) -> None:
        """Open nothing yet: connections are made by the first call.

        Args:
            base_url: The gateway's address, with or without `/v1`; TRILITH_BASE_URL when None.
            api_key: TRILITH_API_KEY when None.
            timeout_s: Longest wait for the connection, and for each next part of an answer (seconds).
            max_retries: How often a call is tried again after a failure that may pass.
            default_headers: Added to every request.
            http_client: An `httpx.AsyncClient` with settings of your own (proxies, certificates); it stays
                yours to close.

        Raises:
            SettingsError: no address, or an argument that cannot be right.
        """
        standing = session(api_key, timeout_s, max_retries, default_headers)
        if _wire is None:
            from trilith.client.http import AsyncHttpWire

            _wire = AsyncHttpWire(origin(base_url), http_client)
        self._bind(AsyncDriver(_wire, standing, pause=_pause, chance=_chance), owner=True)

    @classmethod
    def embedded(
        cls,
        settings: str | Path | None = None,
        *,
        timeout_s: float = 60.0,
        max_retries: int = 2,
        default_headers: Mapping[str, str] | None = None,
    ) -> AsyncClient:
        """Run the gateway inside this process, without a server, until the client is closed.

        It starts in the background, and the first call waits for it. That call also raises `EngineError` when
        an engine did not start.

        Args:
            settings: The settings file; `./trilith.yaml`, or TRILITH_SETTINGS, when None.
            timeout_s: As for `AsyncClient`.
            max_retries: As for `AsyncClient`.
            default_headers: As for `AsyncClient`.

        Raises:
            MissingExtra: the gateway is not installed.
            SettingsError: the settings are wrong.
        """
        from trilith.client.embedded import AsyncEmbeddedWire, Room, open_gateway

        room = Room(open_gateway(settings))
        return cls(
            api_key=room.api_key,
            timeout_s=timeout_s,
            max_retries=max_retries,
            default_headers=default_headers,
            _wire=AsyncEmbeddedWire(room),
        )

    def _bind(self, driver: AsyncDriver, *, owner: bool) -> None:
        self._driver = driver
        self._owner = owner
        self.chat = AsyncChat(driver)
        self.embeddings = AsyncEmbeddings(driver)
        self.models = AsyncModels(driver)

    def _copy(self, driver: AsyncDriver) -> AsyncClient:
        copy = object.__new__(type(self))
        copy._bind(driver, owner=False)
        return copy

    async def ask(
        self, model: str, question: str, *, history: Iterable[Turn] = (), **options: Unpack[ChatOptions]
    ) -> Answer:
        """Ask a `rag` model a question; the answer says which passages it rests on.

        Args:
            model: The public name.
            question: The question, as text.
            history: The conversation before it, oldest first.
            **options: OpenAI's parameters, such as `max_tokens`, and what every call accepts.
        """
        return await self._driver.run(operation.ask(model, question, history, options))

    async def predict(
        self, model: str, rows: Rows, *, version: str | None = None, **options: Unpack[CallOptions]
    ) -> Prediction:
        """Let a `predictor` model predict a value for each row.

        Args:
            model: The public name.
            rows: `n` rows: a list of dicts, a dict of columns, or a DataFrame of pandas or polars.
            version: Of the model, as its registry numbers it; None: whichever is live.
            **options: What every call accepts.

        Returns:
            For each output, `n` values in the order of the rows.

        Raises:
            DataError: the rows are not a table of numbers, booleans and texts.
        """
        return await self._driver.run(operation.predict(model, rows, options, version))

    async def feedback(
        self,
        request_id: str,
        *,
        score: float | None = None,
        label: str | None = None,
        comment: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Feedback:
        """Say later how good an answer was, or what the truth turned out to be.

        Args:
            request_id: The answer's `request_id`.
            score: Higher is better.
            label: A short word, such as the true class.
            comment: Free text.
            **options: What every call accepts.
        """
        return await self._driver.run(operation.feedback(request_id, score, label, comment, options))

    def with_options(
        self,
        *,
        timeout_s: float | None = None,
        max_retries: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncClient:
        """Return a copy with other choices on the same connections; only the original closes them."""
        standing = self._driver.session.but(timeout_s, max_retries, headers)
        return self._copy(self._driver.but(standing))

    @property
    def with_raw_response(self) -> AsyncRawClient:
        """The same calls, which return a `RawResponse` with status and headers."""
        return AsyncRawClient(self._copy(self._driver.but(raw=True)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process have a client like this one, with the key and connections of its own."""
        address = getattr(self._driver.wire, "address", None)
        if address is None:
            raise TypeError("a client with an http_client of your own, or an embedded one, cannot be sent")
        return _reopened, (address, self._driver.session)

    async def aclose(self) -> None:
        """Close the connections; of an embedded client, also the gateway."""
        if self._owner:
            await self._driver.wire.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _reopened(address: str, standing: Session) -> AsyncClient:
    client = AsyncClient(address)
    client._bind(client._driver.but(standing), owner=True)
    return client


class AsyncRawChatCompletions:
    """`client.with_raw_response.chat.completions`."""

    def __init__(self, completions: AsyncChatCompletions) -> None:
        self.create = araw(completions.create)


class AsyncRawChat:
    """`client.with_raw_response.chat`."""

    def __init__(self, chat: AsyncChat) -> None:
        self.completions = AsyncRawChatCompletions(chat.completions)


class AsyncRawEmbeddings:
    """`client.with_raw_response.embeddings`."""

    def __init__(self, embeddings: AsyncEmbeddings) -> None:
        self.create = araw(embeddings.create)


class AsyncRawModels:
    """`client.with_raw_response.models`."""

    def __init__(self, models: AsyncModels) -> None:
        self.list = araw(models.list)
        self.retrieve = araw(models.retrieve)


class AsyncRawClient:
    """`client.with_raw_response`: the same calls, answered with headers."""

    def __init__(self, client: AsyncClient) -> None:
        """Take a client whose driver is raw."""
        self.chat = AsyncRawChat(client.chat)
        self.embeddings = AsyncRawEmbeddings(client.embeddings)
        self.models = AsyncRawModels(client.models)
        self.ask = araw(client.ask)
        self.predict = araw(client.predict)
        self.feedback = araw(client.feedback)
