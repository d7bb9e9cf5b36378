"""A gateway with one model of every kind behind which scripted upstreams speak their protocols."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from support.gateway import PRICE, Gateway, Running
from trilith.errors import APIConnectionError
from trilith.seams import Call, Reply, Upstream
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream
from trilith_gateway import multipart

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
    "sorter": {"kind": "rerank", "upstream": HERE, "price": PRICE},
    "judge": {"kind": "moderation", "upstream": HERE, "price": PRICE},
    "painter": {"kind": "image", "upstream": HERE, "price": {"usd_per_image": "0.04"}},
    "voice": {
        "kind": "audio",
        "upstream": HERE,
        "price": {"usd_per_audio_s": "0.0001", "usd_per_mchar": "15"},
    },
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
    "/v1/messages/count_tokens": ["chat", "guarded", "nobody"],
    "/v1/rerank": ["sorter", "chat"],
    "/v2/rerank": ["sorter", "chat"],
    "/v1/moderations": ["judge", "chat"],
    "/v1/images/generations": ["painter", "nobody"],
    "/v1/images/edits": ["painter", "nobody"],
    "/v1/images/variations": ["painter", "nobody"],
    "/v1/audio/speech": ["voice", "nobody"],
    "/v1/audio/transcriptions": ["voice", "nobody"],
    "/v1/audio/translations": ["voice", "nobody"],
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
    """Answers chats as `MemoryUpstream` does, and everything else in its form."""

    def __init__(self, **options: Any) -> None:
        self.chats = MemoryUpstream(**options)
        self.calls: list[Call] = []

    async def send(self, call: Call) -> Reply:
        self.calls.append(call)
        if call.path.startswith(("/v1/images/", "/v1/audio/")):
            return _media(call)
        if call.path.startswith("/v2/") and call.path != "/v2/rerank":
            return _inference(call)
        body = json.loads(call.body)
        if call.path in ("/v1/rerank", "/v2/rerank"):
            if not all(isinstance(one, str | dict) for one in body["documents"]):
                said = {"message": "that is no document", "type": "invalid_request_error"}
                return Spoken(400, {"error": {**said, "param": "documents", "code": None}})
            return Spoken(200, _ranked(body))
        if call.path == "/v1/moderations":
            judged = {"flagged": False, "categories": {}, "category_scores": {}}
            return Spoken(200, {"id": "modr_1", "model": body["model"], "results": [judged]})
        if call.path == "/tokenize":
            return Spoken(200, {"count": len(body["messages"]), "max_model_len": 4096, "tokens": []})
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


def _ranked(body: dict[str, Any]) -> dict[str, Any]:
    texts = [one if isinstance(one, str) else str(one.get("text", "")) for one in body["documents"]]
    results = [
        {"index": at, "document": {"text": text}, "relevance_score": 1 / (at + 1)}
        for at, text in enumerate(texts)
    ]
    return {"id": "rank_1", "model": body["model"], "usage": {"total_tokens": 9}, "results": results}


def _media(call: Call) -> Spoken:
    """Answer with as many pictures as were asked for, with a sound, or with what was heard."""
    if call.path == "/v1/audio/speech":
        return Spoken(200, b"ID3 la la la", {"content-type": "audio/mpeg"})
    if call.path.startswith("/v1/audio/"):
        return Spoken(200, {"text": "la la la", "usage": {"type": "duration", "seconds": 2}})
    fields = multipart.read(call.body, call.headers) if b"form-data" in call.body else json.loads(call.body)
    pictures = [{"b64_json": "aGk="}] * int(fields.get("n") or 1)
    if str(fields.get("stream")).lower() != "true":
        return Spoken(200, {"created": 1, "data": pictures})
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    event = {"type": "image_generation.completed", "b64_json": "aGk=", "usage": usage}
    said = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
    return Spoken(200, said, {"content-type": "text/event-stream"})


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


LINES = b"\n".join(
    json.dumps(
        {
            "custom_id": f"line-{at}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "chat", "messages": [{"role": "user", "content": f"question {at}"}]},
        }
    ).encode()
    for at in range(2)
)
"""A batch's input."""
NO_FILE, NO_BATCH, NO_RUN = "file-" + "0" * 24, "batch_" + "0" * 32, "evalrun_" + "0" * 32


def upload(client: httpx.Client, lines: bytes = LINES) -> str:
    """Upload a batch's input; returns the file's id."""
    form = {"file": ("lines.jsonl", lines)}
    made = client.post("/v1/files", data={"purpose": "batch"}, files=form).raise_for_status()
    return str(made.json()["id"])


def begin(client: httpx.Client, file: str) -> str:
    """Begin a batch; returns its id."""
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return str(client.post("/v1/batches", json=asked).raise_for_status().json()["id"])


def runs(gateway: Gateway, token: str) -> dict[str, list[str]]:
    """Keep runs of evals with an admin's key, some for each operation on one; returned as `stock` does."""
    from support.eval_run import FINDING, told

    made: dict[str, list[str]] = {}
    path = "/admin/v1/evals/runs"
    with gateway.client(token=token) as client:
        for at, way in enumerate(
            (
                f"get {path}/{{id}}",
                f"delete {path}/{{id}}",
                f"get {path}/{{id}}/report",
                f"get {path}",
                "get /admin/v1/evals/compare",
            )
        ):
            id = client.post(path, json=told({at})).raise_for_status().json()["id"]
            made[way] = [id] if way == f"get {path}" else [id, NO_RUN]
        client.post("/admin/v1/evals/monitors", json=FINDING).raise_for_status()
        found = client.get("/admin/v1/evals/monitors").raise_for_status().json()
        made["get /admin/v1/evals/monitors"] = [found["last_id"]]
    return made


def stock(gateway: Gateway, token: str | None = None) -> dict[str, list[str]]:
    """Make files and batches, some for each operation on one of them, so that deleting one harms no other.

    Returns:
        Ids by operation, such as `get /v1/files/{id}`, and by the name of a field of a body. Those of a list
        are where a page of it may begin.
    """
    with gateway.client(**({} if token is None else {"token": token})) as client:
        files = {
            way: [upload(client), NO_FILE]
            for way in ("get /v1/files/{id}", "delete /v1/files/{id}", "get /v1/files/{id}/content")
        }
        kept = upload(client)
        batches = {
            way: [begin(client, kept), NO_BATCH]
            for way in ("get /v1/batches/{id}", "post /v1/batches/{id}/cancel")
        }
    return {
        **files,
        **batches,
        "get /v1/files": [kept],
        "get /v1/batches": [ids[0] for ids in batches.values()],
        "input_file_id": [kept, NO_FILE],
    }
