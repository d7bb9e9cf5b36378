"""Serves `trilith.testing.MemoryUpstream` on a port, slowly enough that a kill finds work under way."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from trilith.seams import Call
from trilith.testing import MemoryUpstream

app = FastAPI()
upstream = MemoryUpstream(delay_s=0.02)


@app.get("/v1/models")
async def models() -> dict[str, object]:
    return {"object": "list", "data": []}


@app.get("/calls")
async def calls() -> int:
    """Return how many chats were asked for."""
    return len(upstream.calls)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> StreamingResponse:
    reply = await upstream.send(Call(path=request.url.path, body=await request.body()))
    return StreamingResponse(reply.chunks(), reply.status, dict(reply.headers))


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
