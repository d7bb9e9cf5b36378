"""One request and its answer on their way through the nine stages."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from opentelemetry.trace import Span as TraceSpan

from trilith.errors import InternalServerError, NotFoundError
from trilith.seams import Call, Reply
from trilith.types import Kind, Usage
from trilith_gateway.key import Key
from trilith_gateway.limit import Allowance
from trilith_gateway.release import Release
from trilith_governance import Protection


class Api(StrEnum):
    """The operation that was asked for; also the first word of the request's span."""

    CHAT = "chat"
    COMPLETION = "text_completion"
    EMBEDDING = "embeddings"
    PREDICT = "predict"

    @property
    def kinds(self) -> frozenset[Kind]:
        """Which kinds of model answer it."""
        return _KINDS[self]


_KINDS = {
    Api.CHAT: frozenset({Kind.CHAT, Kind.RAG}),
    Api.COMPLETION: frozenset({Kind.CHAT}),
    Api.EMBEDDING: frozenset({Kind.EMBEDDING}),
    Api.PREDICT: frozenset({Kind.PREDICTOR}),
}


class Rule(StrEnum):
    """By which rule a charge came about; every row of the ledger names one."""

    USAGE = "usage"
    """The upstream reported what was used."""
    ESTIMATE = "estimate"
    """The upstream answered without usage: tokens are counted as bytes / 3, rounded up."""
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


@dataclass(slots=True)
class Answer:
    """What goes back to the caller: a whole body, or a stream of server-sent events."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    events: AsyncIterator[bytes] | None = None
    """Whole events, each with its closing blank line; None when `body` is the answer."""


@dataclass(slots=True)
class Exchange:
    """Everything known about one request; each stage reads some of it and adds some."""

    api: Api
    path: str
    headers: Mapping[str, str]
    """The caller's, lower-case names."""
    receive_body: Callable[[int], Awaitable[bytes]]
    """Reads the body, at most so many bytes."""
    model_in_path: str | None = None
    """For protocols that name the model in the URL."""
    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(12)}")
    started_at: float = field(default_factory=time.time)
    started_ns: int = field(default_factory=time.time_ns)
    clock: float = field(default_factory=time.perf_counter)

    # identify
    key: Key | None = None
    # admit
    body: dict[str, Any] = field(default_factory=dict)
    body_bytes: int = 0
    stream: bool = False
    usage_wanted: bool = True
    """Whether the caller asked for usage in the stream."""
    model: str = "-"
    """Public name; "-" until the request is known to name one that exists."""
    release: Release | None = None
    allowance: Allowance | None = None
    admitted: bool = False
    """Let in by the second stage; from here on the ledger gets a row, whatever happens."""
    reserved: int | None = None
    """Pico-USD held; None when nothing was reserved."""
    # protect in
    protection: Protection | None = None
    # recall
    keep: list[tuple[bytes, float]] = field(default_factory=list)
    """Under which keys the answer is to be kept, and how long (seconds)."""
    recalled: bool = False
    # call
    call: Call | None = None
    """What goes to the upstream, set by the route stage."""
    reply: Reply | None = None
    answer: Answer | None = None
    first_byte_at: float | None = None
    """`time.perf_counter()` when the upstream's first byte came."""
    usage: Usage | None = None
    """As the upstream reported it, the newest report."""
    finish_reasons: tuple[str, ...] = ()
    response_id: str | None = None
    delivered_bytes: int = 0
    # settle
    rule: Rule | None = None
    amount: int | None = None
    """Pico-USD charged; None while unsettled, and for an unpriced model."""
    settled: bool = False
    span: TraceSpan | None = None

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
    kinds = " or ".join(sorted(kind.value for kind in api.kinds))
    return NotFoundError(
        f"The model {name!r} does not exist for this key, or is not of kind {kinds}. "
        "GET /v1/models lists yours.",
        status_code=404,
        code="model_not_found",
        param="model",
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
