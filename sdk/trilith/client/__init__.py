"""The client: models through a gateway, over HTTP or inside this process."""

from trilith.client.async_client import AsyncClient
from trilith.client.client import Client
from trilith.client.raw import RawResponse
from trilith.client.schema import (
    ChatCompletion,
    ChatCompletionChunk,
    EmbeddingList,
    Feedback,
    ModelCard,
)
from trilith.client.stream import AsyncStream, Stream

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "ChatCompletion",
    "ChatCompletionChunk",
    "Client",
    "EmbeddingList",
    "Feedback",
    "ModelCard",
    "RawResponse",
    "Stream",
]
