"""OpenAI's shapes that callers touch. Fields that a server adds are kept and can be read as attributes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

T = TypeVar("T")

# Some servers write null where OpenAI writes an empty list (`choices` beside a stream's usage).
_Many = Annotated[list[T], BeforeValidator(lambda value: [] if value is None else value)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow", defer_build=True, protected_namespaces=())


class _Answered(_Shape):
    """A whole answer, with the id under which the gateway has recorded it."""

    _request_id: str | None = PrivateAttr(None)
    _cost_pico_usd: int | None = PrivateAttr(None)

    @property
    def request_id(self) -> str | None:
        """The `x-request-id` of the answer: what `feedback` wants; None where the server sent none."""
        return self._request_id

    @property
    def cost_pico_usd(self) -> int | None:
        """What the gateway charged (10^-12 USD); None where the server does not say."""
        return self._cost_pico_usd


class TokenDetails(_Shape):
    """Which of the tokens were of a special kind."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class CompletionUsage(_Shape):
    """Tokens of one call, as the server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None


class Function(_Shape):
    """A function that the model wants called."""

    name: str | None = None
    arguments: str | None = None
    """JSON, as the model wrote it: it may be wrong. In a stream, the next piece of it."""


class ToolCall(_Shape):
    """One wish of the model to call a tool."""

    id: str | None = None
    type: str | None = None
    function: Function | None = None
    index: int | None = None
    """In a stream: which call this piece belongs to."""


class ChatMessage(_Shape):
    """What the model said. A `rag` model's message also carries `citations`."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: _Many[ToolCall] = []


class Choice(_Shape):
    """One of `n` answers."""

    index: int = 0
    message: ChatMessage
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class ChatCompletion(_Answered):
    """A whole answer to a chat."""

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    """Unix time (seconds)."""
    model: str = ""
    choices: _Many[Choice]
    usage: CompletionUsage | None = None


class ChunkChoice(_Shape):
    """The next piece of one of `n` answers."""

    index: int = 0
    delta: ChatMessage = Field(default_factory=ChatMessage)
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class ChatCompletionChunk(_Shape):
    """The next piece of a streamed answer."""

    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0
    """Unix time (seconds)."""
    model: str = ""
    choices: _Many[ChunkChoice] = []
    """Empty in the chunk that carries the usage."""
    usage: CompletionUsage | None = None


class Embedding(_Shape):
    """One text's vector."""

    index: int = 0
    """Position of the text in `input`."""
    embedding: list[float]
    object: str = "embedding"


class EmbeddingList(_Answered):
    """The vectors of all texts of a call, in the order of `input`."""

    data: list[Embedding]
    model: str = ""
    usage: CompletionUsage | None = None
    object: str = "list"


class ModelCard(_Shape):
    """One model that the key may call."""

    id: str
    """What callers put in `model=`."""
    kind: Literal["chat", "embedding", "rerank", "rag", "predictor"] | str | None = None
    """None where the server is no Trilith gateway."""
    owned_by: str = ""
    priced: bool | None = None
    """Whether calls are charged; None where the server is no Trilith gateway."""
    created: int = 0
    """Unix time (seconds)."""
    object: str = "model"


class ModelList(_Shape):
    """What `GET /v1/models` answers."""

    data: list[ModelCard]


class Feedback(_Shape):
    """What the gateway recorded."""

    id: str
    request_id: str
