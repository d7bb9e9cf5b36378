"""A judge on loopback that answers after 50 ms, fails by a seeded dice when asked to, and says what it took.

A model named `faulty` answers HTTP 500 to a tenth of the attempts, broken JSON to another tenth, and nothing
to a fiftieth. Broken answers are charged, as models charge for what they have written. GET tells the counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random

DELAY_S = 0.05
PRICE_USD = "0.001"
STATEMENTS = {"statements": ["It is so."]}
VERDICTS = {"statements": [{"statement": "It is so.", "reason": "said", "verdict": 1}]}
VERDICT = {"reasons": "said", "verdict": "yes"}


def _content(asked: bytes) -> str:
    """Answer in the shape that is asked for: ragas's two steps, a verdict of ours, or a word."""
    if b"StatementGeneratorOutput" in asked:
        return json.dumps(STATEMENTS)
    if b"NLIStatementOutput" in asked:
        return json.dumps(VERDICTS)
    return json.dumps(VERDICT) if b"json_schema" in asked else "yes"


def _body(content: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
    answer = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return json.dumps({**answer, "usage": usage}).encode()


async def serve(seed: int) -> None:
    """Serve until the process ends; the port is the first line of output."""
    head = (
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\nx-trilith-cost-usd: {}\r\n"
        "content-length: {}\r\n\r\n"
    )
    seen: dict[bytes, int] = {}
    taken = {"calls": 0, "charged": 0}

    async def answer(asked: bytes) -> tuple[str, bytes, str]:
        key = hashlib.sha256(asked).digest()
        nth = seen[key] = seen.get(key, 0) + 1
        dice = random.Random(b"%d %d %s" % (seed, nth, key)).random() if b'"faulty"' in asked else 1.0
        await asyncio.sleep(DELAY_S)
        taken["calls"] += 1
        if dice < 0.02:
            await asyncio.sleep(60)
        if 0.02 <= dice < 0.12:
            return "500 Oops", b'{"error": {"message": "oops"}}', "0"
        taken["charged"] += 1
        body = _body(_content(asked))
        return "200 OK", body[: len(body) // 2] if 0.12 <= dice < 0.22 else body, PRICE_USD

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                raw = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(raw.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                asked = await reader.readexactly(size)
                if raw.startswith(b"get"):
                    status, body, price = "200 OK", json.dumps(taken).encode(), "0"
                else:
                    status, body, price = await answer(asked)
                writer.write(head.format(status, price, len(body)).encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
