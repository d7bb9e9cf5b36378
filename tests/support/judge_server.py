"""Judges on a real socket: what a judging model replies, well and badly."""

from __future__ import annotations

import json
from typing import Any

from support.scripted_server import Scripted


def reply(
    content: str | None, *, finish: str = "stop", usd: str | None = "0.002", **message: Any
) -> Scripted:
    """Return a chat completion, priced as the gateway does it."""
    said = {"role": "assistant", "content": content, **message}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
    }
    headers = {"content-type": "application/json"}
    return Scripted(200, body, headers if usd is None else {**headers, "x-trilith-cost-usd": usd})


def verdict(value: object, reasons: str = "it says so", **options: Any) -> Scripted:
    """Return a reply as the schema wants it."""
    return reply(json.dumps({"reasons": reasons, "verdict": value}), **options)
