"""A model server that speaks everything: OpenAI's API, Anthropic's messages, the Open Inference Protocol.

It answers from what it is asked. A last message `fail 503` is answered with that status, `flaky` fails once
with 503, `slow` takes ten seconds. Starts on the port that the command line names.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import struct
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trilith.seams import Call
from trilith.testing import MemoryUpstream

Body = dict[str, Any]

upstream = MemoryUpstream()
flaky: set[str] = set()
numbers = itertools.count(1)
kept: dict[str, Body] = {}
"""Responses by id, each with what it was the answer to as `input`."""


def failure(status: int) -> Response:
    error = {"message": f"scripted {status}", "type": "scripted", "param": None, "code": "scripted"}
    return JSONResponse({"error": error}, status, headers={"retry-after": "0"})


async def trouble(text: str) -> Response | None:
    """Return the failure that a text asks for."""
    if text.startswith("fail "):
        return failure(int(text[5:]))
    if text.startswith("flaky") and text not in flaky:
        flaky.add(text)
        return failure(503)
    if text == "slow":
        await asyncio.sleep(10)
    return None


def text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return str(content)


async def chat(request: Request) -> Response:
    body = await request.json()
    last = body["messages"][-1]
    text = text_of(last.get("content"))
    if (failed := await trouble(text)) is not None:
        return failed
    if body.get("tools") and last["role"] == "user":
        return _tool_call(body)
    body["messages"][-1] = {**last, "content": text}
    reply = await upstream.send(Call(request.url.path, json.dumps(body).encode()))
    return StreamingResponse(reply.chunks(), reply.status, dict(reply.headers))


async def complete(request: Request) -> Response:
    reply = await upstream.send(Call(request.url.path, await request.body()))
    return StreamingResponse(reply.chunks(), reply.status, dict(reply.headers))


def _tool_call(body: Body) -> Response:
    """Call the first tool, its arguments in two pieces."""
    name = body["tools"][0]["function"]["name"]
    pieces = ['{"city": ', '"Paris"}']
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    base = {"id": "c", "created": 0, "model": body["model"]}

    def call(arguments: str, **more: Any) -> Body:
        return {
            "index": 0,
            "type": "function",
            "function": {"arguments": arguments, **more.pop("f", {})},
            **more,
        }

    if not body.get("stream"):
        calls = [call("".join(pieces), id="call_1", f={"name": name})]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return JSONResponse({**base, "object": "chat.completion", "choices": [choice], "usage": usage})
    deltas: list[tuple[Body, str | None]] = [
        ({"role": "assistant", "tool_calls": [call("", id="call_1", f={"name": name})]}, None),
        *(({"tool_calls": [call(piece)]}, None) for piece in pieces),
        ({}, "tool_calls"),
    ]
    chunks: list[Body] = [
        {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas
    ]
    chunks.append({**base, "choices": [], "usage": usage})
    lines = [json.dumps({**chunk, "object": "chat.completion.chunk"}) for chunk in chunks]
    return events([f"data: {line}\n\n" for line in [*lines, "[DONE]"]])


def events(lines: list[str]) -> Response:
    async def sent() -> AsyncIterator[str]:
        for line in lines:
            yield line
            await asyncio.sleep(0)

    return StreamingResponse(sent(), media_type="text/event-stream")


def named(values: list[Body]) -> Response:
    return events([f"event: {value['type']}\ndata: {json.dumps(value)}\n\n" for value in values])


async def embed(request: Request) -> Response:
    body = await request.json()
    given = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vectors = [[float(len(str(text))), 0.5] for text in given]
    base64_wanted = body.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": at,
            "embedding": base64.b64encode(struct.pack("<2f", *v)).decode() if base64_wanted else v,
        }
        for at, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": len(given), "total_tokens": len(given)}
    return JSONResponse({"object": "list", "model": body["model"], "data": data, "usage": usage})


async def respond(request: Request) -> Response:
    body = await request.json()
    given = body["input"]
    text = given if isinstance(given, str) else text_of(given[-1]["content"])
    part = {"type": "output_text", "text": text, "annotations": []}
    said = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    whole: Body = {
        "id": f"resp_{next(numbers)}",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": "completed",
        "output": [said],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 5,
        },
    }
    if body.get("previous_response_id") is not None:
        whole["previous_response_id"] = body["previous_response_id"]
    if body.get("store") is not False:
        kept[whole["id"]] = {"whole": whole, "input": text}
    if not body.get("stream"):
        return JSONResponse(whole)
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    values: list[Body] = [
        {"type": "response.created", "response": {**whole, "output": [], "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**said, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": said},
        {"type": "response.completed", "response": whole},
    ]
    return named([{**value, "sequence_number": at} for at, value in enumerate(values)])


async def again(request: Request) -> Response:
    """Answer for a kept response."""
    id = request.path_params["id"]
    if id not in kept:
        error = {"message": f"Response with id '{id}' not found.", "type": "invalid_request_error"}
        return JSONResponse({"error": error | {"param": None, "code": None}}, 404)
    if request.method == "DELETE":
        del kept[id]
        return JSONResponse({"id": id, "object": "response", "deleted": True})
    if request.url.path.endswith("/cancel"):
        error = {"message": "Only background responses can be cancelled.", "type": "invalid_request_error"}
        return JSONResponse({"error": error | {"param": None, "code": None}}, 400)
    if not request.url.path.endswith("/input_items"):
        return JSONResponse(kept[id]["whole"])
    part = {"type": "input_text", "text": kept[id]["input"]}
    item = {"type": "message", "id": "msg_1", "role": "user", "status": "completed", "content": [part]}
    page = {"object": "list", "data": [item], "first_id": "msg_1", "last_id": "msg_1", "has_more": False}
    return JSONResponse(page)


async def message(request: Request) -> Response:
    body = await request.json()
    text = text_of(body["messages"][-1]["content"])
    whole: Body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    if not body.get("stream"):
        return JSONResponse(whole)
    delta = {"type": "text_delta", "text": text}
    return named(
        [
            {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ]
    )


async def count(request: Request) -> Response:
    body = await request.json()
    words = sum(len(text_of(message["content"]).split()) for message in body["messages"])
    return JSONResponse({"count": words, "input_tokens": words + 100})


async def moderate(request: Request) -> Response:
    body = await request.json()
    result: Body = {
        "flagged": "bad" in str(body["input"]),
        "categories": {},
        "category_scores": {},
        "category_applied_input_types": {},
    }
    return JSONResponse({"id": "m", "model": body["model"], "results": [result]})


async def rank(request: Request) -> Response:
    body = await request.json()
    order = sorted(
        range(len(body["documents"])), key=lambda at: -str(body["documents"][at]).count(body["query"])
    )
    results = [
        {"index": at, "relevance_score": 1 / (1 + n), "document": {"text": body["documents"][at]}}
        for n, at in enumerate(order)
    ]
    return JSONResponse({"id": "r", "model": body["model"], "results": results, "usage": {"total_tokens": 9}})


async def image(request: Request) -> Response:
    form = "multipart" in request.headers["content-type"]
    raw = await request.body()
    count = 1 if form else (json.loads(raw).get("n") or 1)
    made = base64.b64encode(raw[-64:]).decode()
    return JSONResponse({"created": 1, "data": [{"b64_json": made}] * count})


async def speak(request: Request) -> Response:
    body = await request.json()
    return Response(body["input"].encode() * 1000, media_type="audio/mpeg")


async def hear(request: Request) -> Response:
    raw = await request.body()
    return JSONResponse({"text": f"{len(raw)} bytes", "usage": {"type": "duration", "seconds": 2}})


async def models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": []})


async def described(request: Request) -> Response:
    tensor = {"datatype": "FP32", "shape": [-1]}
    inputs, outputs = [{"name": "x", **tensor}], [{"name": "y", **tensor}]
    name = request.path_params["name"]
    return JSONResponse({"name": name, "platform": "test", "inputs": inputs, "outputs": outputs})


async def model_ready(request: Request) -> Response:
    return JSONResponse({"name": request.path_params["name"], "ready": True})


async def infer(request: Request) -> Response:
    """Return every number doubled, in bytes where it came in bytes."""
    raw = await request.body()
    length = request.headers.get("inference-header-content-length")
    head = json.loads(raw[: int(length)] if length else raw)
    (tensor,) = head["inputs"]
    answer: Body = {"model_name": request.path_params["name"], "model_version": "1", "id": head.get("id", "")}
    output: Body = {"name": "y", "datatype": "FP32", "shape": tensor["shape"]}
    if not length:
        flat = [value[0] if isinstance(value, list) else value for value in tensor["data"]]
        return JSONResponse({**answer, "outputs": [{**output, "data": [2 * value for value in flat]}]})
    data = raw[int(length) :]
    numbers = [2 * value for value in struct.unpack(f"<{len(data) // 4}f", data)]
    packed = struct.pack(f"<{len(numbers)}f", *numbers)
    output["parameters"] = {"binary_data_size": len(packed)}
    told = json.dumps({**answer, "outputs": [output]}).encode()
    return Response(told + packed, headers={"inference-header-content-length": str(len(told))})


app = Starlette(
    routes=[
        Route("/v1/models", models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", complete, methods=["POST"]),
        Route("/v1/embeddings", embed, methods=["POST"]),
        Route("/v1/responses", respond, methods=["POST"]),
        Route("/v1/responses/{id}", again, methods=["GET", "DELETE"]),
        Route("/v1/responses/{id}/input_items", again),
        Route("/v1/responses/{id}/cancel", again, methods=["POST"]),
        Route("/v1/messages", message, methods=["POST"]),
        Route("/v1/messages/count_tokens", count, methods=["POST"]),
        Route("/tokenize", count, methods=["POST"]),
        Route("/v1/moderations", moderate, methods=["POST"]),
        Route("/v1/rerank", rank, methods=["POST"]),
        Route("/v2/rerank", rank, methods=["POST"]),
        Route("/v1/images/{what}", image, methods=["POST"]),
        Route("/v1/audio/speech", speak, methods=["POST"]),
        Route("/v1/audio/{what}", hear, methods=["POST"]),
        Route("/v2/models/{name}", described),
        Route("/v2/models/{name}/ready", model_ready),
        Route("/v2/models/{name}/infer", infer, methods=["POST"]),
    ]
)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
