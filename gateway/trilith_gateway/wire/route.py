"""Which requests the wire answers by itself; everything else is left to the ASGI application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import unquote

from trilith_gateway.api import Api

Found: TypeAlias = tuple[Api, str, str | None]
"""Operation, path, and the model that the path names."""

_FIXED: Mapping[bytes, Found] = {
    path.encode(): (api, path, None)
    for api, path in (
        (Api.CHAT, "/v1/chat/completions"),
        (Api.COMPLETION, "/v1/completions"),
        (Api.EMBEDDING, "/v1/embeddings"),
        (Api.MESSAGE, "/v1/messages"),
        (Api.RESPONSE, "/v1/responses"),
    )
}
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
