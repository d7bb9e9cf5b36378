"""A gateway with one model of every kind behind which scripted upstreams speak their protocols."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from support.gateway import PRICE, Running
from trilith.errors import APIConnectionError
from trilith.seams import Call, Reply, Upstream
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream

HERE = {"url": "http://127.0.0.1:9/v1"}
ALL = {"ttl_s": 600, "only_deterministic": False}
MODELS: dict[str, dict[str, Any]] = {
    "chat": {"kind": "chat", "upstream": HERE, "price": PRICE},
    "kept": {
        "kind": "chat",
        "upstream": HERE,
        "price": PRICE,
        "cache": {"ttl_s": 600, "only_deterministic": False},
    },
    "guarded": {"kind": "chat", "upstream": HERE, "price": PRICE, "policy": "private"},
    "vectors": {"kind": "embedding", "upstream": HERE, "price": PRICE},
    "library": {"kind": "rag", "index": "books", "generator": "chat", "price": PRICE},
    "bikes": {"kind": "predictor", "registered_model": "bikes", "price": PRICE | {"usd_per_krow": "1"}},
}
"""One model of every kind, one whose answers are kept, and one with a policy."""

_CHATS = ["chat", "kept", "guarded", "library", "nobody"]
TARGETS = {
    "/v1": ["chat", "bikes", "nobody"],
    "/v2": ["bikes", "chat", "nobody"],
    "/v1/chat/completions": _CHATS,
    "/v1/messages": _CHATS,
    "/v1/completions": ["chat", "guarded", "vectors"],
    "/v1/embeddings": ["vectors", "chat"],
    "/v1/responses": ["chat", "guarded", "nobody"],
}
"""Which models to ask for on which path (or below it): those that answer there, and one that does not."""


class Spoken:
    """A whole answer."""

    def __init__(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": "application/json", **(headers or {})}
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        pass


class Speaker:
    """Answers chats as `MemoryUpstream` does, and embeddings, responses and inferences in their forms."""

    def __init__(self, **options: Any) -> None:
        self.chats = MemoryUpstream(**options)
        self.calls: list[Call] = []

    async def send(self, call: Call) -> Reply:
        self.calls.append(call)
        if call.path.startswith("/v2/"):
            return _inference(call)
        body = json.loads(call.body)
        if call.path == "/v1/embeddings":
            return Spoken(200, _vectors(body))
        if call.path == "/v1/responses":
            usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
            return Spoken(200, {"id": "resp_1", "object": "response", "output": [], "usage": usage})
        return await self.chats.send(call)

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


def _vectors(body: dict[str, Any]) -> dict[str, Any]:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [{"object": "embedding", "index": at, "embedding": [0.5, 0.5]} for at in range(len(texts))]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


_TENSOR = {"name": str, "datatype": str, "shape": list, "data": list}


def _inference(call: Call) -> Spoken:
    if call.path.partition("/versions/")[2].partition("/")[0] not in ("", "1"):
        return Spoken(404, {"error": "no such version"})
    if call.path.endswith("/infer"):
        body = call.json or json.loads(call.body)
        for tensor in body["inputs"]:
            if not all(type(tensor.get(name)) is kind for name, kind in _TENSOR.items()):
                return Spoken(400, {"error": "that is no tensor"})
        rows = body["inputs"][0]["shape"][0]
        output = {"name": "predict", "shape": [rows], "datatype": "FP64", "data": [0.5] * min(rows, 1000)}
        answer = {"model_name": "bikes", "model_version": "1", "outputs": [output]}
        return Spoken(200, answer, {"x-trilith-rows": str(rows)})
    if call.path.endswith("load"):
        return Spoken(403, {"error": "models are not loaded and unloaded here"})
    return Spoken(200, {"name": "bikes", "versions": ["1"], "platform": "onnx", "inputs": [], "outputs": []})


class Broken:
    """Does not answer at all."""

    async def send(self, call: Call) -> Reply:
        raise APIConnectionError("nothing listens there")

    async def ready(self) -> bool:
        return False

    async def aclose(self) -> None:
        pass


def world(
    home: Path, speaker: Upstream | None = None, *, models: Mapping[str, Any] = MODELS, **sections: Any
) -> Running:
    """Return a gateway with `models`, all answered by `speaker`; further settings by section."""
    settings = Settings.model_validate(
        {
            "home": home,
            "policies": {"private": {}},
            "indexes": {"books": {"source": "nothing-here"}},
            "models": dict(models),
            **sections,
        }
    )
    upstream = speaker or Speaker()
    return Running(settings, dict.fromkeys(models, upstream))
