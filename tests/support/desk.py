"""A desk at which batches are handed in, through OpenAI's own client."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
from openai.types import Batch

from support.gateway import PRICE, Gateway

HALF = {"price": PRICE | {"batch_factor": "0.5"}}
ENDPOINT: Any = "/v1/chat/completions"


def ask(number: int, text: str = "hello there", **body: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return {
        "custom_id": f"line {number}",
        "method": "POST",
        "url": ENDPOINT,
        "body": {"model": "echo", "messages": [message], **body},
    }


def jsonl(lines: list[Any]) -> bytes:
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


class Desk:
    """A client that hands in batches and waits for them; a context that closes it."""

    def __init__(self, gateway: Gateway, token: str | None = None) -> None:
        self.openai = openai.OpenAI(
            base_url=f"{gateway.url}/v1", api_key=token or gateway.token, max_retries=0
        )

    def upload(self, data: bytes, name: str = "in.jsonl", **more: Any) -> str:
        return self.openai.files.create(file=(name, data), purpose="batch", **more).id

    def create(self, file: str, *, endpoint: Any = ENDPOINT, **more: Any) -> Batch:
        return self.openai.batches.create(
            input_file_id=file, endpoint=endpoint, completion_window="24h", **more
        )

    def hand_in(self, lines: list[Any], **more: Any) -> Batch:
        return self.create(self.upload(jsonl(lines)), **more)

    def wait(self, batch: Batch, *, seconds: float = 30) -> Batch:
        deadline = time.monotonic() + seconds
        while (batch := self.openai.batches.retrieve(batch.id)).status in (
            "validating",
            "in_progress",
            "finalizing",
            "cancelling",
        ):
            assert time.monotonic() < deadline, batch
            time.sleep(0.05)
        return batch

    def read(self, id: str | None) -> list[dict[str, Any]]:
        if id is None:
            return []
        return [json.loads(line) for line in self.openai.files.content(id).text.splitlines()]
