"""Lines of a batch: the requests in its input, and the outcomes, each on disk before it counts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any

import orjson

from trilith.errors import BadRequestError
from trilith_gateway import request, sse

_MOST_FAULTS = 100
_MOST_ID = 512
_SKIP_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One request."""

    number: int
    """From 1."""
    custom_id: str
    url: str
    body: bytes
    """As it stands in the file, byte for byte."""


def lines(path: Path, done: Container[int] = ()) -> Iterator[Line]:
    """Yield those requests of a file that `check` has accepted whose numbers are not `done`."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if number not in done and raw.strip():
                value = orjson.loads(raw)
                start, end = request.spans(raw)["body"]
                yield Line(number, value["custom_id"], value["url"], raw[start:end])


class Reader:
    """Hands out the lines that are left, one at a time, to as many tasks as ask.

    A line is read and parsed in a thread: it may be as long as a body, and the event loop is everybody's.
    """

    def __init__(self, path: Path, done: Container[int]) -> None:
        """Take the file, and the numbers of the lines that are left out; they may become more meanwhile."""
        self._left = lines(path, done)
        self._lock = asyncio.Lock()

    async def take(self) -> Line | None:
        """Return the next line; None when there is no other."""
        async with self._lock:
            return await asyncio.to_thread(next, self._left, None)


def check(path: Path, endpoint: str, most_lines: int, most_bytes: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many requests a file holds, and what is wrong with it, in OpenAI's words.

    Args:
        path: The file.
        endpoint: What every line has to ask for.
        most_lines: How many requests there may be, and how many empty lines beside them.
        most_bytes: How long a line may be (bytes); no more of one is held in memory.
    """
    faults: list[dict[str, Any]] = []
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, raw in enumerate(_bounded(file, most_bytes), 1):
            empty = not raw.strip()
            if (len(seen) >= most_lines and not empty) or number > 2 * most_lines:
                what = f"The file holds more than {most_lines:,} requests (setting batches.max_lines)."
                return len(seen), [_fault("too_many_lines", what, None)]
            if len(raw.removesuffix(b"\n").removesuffix(b"\r")) > most_bytes:
                what = f"The line is longer than {most_bytes:,} bytes (setting gateway.max_body_bytes)."
                faults.append(_fault("line_too_long", what, number))
            elif not empty and (fault := _wrong(raw, endpoint, seen)) is not None:
                faults.append(_fault(*fault, number))
            if len(faults) >= _MOST_FAULTS:
                break
            time.sleep(0)  # lets go of the interpreter: this is a thread beside one that answers callers
    if not seen and not faults:
        faults.append(_fault("empty_file", "The file holds no requests.", None))
    return len(seen), faults


def _bounded(file: IO[bytes], most_bytes: int) -> Iterator[bytes]:
    """Yield lines; of one that is longer than `most_bytes`, its beginning alone."""
    while raw := file.readline(most_bytes + 2):
        whole = raw
        while whole and not whole.endswith(b"\n"):
            whole = file.readline(_SKIP_BYTES)
        yield raw


def _fault(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "line": line, "message": message, "param": None}


def _wrong(raw: bytes, endpoint: str, seen: set[str]) -> tuple[str, str] | None:
    """Return code and message of what is wrong with one line; notes its `custom_id`."""
    try:
        value = orjson.loads(raw)
    except JSONDecodeError:
        return "invalid_json_line", "The line is not valid JSON."
    if type(value) is not dict:
        return "invalid_json_line", "The line is not a JSON object."
    name = value.get("custom_id")
    if type(name) is not str or not 1 <= len(name) <= _MOST_ID:
        return "missing_required_parameter", f"`custom_id` is expected to be a text of 1 to {_MOST_ID} signs."
    if name in seen:
        return "duplicate_custom_id", "`custom_id` stands in the file twice."
    seen.add(name)
    if value.get("method") != "POST":
        return "invalid_method", "`method` is expected to be POST."
    if value.get("url") != endpoint:
        return "mismatched_endpoint", f"`url` is expected to be the batch's endpoint, {endpoint}."
    if type(value.get("body")) is not dict:
        return "invalid_request", "`body` is expected to be an object."
    if value["body"].get("stream"):
        return "invalid_request", "`stream` has no meaning in a batch."
    try:
        request.spans(raw)
    except BadRequestError as error:
        return "invalid_request", error.message
    return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one line."""

    answered: bool
    """Whether it goes to the output, and not to the errors."""
    text: bytes
    """The line of the file, without its end."""


def answered(id: str, custom_id: str, status: int, request_id: str, body: bytes) -> Outcome:
    """Return the outcome of a request that got an answer, be it an error."""
    if b"\n" in body or not _is_json(body):
        body = sse.dump(orjson.loads(body) if _is_json(body) else body.decode("utf-8", "replace"))
    text = (
        b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,"request_id":%b,"body":%b},"error":null}'
        % (
            sse.dump(id),
            sse.dump(custom_id),
            status,
            sse.dump(request_id),
            body,
        )
    )
    return Outcome(status < 400, text)


def unanswered(id: str, custom_id: str, code: str, message: str) -> Outcome:
    """Return the outcome of a request that was never made."""
    error = {"code": code, "message": message}
    return Outcome(False, sse.dump({"id": id, "custom_id": custom_id, "response": None, "error": error}))


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except JSONDecodeError:
        return False
    return True


class Results:
    """The outcomes of one batch so far, one line each in a file; what a kill left half written is cut off."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it."""
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.done: set[int] = set()
        """Numbers of the lines that have an outcome."""
        self.completed = self.failed = 0
        size = 0
        with path.open("rb") as file:
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                size += len(raw)
                self._count(raw)
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)

    def _count(self, raw: bytes) -> None:
        number, answered, _ = raw.split(b" ", 2)
        self.done.add(int(number))
        if answered == b"1":
            self.completed += 1
        else:
            self.failed += 1

    def add(self, number: int, outcome: Outcome) -> None:
        """Write one outcome; on return it survives a kill -9 of this process."""
        raw = b"%d %d %b\n" % (number, outcome.answered, outcome.text)
        before = os.lseek(self._file, 0, os.SEEK_CUR)
        if os.write(self._file, raw) < len(raw):
            os.ftruncate(self._file, before)
            os.lseek(self._file, before, os.SEEK_SET)
            raise OSError("the disk took a part of an outcome")
        self._count(raw)

    def write_files(self, output: Path, errors: Path) -> None:
        """Write answered lines to one file and all others to another, in the order of the input."""
        places: list[tuple[int, int]] = []
        at = 0
        with self._path.open("rb") as file:
            for raw in file:
                places.append((int(raw.split(b" ", 1)[0]), at))
                at += len(raw)
            with output.open("wb") as good, errors.open("wb") as bad:
                for _, place in sorted(places):
                    file.seek(place)
                    _, answered, text = file.readline().split(b" ", 2)
                    (good if answered == b"1" else bad).write(text)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            os.close(self._file)
