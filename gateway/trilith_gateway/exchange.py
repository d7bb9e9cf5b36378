"""One request and its answer on their way through the nine stages."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from trilith.errors import APIStatusError, InternalServerError, NotFoundError
from trilith.seams import Call, Reply
from trilith.types import Usage
from trilith_gateway.api import OPERATIONS, Api, Operation
from trilith_gateway.key import Key
from trilith_gateway.limit import Allowance
from trilith_gateway.release import Release
from trilith_governance import Protection

if TYPE_CHECKING:
    from trilith_gateway.trace import RequestTrace


class Rule(StrEnum):
    """By which rule a charge came about; every row of the ledger names one."""

    __hash__ = str.__hash__  # in C; an enum's own is not

    USAGE = "usage"
    """The upstream reported what was used."""
    ESTIMATE = "estimate"
    """The upstream answered without usage: tokens are counted as bytes / 3, rounded up."""
    REQUEST = "request"
    """The upstream answered without usage, and the request tells it: images, seconds, characters."""
    ABORTED = "aborted"
    """The caller left: what the upstream had reported by then is charged."""
    BROKEN = "broken"
    """The upstream broke off: what it had reported by then is charged."""
    CACHED = "cached"
    """Answered from the cache: nothing is charged."""
    FAILED = "failed"
    """No answer: nothing is charged."""
    UNPRICED = "unpriced"
    """The model has no price: the amount is unknown, not zero."""


_random = bytearray()
"""Bytes from the system that are not used yet: asking for each id alone would cost a system call each."""


def new_id(now_ns: int) -> str:
    """Return a request's id: 11 hexadecimal digits of time (milliseconds), then 56 random bits.

    So ids are in order of time, which is also the cheapest order to store them in.
    """
    return f"req_{now_ns // 1_000_000:011x}{random_bytes(7).hex()}"


def random_bytes(count: int) -> bytes:
    """Return random bytes from the system, fit for identifiers."""
    if len(_random) < count:
        _random.extend(os.urandom(4096))
    part = bytes(_random[-count:])
    del _random[-count:]
    return part


_NOTHING: dict[str, Any] = {}
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(slots=True)
class Answer:
    """What goes back to the caller: a whole body, or a stream of server-sent events."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    events: AsyncIterator[bytes] | None = None
    """Blocks of one or more whole events, closing blank lines included; None when `body` is the answer."""
    opaque: bool = False
    """Whether `events` are any bytes, into which no word of ours fits."""


class Exchange:
    """Everything known about one request; each stage reads some of it and adds some."""

    __slots__ = (
        "admitted",
        "allowance",
        "amount",
        "answer",
        "api",
        "batched",
        "body",
        "body_bytes",
        "call",
        "clock",
        "delivered_bytes",
        "fell_back",
        "finish_reasons",
        "first_byte_at",
        "headers",
        "id",
        "keep",
        "key",
        "masked",
        "model",
        "model_in_path",
        "operation",
        "path",
        "protection",
        "raw",
        "read_body",
        "recalled",
        "release",
        "reply",
        "request_id",
        "reserved",
        "response_id",
        "rule",
        "saved_pico_usd",
        "settled",
        "started_ns",
        "stream",
        "trace",
        "trail",
        "usage",
        "usage_wanted",
        "waited_s",
    )

    def __init__(
        self,
        api: Api,
        path: str,
        headers: Mapping[str, str],
        read_body: Callable[[int], bytes | Awaitable[bytes]],
        model_in_path: str | None = None,
    ) -> None:
        """Begin an exchange.

        Args:
            api: What is asked for.
            path: The URL's path, as the caller used it.
            headers: The caller's, lower-case names.
            read_body: Returns the body if it is there, else what waits for it; reads at most so many bytes.
            model_in_path: For protocols that name the model in the URL.
        """
        self.started_ns = time.time_ns()
        self.clock = time.perf_counter()
        self.id = new_id(self.started_ns)
        """Ours, unique and in order of time; the ledger's key."""
        given = headers.get("x-request-id")
        self.request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else self.id
        """What caller and upstream are told: the caller's own `x-request-id` if it sent a sensible one."""
        self.api = api
        self.operation: Operation = OPERATIONS[api]
        self.path = path
        self.headers = headers
        self.read_body = read_body
        self.model_in_path = model_in_path
        self.batched = False
        """A line of a batch: at the batch's price, and not in anybody's way."""

        # identify
        self.key: Key | None = None
        # admit
        self.raw = b""
        """The body as it came."""
        self.body: dict[str, Any] = _NOTHING
        """The body, decoded; after stage 3 with placeholders in it."""
        self.body_bytes = 0
        self.stream = False
        self.usage_wanted = True
        """Whether the caller asked for usage in the stream."""
        self.model = "-"
        """Public name; "-" until the request is known to name one that exists."""
        self.release: Release | None = None
        self.allowance: Allowance | None = None
        self.admitted = False
        """Let in by the second stage; from here on the ledger gets a row, whatever happens."""
        self.reserved: int | None = None
        """Pico-USD held; None when nothing was reserved."""
        # protect in
        self.protection: Protection | None = None
        self.masked = False
        """Whether `body` differs from `raw`."""
        # recall
        self.keep: list[tuple[bytes, float]] = []
        """Under which keys the answer is to be kept, and how long (seconds)."""
        self.recalled = False
        self.saved_pico_usd = 0
        """What the answer from the cache cost when it was made."""
        # route and call
        self.call: Call | None = None
        """What goes to the upstream, set by the route stage."""
        self.fell_back = False
        """Another model than the one that was asked for answers."""
        self.trail: list[object] | None = None
        """What was decided on the way, for `trilith explain`."""
        self.reply: Reply | None = None
        self.answer: Answer | None = None
        self.first_byte_at: float | None = None
        """`time.perf_counter()` when the upstream's first byte came."""
        self.waited_s = 0.0
        """How long the upstream was waited for (seconds), until its head or, without a stream, its end."""
        self.usage: Usage | None = None
        """As the upstream reported it, the newest report."""
        self.finish_reasons: tuple[str, ...] = ()
        self.response_id: str | None = None
        self.delivered_bytes = 0
        # settle
        self.rule: Rule | None = None
        self.amount: int | None = None
        """Pico-USD charged; None while unsettled, and for an unpriced model."""
        self.settled = False
        self.trace: RequestTrace | None = None
        """What is noted for the request's spans; None when nobody collects them."""

    @property
    def caller(self) -> Key:
        """The key, once identified."""
        if self.key is None:
            raise RuntimeError("the caller is not identified yet")
        return self.key

    @property
    def target(self) -> Release:
        """The release, once admitted."""
        if self.release is None:
            raise RuntimeError("the request is not admitted yet")
        return self.release

    @property
    def kind(self) -> str:
        """Kind of the model, "-" while unknown."""
        return self.release.kind.value if self.release else "-"


def model_not_found(name: str, api: Api) -> NotFoundError:
    """Make the error for a model that does not exist, may not be called, or is of another kind."""
    kinds = " or ".join(sorted(kind.value for kind in OPERATIONS[api].kinds))
    return NotFoundError(
        f"The model {name!r} does not exist for this key, or is not of kind {kinds}. "
        "GET /v1/models lists yours.",
        status_code=404,
        code="model_not_found",
        param="model",
        type="invalid_request_error",
    )


def too_large(most_bytes: int) -> APIStatusError:
    """Make the error for a body that is longer than `most_bytes`."""
    return APIStatusError(
        f"The body is longer than {most_bytes:,} bytes (setting gateway.max_body_bytes).",
        status_code=413,
        code="request_too_large",
        type="invalid_request_error",
    )


def store_unavailable() -> InternalServerError:
    """Make the error for a journal that does not take a fact: what cannot be recorded is not answered."""
    return InternalServerError(
        "The gateway cannot record what it does, so it answers nothing. Is its disk full?",
        status_code=503,
        code="store_unavailable",
        type="server_error",
    )
