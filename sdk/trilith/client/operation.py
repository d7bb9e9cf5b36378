"""What each call sends and how its answer is read, without sending anything: both clients use this."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar, cast
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from trilith.client import schema, tensor
from trilith.client.option import CALL_OPTIONS, CallOptions, ChatOptions, EmbeddingOptions
from trilith.client.wire import Answer
from trilith.errors import APIError
from trilith.money import pico_usd
from trilith.types import Answer as RagAnswer
from trilith.types import Citation, Message, Prediction, Usage

T = TypeVar("T")

Turn: TypeAlias = Message | schema.ChatMessage | Mapping[str, Any]
"""One message of a chat: ours, one that a model said before, or OpenAI's fields."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One call, described."""

    method: str
    path: str
    body: Mapping[str, Any] | None
    read: Callable[[Any, str | None], T]
    """Makes the result from decoded JSON and the request id; of a stream, from each of its events."""
    options: CallOptions

    def result(self, answer: Answer) -> T:
        """Read a whole, successful answer.

        Raises:
            APIError: it is not what was promised.
        """
        request_id = answer.headers.get("x-request-id")
        try:
            value = json.loads(answer.body)
        except ValueError:
            raise self._strange("no JSON", request_id) from None
        return _priced(self.shaped(value, request_id), answer.headers.get("x-trilith-cost-usd"))

    def shaped(self, value: Any, request_id: str | None) -> T:
        """Read decoded JSON: a whole answer, or one event of a stream; raises as `result` does."""
        try:
            return self.read(value, request_id)
        except ValidationError as error:
            # pydantic's own text, and the chained error, would show what the model said.
            first = error.errors(include_input=False, include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['type']}"
            raise self._strange(reason, request_id) from None
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._strange(type(error).__name__, request_id) from None

    def _strange(self, reason: str, request_id: str | None) -> APIError:
        return APIError(
            f"{self.method} {self.path} was answered in an unknown shape ({reason}); "
            "check that base_url is a gateway's",
            request_id=request_id,
        )


def chat(model: str, messages: Iterable[Turn], options: ChatOptions) -> Operation[schema.ChatCompletion]:
    """Describe a chat that is answered at once."""
    return _chat(model, messages, options, False, _answered(schema.ChatCompletion))


def chat_stream(
    model: str, messages: Iterable[Turn], options: ChatOptions
) -> Operation[schema.ChatCompletionChunk]:
    """Describe a chat that is answered piece by piece."""

    def read(value: Any, request_id: str | None) -> schema.ChatCompletionChunk:
        return schema.ChatCompletionChunk.model_validate(value)

    return _chat(model, messages, options, True, read)


def ask(model: str, question: str, history: Iterable[Turn], options: ChatOptions) -> Operation[RagAnswer]:
    """Describe a question to a `rag` model."""

    def read(value: Any, request_id: str | None) -> RagAnswer:
        completion = schema.ChatCompletion.model_validate(value)
        message = completion.choices[0].message
        citations = (message.model_extra or {}).get("citations") or ()
        return RagAnswer(
            text=message.content or "",
            citations=tuple(TypeAdapter(list[Citation]).validate_python(citations)),
            model=completion.model or model,
            request_id=request_id or "",
            usage=_usage(completion.usage),
        )

    return _chat(model, [*history, Message("user", question)], options, False, read)


def embed(
    model: str,
    given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
    options: EmbeddingOptions,
) -> Operation[schema.EmbeddingList]:
    """Describe the embedding of one text or several, as text or as tokens."""
    _known(options, EmbeddingOptions)
    body = {"model": model, "input": given if isinstance(given, str) else list(given), **_fields(options)}
    return Operation("POST", "/v1/embeddings", body, _answered(schema.EmbeddingList), options)


def predict(
    model: str, rows: tensor.Rows, options: CallOptions, version: str | None = None
) -> Operation[Prediction]:
    """Describe a prediction for a batch of rows."""
    _known(options, CallOptions)

    def read(value: Any, request_id: str | None) -> Prediction:
        return tensor.prediction(value, model, request_id or "")

    path = f"/v2/models/{quote(model, safe='')}"
    if version is not None:
        path += f"/versions/{quote(version, safe='')}"
    path += "/infer"
    return Operation("POST", path, {"inputs": tensor.tensors(rows)}, read, options)


def feedback(
    request_id: str, score: float | None, label: str | None, comment: str | None, options: CallOptions
) -> Operation[schema.Feedback]:
    """Describe an opinion about an earlier answer."""
    _known(options, CallOptions)
    body = {"request_id": request_id, "score": score, "label": label, "comment": comment}

    def read(value: Any, _: str | None) -> schema.Feedback:
        return schema.Feedback.model_validate(value)

    return Operation("POST", "/v1/feedback", body, read, options)


def models(options: CallOptions) -> Operation[list[schema.ModelCard]]:
    """Describe the listing of all models that the key may call."""
    _known(options, CallOptions)

    def read(value: Any, _: str | None) -> list[schema.ModelCard]:
        return schema.ModelList.model_validate(value).data

    return Operation("GET", "/v1/models", None, read, options)


def model(name: str, options: CallOptions) -> Operation[schema.ModelCard]:
    """Describe the look-up of one model."""
    _known(options, CallOptions)

    def read(value: Any, _: str | None) -> schema.ModelCard:
        return schema.ModelCard.model_validate(value)

    return Operation("GET", f"/v1/models/{quote(name, safe='')}", None, read, options)


def _chat(
    model: str,
    messages: Iterable[Turn],
    options: ChatOptions,
    streamed: bool,
    read: Callable[[Any, str | None], T],
) -> Operation[T]:
    _known(options, ChatOptions)
    body = {"model": model, "messages": [_message(message) for message in messages], **_fields(options)}
    if streamed:
        body["stream"] = True
    return Operation("POST", "/v1/chat/completions", body, read, options)


def _message(message: Turn) -> dict[str, Any]:
    if isinstance(message, schema.ChatMessage):
        return message.model_dump(exclude_none=True, exclude_unset=True)
    return asdict(message) if isinstance(message, Message) else dict(message)


def _known(options: CallOptions, described: type) -> None:
    """Refuse misspelt options, which a TypedDict does not do at run time."""
    if unknown := sorted(options.keys() - described.__annotations__.keys()):
        raise TypeError(f"unknown arguments {unknown}; fields that only the server knows go into extra_body")


def _fields(options: CallOptions) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in CALL_OPTIONS and value is not None}


def _priced(found: T, told: str | None) -> T:
    """Put what the gateway charged into a result that has a place for it."""
    if told is None:
        return found
    try:
        cost = pico_usd(told)
    except (ValueError, ArithmeticError):  # not a gateway's header
        return found
    if isinstance(found, schema.ChatCompletion | schema.EmbeddingList):
        found._cost_pico_usd = cost
    elif isinstance(found, RagAnswer | Prediction):
        return cast(T, replace(found, cost_pico_usd=cost))
    return found


A = TypeVar("A", schema.ChatCompletion, schema.EmbeddingList)


def _answered(shape: type[A]) -> Callable[[Any, str | None], A]:
    def read(value: Any, request_id: str | None) -> A:
        found = shape.model_validate(value)
        found._request_id = request_id
        return found

    return read


def _usage(found: schema.CompletionUsage | None) -> Usage:
    if found is None:
        return Usage()
    cached, reasoning = found.prompt_tokens_details, found.completion_tokens_details
    return Usage(
        input_tokens=found.prompt_tokens,
        output_tokens=found.completion_tokens,
        cached_input_tokens=(cached and cached.cached_tokens) or 0,
        reasoning_tokens=(reasoning and reasoning.reasoning_tokens) or 0,
    )
