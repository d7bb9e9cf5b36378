"""One request and its answer on their way through the nine stages."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trilith.errors import APIStatusError, InternalServerError, NotFoundError
from trilith.seams import Call, Decision, Reply
from trilith.types import Kind, Usage
from trilith_gateway.api import OPERATIONS, Api, Operation
from trilith_gateway.identifier import new_id
from trilith_gateway.key import Key
from trilith_gateway.limits.seam import Allowance
from trilith_gateway.release import Release
from trilith_gateway.rule import Rule, Try
from trilith_gateway.usage import Tally
from trilith_governance import Protection

if TYPE_CHECKING:
    from trilith_gateway.caching.flight import Ticket
    from trilith_gateway.caching.semantic import Question
    from trilith_gateway.routing import gate
    from trilith_gateway.trace import RequestTrace


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
        "budget",
        "body_bytes",
        "cache",
        "cache_age_s",
        "call",
        "cascaded",
        "clock",
        "delivered_bytes",
        "exceeded",
        "fell_back",
        "finish_reasons",
        "first_byte_at",
        "head_until",
        "headers",
        "id",
        "join",
        "keep",
        "kept_as",
        "key",
        "masked",
        "model",
        "model_in_path",
        "only",
        "operation",
        "paid",
        "path",
        "pinned",
        "protection",
        "place",
        "queued_s",
        "question",
        "raw",
        "read_body",
        "recalled",
        "release",
        "reply",
        "request_id",
        "reserved",
        "reserved_at",
        "response_id",
        "rule",
        "saved_pico_usd",
        "settled",
        "started_ns",
        "stream",
        "tag",
        "tally",
        "ticket",
        "token_allowance",
        "tokens_taken",
        "trace",
        "trail",
        "tries",
        "until",
        "upstream",
        "usage",
        "usage_wanted",
        "version",
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
        self.paid = False
        """Its caller has paid under this id, and the answer was lost: the platform pays for another."""

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
        self.token_allowance: Allowance | None = None
        self.tokens_taken: int | None = None
        """Tokens counted in advance; None while nothing is taken from the key's limits."""
        self.admitted = False
        """Let in by the second stage; from here on the ledger gets a row, whatever happens."""
        self.reserved: int | None = None
        """Pico-USD held; None when nothing was reserved."""
        self.reserved_at = 0.0
        """When (Unix time); the charge counts in this time's windows."""
        self.budget = ""
        """What a budget did: `soft`, `degrade` or `exhausted`, and the account (`degrade team:lab`)."""
        # protect in
        self.protection: Protection | None = None
        self.masked = False
        """Whether `body` differs from `raw`."""
        # recall
        self.keep: list[tuple[bytes, float, bool]] = []
        """Under which keys the answer is kept, how long (seconds), and whether other requests may get it."""
        self.cache: str | None = None
        """What the caller is told of the cache (`x-trilith-cache`); None: nothing, the model has none."""
        self.cache_age_s = 0.0
        """How old the answer from the cache is (seconds)."""
        self.pinned: str | None = None
        """Digest of the release that the caller named; nothing but it and its own cascade may answer."""
        self.version: str | None = None
        """What the release answers from: its documents, its trained model; part of the cache's key."""
        self.question: Question | None = None
        """Set where an answer to a question that means the same would do."""
        self.join: bytes | None = None
        """Calls under way with the same value share one call of the upstream; None: this one is alone."""
        self.ticket: Ticket | None = None
        """This caller's place in a shared call."""
        self.recalled = False
        self.saved_pico_usd = 0
        """What the answer from the cache, or the call that was joined, cost; or what a cascade has spared."""
        # route and call
        self.call: Call | None = None
        """What goes to the upstream, set by the route stage."""
        self.place: gate.Ticket | None = None
        """A place at a model that takes only so many calls at once."""
        self.queued_s = 0.0
        """How long that place was waited for (seconds)."""
        self.fell_back = False
        """Another model than the one that was asked for answers."""
        self.tag: str | None = None
        """Only replicas that have it may answer."""
        self.only: str | None = None
        """Only the replica of this name may answer: it keeps what the request goes on with."""
        self.until: float | None = None
        """`time.perf_counter()` by which the answer must be whole; None: the gateway's own limit counts."""
        self.head_until: float | None = None
        """By which its head must be there, or without a stream all of it; None: as `until`."""
        self.trail: list[Decision] = []
        """What was decided on the way, for `trilith explain` (`decision` has the words)."""
        self.upstream = ""
        """Who was asked last: a replica's name, or where the release's only upstream is."""
        self.cascaded: str | None = None
        """The step of a cascade whose answer goes out."""
        self.reply: Reply | None = None
        self.answer: Answer | None = None
        self.first_byte_at: float | None = None
        """`time.perf_counter()` when the upstream's first byte came."""
        self.waited_s = 0.0
        """How long the upstream was waited for (seconds), until its head or, without a stream, its end."""
        self.usage: Usage | None = None
        """As the upstream reported it, the newest report."""
        self.tally: Tally | None = None
        """What has come of a stream that reports usage at its end only."""
        self.tries: list[Try] | None = None
        """What was tried before or beside the try that answers; each is a row of the ledger."""
        self.finish_reasons: tuple[str, ...] = ()
        self.response_id: str | None = None
        self.kept_as = ""
        """Digest of the name under which the upstream keeps its answer, where it keeps answers."""
        self.delivered_bytes = 0
        # settle
        self.rule: Rule | None = None
        self.amount: int | None = None
        """Pico-USD charged; None while unsettled, and for an unpriced model."""
        self.settled = False
        self.exceeded = False
        """It cost more than was reserved for it."""
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
        """Kind of the model that was asked for, "-" while unknown."""
        if self.cascaded is not None:
            return Kind.CHAT.value
        return self.release.kind.value if self.release else "-"


def model_not_found(name: str, api: Api) -> NotFoundError:
    """Make the error for a model that does not exist, may not be called, or is of another kind."""
    kinds = " or ".join(sorted(kind.value for kind in OPERATIONS[api].kinds))
    return NotFoundError(
        f"The model {name[:128]!r} does not exist for this key, or is not of kind {kinds}. "
        "GET /v1/models lists yours.",
        status_code=404,
        code="model_not_found",
        param="model",
        type="invalid_request_error",
    )


def too_large(most_bytes: int, setting: str = "gateway.max_body_bytes") -> APIStatusError:
    """Make the error for a body that is longer than `most_bytes`."""
    return APIStatusError(
        f"The body is longer than {most_bytes:,} bytes (setting {setting}).",
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


def budgets_unavailable() -> InternalServerError:
    """Make the error for a database that does not say what is left of a budget."""
    return InternalServerError(
        "The budgets of this key cannot be looked up at the moment. Try again.",
        status_code=503,
        code="store_unavailable",
        type="server_error",
        retry_after_s=1,
    )
