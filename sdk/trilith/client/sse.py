"""Server-sent events without input or output: bytes in, events out, however the bytes were cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from trilith.errors import APIConnectionError, APIStatusError, status_error_class

T = TypeVar("T")

_STATUSES = frozenset(map(str, range(400, 600)))


class EventDecoder:
    """Cuts bytes into the data of events (WHATWG HTML, section 9.2.6).

    Bytes are kept until their line is complete, so a character that arrives in two pieces is never read
    in halves.
    """

    def __init__(self) -> None:
        self._held = b""
        self._data: list[bytes] = []
        self._opened = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the data of every event that `chunk` completes; comments and other fields are left out."""
        self._held += chunk
        while (line := self._line()) is not None:
            if line:
                name, _, value = line.partition(b":")
                if name == b"data":
                    self._data.append(value.removeprefix(b" "))
            elif self._data:
                yield self._take()

    def rest(self) -> str:
        """Return the data of a last event that no blank line ended, as some servers leave it."""
        events = list(self.feed(b"\n"))
        return events[-1] if events else self._take()

    def _take(self) -> str:
        data, self._data = b"\n".join(self._data), []
        return data.decode("utf-8", errors="replace")

    def _line(self) -> bytes | None:
        """Take the next line off what is held; it may end in LF, CR, or CR LF."""
        if not self._opened:
            if len(self._held) < 3 and b"\xef\xbb\xbf".startswith(self._held):
                return None  # perhaps the beginning of a byte order mark
            self._opened = True
            self._held = self._held.removeprefix(b"\xef\xbb\xbf")
        ends = [at for at in (self._held.find(b"\n"), self._held.find(b"\r")) if at >= 0]
        if not ends:
            return None
        end = min(ends)
        if self._held[end:] == b"\r":
            return None  # a LF may follow
        size = 2 if self._held[end : end + 2] == b"\r\n" else 1
        line, self._held = self._held[:end], self._held[end + size :]
        return line


class EventReader(Generic[T]):
    """Reads one OpenAI stream: objects until `[DONE]`; whatever comes after is ignored.

    Args:
        read: Makes a caller's object of decoded JSON and the request id.
        request_id: Also put into errors.
    """

    def __init__(self, read: Callable[[Any, str | None], T], request_id: str | None) -> None:
        self.done = False
        """Whether `[DONE]` has come."""
        self._read = read
        self._request_id = request_id
        self._decoder = EventDecoder()

    def feed(self, chunk: bytes) -> Iterator[T]:
        """Yield every object that `chunk` completes.

        Raises:
            APIStatusError: the server reports an error in its stream.
            APIConnectionError: an event is no JSON.
        """
        if self.done:
            return
        for data in self._decoder.feed(chunk):
            if data.strip() == "[DONE]":
                self.done = True
                return
            yield self._object(data)

    def end(self) -> None:
        """Take note that no more bytes will come.

        Raises:
            APIConnectionError: the stream is not complete.
        """
        if not self.done and self._decoder.rest().strip() != "[DONE]":
            raise APIConnectionError(
                "the stream ended without [DONE], so the answer is not complete; ask again",
                request_id=self._request_id,
            )
        self.done = True

    def broke(self, error: APIConnectionError) -> None:
        """Take note that the connection failed; raises the error unless everything had come before."""
        if not self.done:
            error.request_id = error.request_id or self._request_id
            raise error

    def _object(self, data: str) -> T:
        try:
            value = json.loads(data)
        except ValueError as error:
            raise APIConnectionError(
                f"the stream holds an event of {len(data)} characters that is not JSON",
                request_id=self._request_id,
            ) from error
        if isinstance(value, dict) and value.get("error"):
            raise stream_error(value, self._request_id)
        return self._read(value, self._request_id)


def stream_error(event: dict[str, Any], request_id: str | None) -> APIStatusError:
    """Return the error that an event reports; 500 where it names no status of its own."""
    given = event["error"]
    error = given if isinstance(given, dict) else {"message": str(given)}
    code = error.get("code")
    code = None if code is None else str(code)
    # vLLM writes the HTTP status as `code`.
    status = int(code) if code in _STATUSES else 500
    kind = status_error_class(status, code)
    return kind(
        str(error.get("message") or "the server broke off its stream without saying why"),
        status_code=status,
        code=code,
        param=error.get("param"),
        type=error.get("type"),
        request_id=request_id,
        body=event,
    )
