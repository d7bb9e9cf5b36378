"""Which requests the wire answers by itself; everything else is left to the ASGI application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import unquote

from trilith_gateway.api import Api

Found: TypeAlias = tuple[Api, str, str | None]
"""Operation, path, and the model that the path names."""

PATHS: Mapping[str, Api] = {
    "/v1/chat/completions": Api.CHAT,
    "/v1/completions": Api.COMPLETION,
    "/v1/embeddings": Api.EMBEDDING,
    "/v1/messages": Api.MESSAGE,
    "/v1/messages/count_tokens": Api.COUNT,
    "/v1/responses": Api.RESPONSE,
    "/v1/rerank": Api.RERANK,
    "/v1/moderations": Api.MODERATION,
    "/v1/images/generations": Api.IMAGE,
    "/v1/images/edits": Api.IMAGE_EDIT,
    "/v1/images/variations": Api.IMAGE_VARIATION,
    "/v1/audio/speech": Api.SPEECH,
    "/v1/audio/transcriptions": Api.TRANSCRIPTION,
    "/v1/audio/translations": Api.TRANSLATION,
}
"""OpenAI's paths; each is also answered without `/v1`, for clients whose base URL has none."""

_FIXED: Mapping[bytes, Found] = {
    given.encode(): (api, path, None)
    for path, api in PATHS.items()
    for given in (path, path.removeprefix("/v1"))
} | {b"/v2/rerank": (Api.RERANK, "/v2/rerank", None)}
_INFER = b"/infer"
_MODELS = b"/v2/models/"


def find(url: bytes) -> Found | None:
    """Return what a POST to `url` (as on the wire) asks for; None: not ours."""
    if (found := _FIXED.get(url)) is not None:
        return found
    if url.startswith(_MODELS) and url.endswith(_INFER):
        name, _, version = url[len(_MODELS) : -len(_INFER)].partition(b"/versions/")
        if name and b"/" not in version and b"?" not in url:
            model = unquote(name.decode("ascii", "replace"))
            path = unquote(url.decode("ascii", "replace"))
            return Api.PREDICT, path, model
    return None
