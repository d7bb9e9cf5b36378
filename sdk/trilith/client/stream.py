"""A streamed answer as an iterator of chunks, plain and async."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import Generic, TypeVar

from trilith.client.sse import EventReader
from trilith.client.wire import AsyncReply, Reply
from trilith.errors import APIConnectionError

T = TypeVar("T")


class Stream(Generic[T]):
    """Chunks of an answer as they arrive.

    Closing it, leaving its `with` block, or dropping a half-read one hangs up at once: the model stops.
    """

    def __init__(self, reply: Reply, reader: EventReader[T], request_id: str | None) -> None:
        self.request_id = request_id
        """The `x-request-id` of the answer: what `feedback` wants; None where the server sent none."""
        self._reply = reply
        self._items = _read(reply, reader)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """Give up what has not been read."""
        self._items.close()
        self._reply.close()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(Generic[T]):
    """Chunks of an answer as they arrive; `Stream`'s twin."""

    def __init__(self, reply: AsyncReply, reader: EventReader[T], request_id: str | None) -> None:
        self.request_id = request_id
        """The `x-request-id` of the answer: what `feedback` wants; None where the server sent none."""
        self._reply = reply
        self._items = _aread(reply, reader)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def aclose(self) -> None:
        """Give up what has not been read."""
        await self._items.aclose()
        await self._reply.aclose()

    async def __aenter__(self) -> AsyncStream[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


# After [DONE] both read on to the end: the connection can then be used again, and the server does not
# take us for a caller who left. What goes wrong there changes nothing in the answer.


def _read(reply: Reply, reader: EventReader[T]) -> Generator[T, None, None]:
    try:
        for chunk in reply.chunks():
            yield from reader.feed(chunk)
        reader.end()
    except APIConnectionError as error:
        reader.broke(error)
    finally:
        reply.close()


async def _aread(reply: AsyncReply, reader: EventReader[T]) -> AsyncGenerator[T, None]:
    try:
        async for chunk in reply.chunks():
            for item in reader.feed(chunk):
                yield item
        reader.end()
    except APIConnectionError as error:
        reader.broke(error)
    finally:
        await reply.aclose()
