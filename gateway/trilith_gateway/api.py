"""The operations that callers may ask for: one table with everything in which they differ.

A stage never asks which operation it serves; it asks the operation's row. A new protocol is a new row, its
routes, and, where its upstreams do not speak it, a dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import trilith_governance as governance
from trilith.errors import APIError, PermissionDeniedError
from trilith.types import Kind, Usage
from trilith_gateway import fault, request
from trilith_gateway.dialect import anthropic
from trilith_gateway.usage import read_usage

Body = dict[str, Any]


class Api(StrEnum):
    """The operation that was asked for; also the first word of the request's span."""

    __hash__ = str.__hash__  # in C; an enum's own is not

    CHAT = "chat"
    COMPLETION = "text_completion"
    EMBEDDING = "embeddings"
    PREDICT = "predict"
    MESSAGE = "messages"
    RESPONSE = "responses"


class Translator(Protocol):
    """Turns a chat's stream into that of another protocol."""

    def feed(self, event: bytes) -> bytes:
        """Take one whole event and return those that follow from it."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a protocol that is translated to chat on the way in is translated back."""

    answer: Callable[[Body, str], Body]
    """Takes a decoded chat answer and the model's public name."""
    stream: Callable[[str], Translator]
    """Takes the model's public name."""
    refusal: Callable[[bytes, int], bytes]
    """Takes an upstream's error body and its status."""
    failure: Callable[[APIError], bytes]
    """Returns the event that tells of an error in mid-stream."""
    last: bytes
    """The data of a stream's last event."""


class Restorer(Protocol):
    """Puts a caller's own data back into a stream's chunks."""

    def feed(self, chunk: Body) -> list[Body]:
        """Take one decoded chunk and return those that can go out now."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One row of the table."""

    api: Api
    kinds: frozenset[Kind]
    """Which kinds of model answer it."""
    parse: Callable[[bytes, Mapping[str, str]], Body]
    """Reads the caller's body (given with the headers); raises BadRequestError."""
    bound: Callable[[Body, int, int], Usage]
    """The most that a request can use, from its body, its length in bytes, and the longest answer when it
    names none (tokens). A token is at least one byte of what is sent on."""
    read_usage: Callable[[Body], Usage | None]
    """Reads usage from a decoded answer, or from one event of a stream."""
    mask: Callable[[Body, governance.Protection], Body]
    """Returns the body with personal data replaced; blocking, CPU-bound."""
    path: str | None = None
    """Where OpenAI-compatible upstreams answer it; None: under the path that the caller used."""
    restore: Callable[[Body, governance.Protection], Body] | None = None
    """Puts the caller's own data back into a decoded answer; None where answers hold no text."""
    restorer: Callable[[governance.Protection], Restorer] | None = None
    """The same for a stream."""
    error: Callable[[APIError], Body] = fault.openai
    """The error body in the caller's protocol."""
    scores: bool = False
    """Whether what was used stands in the answer's headers, as rows, and not in its body."""
    renames: bool = True
    """Whether the body names a model, which goes on under the upstream's own name."""
    limits: tuple[str, ...] = ()
    """Fields that bound the answer's length; where a caller sets none, the first gets the model's limit."""
    generates: bool = False
    """Whether it is a chat or completion, whose streams are asked for usage."""
    last_event: bytes | None = None
    """Words that only a stream's last event holds, for protocols without a fixed one."""
    repeatable: bool = True
    """Whether a request may be sent to an upstream again that may have acted upon it; not where that keeps
    something."""
    dialect: Dialect | None = None
    """For protocols that `parse` has translated to chat."""
    ends_with: bytes | None = None
    """What a stream's last event says; a stream that ends without it was cut off. None: no such event."""


def _checked(*checks: Callable[[Body], None]) -> Callable[[bytes, Mapping[str, str]], Body]:
    def parse(raw: bytes, headers: Mapping[str, str]) -> Body:
        body = request.decode(raw)
        for check in checks:
            check(body)
        return body

    return parse


def _tensors(raw: bytes, headers: Mapping[str, str]) -> Body:
    if "inference-header-content-length" not in headers:
        body = request.decode(raw)
        request.check_tensors(body)
        return body
    from trilith_gateway.inference.request import parse

    return parse(raw, headers)


def _generated(body: Body, size: int, most_output: int) -> Usage:
    wanted = body.get("max_completion_tokens") or body.get("max_tokens") or most_output
    choices = max(body.get("n") or 1, body.get("best_of") or 1)
    return Usage(input_tokens=size, output_tokens=wanted * choices)


_LIMITS = ("max_tokens", "max_completion_tokens")


def _responded(body: Body, size: int, most_output: int) -> Usage:
    return Usage(input_tokens=size, output_tokens=body.get("max_output_tokens") or most_output)


def _response_usage(answer: Body) -> Usage | None:
    told = (answer.get("response") or answer).get("usage")
    if not isinstance(told, dict):
        return None
    return read_usage(
        {
            "prompt_tokens": told.get("input_tokens"),
            "completion_tokens": told.get("output_tokens"),
            "prompt_tokens_details": told.get("input_tokens_details"),
            "completion_tokens_details": told.get("output_tokens_details"),
        },
        (answer.get("response") or answer).get("service_tier"),
    )


def _unprotected(body: Body, protection: governance.Protection) -> Body:
    raise PermissionDeniedError(
        "This model's policy protects chats, and cannot yet look into responses. Use /v1/chat/completions.",
        status_code=403,
        code="policy_unsupported",
    )


def _embedded(body: Body, size: int, most_output: int) -> Usage:
    return Usage(input_tokens=size)


def _scored(body: Body, size: int, most_output: int) -> Usage:
    return Usage(rows=request.rows(body))


def _openai_usage(answer: Body) -> Usage | None:
    return read_usage(answer.get("usage"), answer.get("service_tier"))


def _check_only(body: Body, protection: governance.Protection) -> Body:
    governance.check_tabular(body, protection)
    return body


OPERATIONS: Mapping[Api, Operation] = {
    operation.api: operation
    for operation in (
        Operation(
            Api.CHAT,
            frozenset({Kind.CHAT, Kind.RAG}),
            parse=_checked(request.check_model, request.check_messages, request.check_generation),
            bound=_generated,
            read_usage=_openai_usage,
            mask=governance.mask_chat,
            path="/v1/chat/completions",
            restore=governance.restore_chat,
            restorer=governance.ChatStreamRestorer,
            limits=_LIMITS,
            generates=True,
            ends_with=b"[DONE]",
        ),
        Operation(
            Api.COMPLETION,
            frozenset({Kind.CHAT}),
            parse=_checked(request.check_model, request.check_prompt, request.check_generation),
            bound=_generated,
            read_usage=_openai_usage,
            mask=governance.mask_completion,
            path="/v1/completions",
            restore=governance.restore_chat,
            restorer=governance.ChatStreamRestorer,
            limits=_LIMITS,
            generates=True,
            ends_with=b"[DONE]",
        ),
        Operation(
            Api.EMBEDDING,
            frozenset({Kind.EMBEDDING}),
            parse=_checked(request.check_model, request.check_input),
            bound=_embedded,
            read_usage=_openai_usage,
            mask=governance.mask_embedding_input,
            path="/v1/embeddings",
        ),
        Operation(
            Api.MESSAGE,
            frozenset({Kind.CHAT, Kind.RAG}),
            parse=anthropic.to_chat,
            bound=_generated,
            read_usage=_openai_usage,
            mask=governance.mask_chat,
            path="/v1/chat/completions",
            restore=governance.restore_chat,
            restorer=governance.ChatStreamRestorer,
            error=anthropic.error,
            limits=_LIMITS,
            generates=True,
            dialect=Dialect(
                anthropic.from_chat,
                anthropic.Stream,
                anthropic.refusal,
                anthropic.failure,
                anthropic.LAST,
            ),
            ends_with=b"[DONE]",
        ),
        Operation(
            Api.RESPONSE,
            frozenset({Kind.CHAT}),
            parse=_checked(request.check_model, request.check_input, request.check_generation),
            bound=_responded,
            read_usage=_response_usage,
            mask=_unprotected,
            path="/v1/responses",
            limits=("max_output_tokens",),
            last_event=b'"type":"response.completed"',
            repeatable=False,
        ),
        Operation(
            Api.PREDICT,
            frozenset({Kind.PREDICTOR}),
            parse=_tensors,
            bound=_scored,
            read_usage=_openai_usage,
            mask=_check_only,
            error=fault.inference,
            scores=True,
            renames=False,
        ),
    )
}
