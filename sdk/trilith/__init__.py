"""Language models and classical models side by side: one SDK, one gateway, one way to ship them."""

from trilith.client import (
    AsyncClient,
    AsyncStream,
    ChatCompletion,
    ChatCompletionChunk,
    Client,
    EmbeddingList,
    Feedback,
    ModelCard,
    RawResponse,
    Stream,
)
from trilith.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ConflictError,
    ContractViolation,
    DataError,
    EngineError,
    IntegrityError,
    InternalServerError,
    MissingExtra,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SettingsError,
    TrilithError,
    UnprocessableEntityError,
)
from trilith.telemetry import traced
from trilith.types import Answer, Citation, Kind, Message, Prediction, Usage

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "ChatCompletion",
    "ChatCompletionChunk",
    "Citation",
    "Client",
    "ConflictError",
    "ContractViolation",
    "DataError",
    "EmbeddingList",
    "EngineError",
    "Feedback",
    "IntegrityError",
    "InternalServerError",
    "Kind",
    "Message",
    "MissingExtra",
    "ModelCard",
    "NotFoundError",
    "PermissionDeniedError",
    "Prediction",
    "RateLimitError",
    "RawResponse",
    "SettingsError",
    "Stream",
    "TrilithError",
    "UnprocessableEntityError",
    "Usage",
    "__version__",
    "traced",
]

__version__: str


def __getattr__(name: str) -> str:
    # Reading the distribution's metadata takes milliseconds, and few programs ask.
    if name == "__version__":
        from importlib.metadata import version

        return version("trilith")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
