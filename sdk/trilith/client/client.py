"""The client for plain code; `async_client` is its twin."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Unpack, overload

from trilith.client import operation
from trilith.client.driver import Driver
from trilith.client.operation import Turn
from trilith.client.option import CallOptions, ChatOptions, EmbeddingOptions
from trilith.client.raw import raw
from trilith.client.schema import ChatCompletion, ChatCompletionChunk, EmbeddingList, Feedback, ModelCard
from trilith.client.session import origin, session
from trilith.client.stream import Stream
from trilith.client.tensor import Rows
from trilith.client.wire import Wire
from trilith.types import Answer, Prediction

if TYPE_CHECKING:
    from trilith.client.http import Pool


class ChatCompletions:
    """`client.chat.completions`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @overload
    def create(
        self,
        *,
        model: str,
        messages: Iterable[Turn],
        stream: Literal[False] = False,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...
    @overload
    def create(
        self, *, model: str, messages: Iterable[Turn], stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> Stream[ChatCompletionChunk]: ...
    @overload
    def create(
        self, *, model: str, messages: Iterable[Turn], stream: bool, **options: Unpack[ChatOptions]
    ) -> ChatCompletion | Stream[ChatCompletionChunk]: ...
    def create(
        self, *, model: str, messages: Iterable[Turn], stream: bool = False, **options: Unpack[ChatOptions]
    ) -> ChatCompletion | Stream[ChatCompletionChunk]:
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
            return self._driver.stream(operation.chat_stream(model, messages, options))
        return self._driver.run(operation.chat(model, messages, options))


class Chat:
    """`client.chat`."""

    def __init__(self, driver: Driver) -> None:
        self.completions = ChatCompletions(driver)


class Embeddings:
    """`client.embeddings`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def create(
        self,
        *,
        model: str,
        input: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
        **options: Unpack[EmbeddingOptions],
    ) -> EmbeddingList:
        """Turn texts, or texts as tokens, into vectors."""
        return self._driver.run(operation.embed(model, input, options))


class Models:
    """`client.models`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def list(self, **options: Unpack[CallOptions]) -> list[ModelCard]:
        """Return the models that the key may call."""
        return self._driver.run(operation.models(options))

    def retrieve(self, model: str, **options: Unpack[CallOptions]) -> ModelCard:
        """Return one model; raises `NotFoundError` when the key may not call it."""
        return self._driver.run(operation.model(model, options))


class Client:
    """Calls models through a Trilith gateway; chats and embeddings also through any OpenAI-compatible server.

    May be shared by threads. Close it, or use it in a `with` block.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        max_retries: int = 2,
        default_headers: Mapping[str, str] | None = None,
        http_client: Pool | None = None,
        _wire: Wire | None = None,
        _pause: Callable[[float], None] = time.sleep,
        _chance: Callable[[], float] = random.random,
    ) -> None:
        """Open nothing yet: connections are made by the first call.

        Args:
            base_url: The gateway's address, with or without `/v1`; TRILITH_BASE_URL when None.
            api_key: TRILITH_API_KEY when None.
            timeout_s: Longest wait for the connection, and for each next part of an answer (seconds).
            max_retries: How often a call is tried again after a failure that may pass.
            default_headers: Added to every request.
            http_client: An `httpx.Client` with settings of your own (proxies, certificates); it stays
                yours to close.

        Raises:
            SettingsError: no address, or an argument that cannot be right.
        """
        standing = session(api_key, timeout_s, max_retries, default_headers)
        if _wire is None:
            from trilith.client.http import HttpWire

            _wire = HttpWire(origin(base_url), http_client)
        self._bind(Driver(_wire, standing, pause=_pause, chance=_chance), owner=True)

    @classmethod
    def embedded(
        cls,
        settings: str | Path | None = None,
        *,
        timeout_s: float = 60.0,
        max_retries: int = 2,
        default_headers: Mapping[str, str] | None = None,
    ) -> Client:
        """Run the gateway inside this process, without a server, until the client is closed.

        Args:
            settings: The settings file; `./trilith.yaml`, or TRILITH_SETTINGS, when None.
            timeout_s: As for `Client`.
            max_retries: As for `Client`.
            default_headers: As for `Client`.

        Raises:
            MissingExtra: the gateway is not installed.
            SettingsError: the settings are wrong.
            EngineError: an engine that they name did not start.
        """
        from trilith.client.embedded import EmbeddedWire, Room, open_gateway

        room = Room(open_gateway(settings))
        room.wait()
        return cls(
            api_key=room.api_key,
            timeout_s=timeout_s,
            max_retries=max_retries,
            default_headers=default_headers,
            _wire=EmbeddedWire(room),
        )

    def _bind(self, driver: Driver, *, owner: bool) -> None:
        self._driver = driver
        self._owner = owner
        self.chat = Chat(driver)
        self.embeddings = Embeddings(driver)
        self.models = Models(driver)

    def _copy(self, driver: Driver) -> Client:
        copy = object.__new__(type(self))
        copy._bind(driver, owner=False)
        return copy

    def ask(
        self, model: str, question: str, *, history: Iterable[Turn] = (), **options: Unpack[ChatOptions]
    ) -> Answer:
        """Ask a `rag` model a question; the answer says which passages it rests on.

        Args:
            model: The public name.
            question: The question, as text.
            history: The conversation before it, oldest first.
            **options: OpenAI's parameters, such as `max_tokens`, and what every call accepts.
        """
        return self._driver.run(operation.ask(model, question, history, options))

    def predict(
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
        return self._driver.run(operation.predict(model, rows, options, version))

    def feedback(
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
        return self._driver.run(operation.feedback(request_id, score, label, comment, options))

    def with_options(
        self,
        *,
        timeout_s: float | None = None,
        max_retries: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Client:
        """Return a copy with other choices on the same connections; only the original closes them."""
        standing = self._driver.session.but(timeout_s, max_retries, headers)
        return self._copy(self._driver.but(standing))

    @property
    def with_raw_response(self) -> RawClient:
        """The same calls, which return a `RawResponse` with status and headers."""
        return RawClient(self._copy(self._driver.but(raw=True)))

    def close(self) -> None:
        """Close the connections; of an embedded client, also the gateway."""
        if self._owner:
            self._driver.wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawChatCompletions:
    """`client.with_raw_response.chat.completions`."""

    def __init__(self, completions: ChatCompletions) -> None:
        self.create = raw(completions.create)


class RawChat:
    """`client.with_raw_response.chat`."""

    def __init__(self, chat: Chat) -> None:
        self.completions = RawChatCompletions(chat.completions)


class RawEmbeddings:
    """`client.with_raw_response.embeddings`."""

    def __init__(self, embeddings: Embeddings) -> None:
        self.create = raw(embeddings.create)


class RawModels:
    """`client.with_raw_response.models`."""

    def __init__(self, models: Models) -> None:
        self.list = raw(models.list)
        self.retrieve = raw(models.retrieve)


class RawClient:
    """`client.with_raw_response`: the same calls, answered with headers."""

    def __init__(self, client: Client) -> None:
        """Take a client whose driver is raw."""
        self.chat = RawChat(client.chat)
        self.embeddings = RawEmbeddings(client.embeddings)
        self.models = RawModels(client.models)
        self.ask = raw(client.ask)
        self.predict = raw(client.predict)
        self.feedback = raw(client.feedback)
