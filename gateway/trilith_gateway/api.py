"""The operations that callers may ask for: one table with everything in which they differ.

A stage never asks which operation it serves; it asks the operation's row. A new protocol is a new row, its
routes, and, where its upstreams do not speak it, a dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

import trilith_governance as governance
from trilith.errors import APIError, BadRequestError
from trilith.types import Kind, Usage
from trilith_gateway import fault, media, reported, request, sse
from trilith_gateway.dialect import anthropic, response
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
    COUNT = "count_tokens"
    RESPONSE = "responses"
    RERANK = "rerank"
    MODERATION = "moderation"
    IMAGE = "image"
    IMAGE_EDIT = "image_edit"
    IMAGE_VARIATION = "image_variation"
    SPEECH = "speech"
    TRANSCRIPTION = "transcription"
    TRANSLATION = "translation"


class Translator(Protocol):
    """Turns a chat's stream into that of another protocol."""

    def feed(self, event: bytes) -> bytes:
        """Take one whole event and return those that follow from it."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a protocol that is translated to chat on the way in is translated back."""

    ask: Callable[[Body], Body]
    """Returns the chat request; raises BadRequestError."""
    answer: Callable[[Body, str, bytes], Body]
    """Takes a decoded chat answer, the model's public name and the caller's own body."""
    stream: Callable[[str, bytes], Translator]
    """Takes the model's public name and the caller's own body."""
    refusal: Callable[[bytes, int], bytes]
    """Takes an upstream's error body and its status."""
    failure: Callable[[APIError], bytes]
    """Returns the event that tells of an error in mid-stream."""
    last: bytes | None = None
    """The data of a stream's last event; None: `Operation.last_event` knows it."""


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
    failure: Callable[[APIError], bytes] | None = None
    """The event that tells of an error in mid-stream, where it is not OpenAI's."""
    scores: bool = False
    """Whether what was used stands in the answer's headers, as rows, and not in its body."""
    renames: bool = True
    """Whether the body names a model, which goes on under the upstream's own name."""
    limits: tuple[str, ...] = ()
    """Fields that bound the answer's length; where a caller sets none, the first gets the model's limit."""
    generates: bool = False
    """Whether it is a chat or completion, whose streams are asked for usage."""
    last_event: tuple[bytes, ...] = ()
    """Words that only a stream's last event holds, for protocols without a fixed one."""
    repeatable: bool = True
    """Whether a request may be sent to an upstream again that may have acted upon it; not where that keeps
    something."""
    keeps: bool = False
    """Whether upstreams keep the answer under an id, by which callers may ask for it or go on with it."""
    dialect: Dialect | None = None
    """For protocols that are translated to chat."""
    ends_with: bytes | None = None
    """What a stream's last event says; a stream that ends without it was cut off. None: no such event."""
    counts: Callable[[Body, bytes], Usage] | None = None
    """Counts from the request, and the answer where that is whole, what was used when the upstream does not
    tell; None: the bytes are counted."""
    whole_usage: bool = False
    """Whether usage is read from the whole answer, and not from its `usage` field alone."""
    together: Callable[[Usage, Usage], Usage] | None = None
    """Puts what several events of one stream report together; None: the newest report is the whole."""
    form: bool = False
    """Whether the body is multipart/form-data."""
    opaque: bool = False
    """Whether answers are bytes that nobody looks into, passed on as they come."""
    forwards: tuple[str, ...] = ("traceparent", "tracestate")
    """Which of the caller's headers go on."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that go on where the caller sends none."""


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
    # Upstreams differ in which of the two they obey.
    wanted = max(body.get("max_completion_tokens") or 0, body.get("max_tokens") or 0) or most_output
    choices = max(body.get("n") or 1, body.get("best_of") or 1)
    return Usage(input_tokens=size, output_tokens=wanted * choices)


def _completed(body: Body, size: int, most_output: int) -> Usage:
    """Every prompt gets an answer; a list of numbers is one prompt."""
    prompt = body.get("prompt")
    prompts = sum(type(one) is not int for one in prompt) or 1 if type(prompt) is list else 1
    return Usage(size, _generated(body, size, most_output).output_tokens * prompts)


_LIMITS = ("max_tokens", "max_completion_tokens")
_ANTHROPIC = ("traceparent", "tracestate", "anthropic-version", "anthropic-beta")
_ANTHROPIC_VERSION = {"anthropic-version": "2023-06-01"}
_FORM = ("traceparent", "tracestate", "content-type")
_RESPONSE_ENDS = tuple(b'"type":"response.%b"' % end for end in (b"completed", b"incomplete", b"failed"))


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


def _free(body: Body, size: int, most_output: int) -> Usage:
    return Usage(requests=0)


def _uncounted(body: Body, answer: bytes) -> Usage:
    return Usage(requests=0)


def _nothing(answer: Body) -> Usage | None:
    return None


def _ranked(body: Body, size: int, most_output: int) -> Usage:
    return Usage(input_tokens=size)


def _stream_failure(error: APIError) -> bytes:
    return sse.encode(fault.openai(error))


def _same(body: bytes, status: int) -> bytes:
    return body


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
            bound=_completed,
            read_usage=_openai_usage,
            mask=governance.mask_completion,
            path="/v1/completions",
            restore=governance.restore_chat,
            restorer=governance.ChatStreamRestorer,
            limits=("max_tokens",),
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
            parse=_checked(
                request.check_model,
                request.check_messages,
                request.check_generation,
                request.check_answer_limit,
            ),
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
                anthropic.to_chat,
                anthropic.from_chat,
                anthropic.Stream,
                anthropic.refusal,
                anthropic.failure,
                anthropic.LAST,
            ),
            ends_with=b"[DONE]",
        ),
        Operation(
            Api.COUNT,
            frozenset({Kind.CHAT}),
            parse=_checked(request.check_model, request.check_messages),
            bound=_free,
            read_usage=_nothing,
            mask=governance.mask_chat,
            path="/tokenize",
            error=anthropic.error,
            dialect=Dialect(
                anthropic.to_chat, anthropic.counted, anthropic.Stream, anthropic.refusal, anthropic.failure
            ),
            counts=_uncounted,
        ),
        Operation(
            Api.RESPONSE,
            frozenset({Kind.CHAT, Kind.RAG}),
            parse=_checked(
                request.check_model, request.check_input, request.check_generation, request.check_present
            ),
            bound=_responded,
            read_usage=_response_usage,
            mask=governance.mask_response,
            path="/v1/responses",
            restore=governance.restore_response,
            restorer=governance.ResponseStreamRestorer,
            limits=("max_output_tokens",),
            last_event=_RESPONSE_ENDS,
            repeatable=False,
            whole_usage=True,  # the answer's name stands elsewhere in it
            keeps=True,
        ),
        Operation(
            Api.RERANK,
            frozenset({Kind.RERANK}),
            parse=_checked(request.check_model, request.check_documents),
            bound=_ranked,
            read_usage=reported.rerank_usage,
            mask=governance.mask_rerank,
            restore=governance.restore_rerank,
        ),
        Operation(
            Api.MODERATION,
            frozenset({Kind.MODERATION}),
            parse=_checked(request.check_model, request.check_input),
            bound=_embedded,
            read_usage=_openai_usage,
            mask=governance.mask_moderation,
            path="/v1/moderations",
        ),
        Operation(
            Api.IMAGE,
            frozenset({Kind.IMAGE}),
            parse=media.parse_image,
            bound=media.most_images,
            read_usage=media.image_usage,
            mask=governance.mask_completion,
            path="/v1/images/generations",
            restore=governance.restore_image,
            counts=media.images_asked,
            whole_usage=True,
            together=reported.added,
        ),
        *(
            Operation(
                api,
                frozenset({Kind.IMAGE}),
                parse=media.parse_image_form,
                bound=media.most_images,
                read_usage=media.image_usage,
                mask=media.refuse_protected,
                path=path,
                counts=media.images_asked,
                whole_usage=True,
                together=reported.added,
                form=True,
                forwards=_FORM,
            )
            for api, path in (
                (Api.IMAGE_EDIT, "/v1/images/edits"),
                (Api.IMAGE_VARIATION, "/v1/images/variations"),
            )
        ),
        Operation(
            Api.SPEECH,
            frozenset({Kind.AUDIO}),
            parse=media.parse_speech,
            bound=media.most_spoken,
            read_usage=media.audio_usage,
            mask=governance.check_speech,
            path="/v1/audio/speech",
            counts=media.spoken,
            opaque=True,
        ),
        *(
            Operation(
                api,
                frozenset({Kind.AUDIO}),
                parse=media.parse_audio_form,
                bound=media.most_heard,
                read_usage=media.audio_usage,
                mask=media.refuse_protected,
                path=path,
                counts=media.heard,
                whole_usage=True,
                form=True,
                forwards=_FORM,
            )
            for api, path in (
                (Api.TRANSCRIPTION, "/v1/audio/transcriptions"),
                (Api.TRANSLATION, "/v1/audio/translations"),
            )
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
            forwards=("traceparent", "tracestate", "content-type", "inference-header-content-length"),
        ),
    )
}

_CHAT = OPERATIONS[Api.CHAT]
_OTHERWISE: Mapping[tuple[str, Api], Operation | None] = {
    ("chat", Api.RESPONSE): replace(
        _CHAT,
        api=Api.RESPONSE,
        parse=OPERATIONS[Api.RESPONSE].parse,
        dialect=Dialect(response.to_chat, response.from_chat, response.Stream, _same, _stream_failure),
        last_event=_RESPONSE_ENDS,
    ),
    ("anthropic", Api.MESSAGE): Operation(
        Api.MESSAGE,
        frozenset({Kind.CHAT}),
        parse=OPERATIONS[Api.MESSAGE].parse,
        bound=_generated,
        read_usage=reported.message_usage,
        mask=governance.mask_message,
        path="/v1/messages",
        restore=governance.restore_message,
        restorer=governance.MessageStreamRestorer,
        error=anthropic.error,
        failure=anthropic.failure,
        last_event=(b'"type":"message_stop"', b'"type": "message_stop"'),
        together=reported.larger,
        forwards=_ANTHROPIC,
        headers=_ANTHROPIC_VERSION,
    ),
    ("anthropic", Api.COUNT): replace(
        OPERATIONS[Api.COUNT],
        mask=governance.mask_message,
        path="/v1/messages/count_tokens",
        dialect=None,
        forwards=_ANTHROPIC,
        headers=_ANTHROPIC_VERSION,
    ),
    ("anthropic", Api.CHAT): None,
    ("anthropic", Api.COMPLETION): None,
    ("anthropic", Api.RESPONSE): None,
}


def spoken_by(operation: Operation, protocol: str) -> Operation:
    """Return the row for an upstream that speaks another protocol than OpenAI's whole.

    Raises:
        BadRequestError: it cannot answer this operation.
    """
    found = _OTHERWISE.get((protocol, operation.api), operation)
    if found is None:
        raise BadRequestError(
            "This model's upstream speaks Anthropic's protocol alone. Send the request to /v1/messages.",
            status_code=400,
            code="operation_unsupported",
            type="invalid_request_error",
        )
    return found
