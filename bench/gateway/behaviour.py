"""How a target behaves where it is not all well: the rows that every drop-in endpoint should have right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.gateway.load import Order, head
from bench.gateway.report import table

_PATIENCE_S = 3.0
_TIMES = 5
"""How often a leaving caller is tried."""
_ID = "bench-0123456789"


@dataclass(frozen=True)
class Heard:
    """One answer, as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    """With its chunks' sizes still in it."""
    whole: bool
    """Ended as its framing says that it ends."""

    def error(self) -> dict[str, Any]:
        """Return the error object that OpenAI's clients read, or nothing."""
        found = re.search(rb"\{.*\}", self.body, re.DOTALL)
        with contextlib.suppress(ValueError):
            told = json.loads(found[0]) if found else {}
            if isinstance(told, dict) and isinstance(told.get("error"), dict):
                return dict(told["error"])
        return {}


class Prober:
    """Asks one target, and the model server what it has seen of it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._upstream = int(order.upstream.rpartition(":")[2])

    async def ask(self, mark: str, more: str = "") -> Heard:
        """Send one request and hear it to its end."""
        reader, writer = await self._send(mark, more)
        try:
            raw = await asyncio.wait_for(_read(reader), _PATIENCE_S * 4)
        finally:
            writer.close()
        return _heard(raw)

    async def _send(self, mark: str, more: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        order = self._order
        message = {"role": "user", "content": f"[[{mark}]] hello"}
        body = json.dumps({"model": order.model, "messages": [message], "max_tokens": 16})
        body = body[:-1] + more + "}"
        reader, writer = await asyncio.open_connection("127.0.0.1", order.port)
        extra = f"x-request-id: {_ID}\r\nconnection: close\r\n"
        writer.write(head(order, len(body), extra) + body.encode())
        return reader, writer

    async def seen(self) -> dict[str, Any]:
        """Return what the model server has seen since it was asked last."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        writer.write(b"GET /_seen HTTP/1.1\r\nhost: x\r\n\r\n")
        raw = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", raw)[1])  # type: ignore[index]  # it is ours
        told: dict[str, Any] = json.loads(await reader.readexactly(length))
        writer.close()
        return told

    async def leave(self, mark: str, *, during: bool) -> float | None:
        """Leave before or during an answer; returns after how many ms the model server saw it, or None."""
        await self.seen()
        reader, writer = await self._send(mark, ', "stream": true' if during else "")
        if during:
            await asyncio.wait_for(reader.readuntil(b"token"), _PATIENCE_S * 4)
        else:
            for _ in range(100):  # until the request has arrived there
                if (await self.seen())["calls"]:
                    break
                await asyncio.sleep(0.05)
        left_at = time.monotonic()
        writer.close()
        while time.monotonic() - left_at < _PATIENCE_S:
            await asyncio.sleep(0.02)
            if (at := (await self.seen())["left_at"]) is not None:
                return float(at - left_at) * 1000
        return None


async def _read(reader: asyncio.StreamReader) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            parts.append(data)
    return b"".join(parts)


def _heard(raw: bytes) -> Heard:
    top, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "transfer-encoding" in headers:
        whole = body.endswith(b"0\r\n\r\n")
    else:
        whole = len(body) == int(headers.get("content-length", -1))
    status = int(first.split()[1]) if first.count(" ") else 0
    return Heard(status, headers, body, whole)


# The probes. Each returns what stands in the table.
async def _limited(prober: Prober) -> str:
    heard = await prober.ask("429")
    good = heard.status == 429 and heard.error().get("code") == "rate_limit_exceeded"
    return "yes" if good else f"{heard.status}, {'another' if heard.error() else 'no'} error"


async def _too_long(prober: Prober) -> str:
    heard = await prober.ask("400")
    good = heard.status == 400 and heard.error().get("code") == "context_length_exceeded"
    return "yes" if good else f"{heard.status}, {'another' if heard.error() else 'no'} error"


async def _retry_after(prober: Prober) -> str:
    heard = await prober.ask("429")
    return "yes" if heard.headers.get("retry-after") == "7" else heard.headers.get("retry-after", "dropped")


async def _rates(prober: Prober) -> str:
    heard = await prober.ask("limits")
    tokens = heard.headers.get("x-ratelimit-remaining-tokens") == "7777"
    requests = heard.headers.get("x-ratelimit-remaining-requests")
    if tokens and requests == "77":
        return "yes"
    return "tokens; requests: its own" if tokens and requests else "dropped"


async def _tries(prober: Prober) -> str:
    await prober.seen()
    heard = await prober.ask("500")
    return f"{(await prober.seen())['calls']} (caller sees {heard.status})"


async def _cut(prober: Prober) -> str:
    heard = await prober.ask("cut", ', "stream": true')
    if b"[DONE]" in heard.body:
        return "ends with [DONE]"
    if re.search(rb'data: \{\s*"error"', heard.body):
        return "error event, no [DONE]"
    return "clean end, no error" if heard.whole else "connection broken"


async def _unknown(prober: Prober) -> str:
    await prober.seen()
    await prober.ask("limits", ', "x_unknown": {"kept": [1, 2]}, "top_k": 7')
    body = (await prober.seen())["body"]
    return "passed" if "x_unknown" in body and "top_k" in body else "dropped"


async def _id(prober: Prober) -> str:
    await prober.seen()
    heard = await prober.ask("limits")
    told = (await prober.seen())["headers"].get("x-request-id")
    up = "upstream told" if told == _ID else "upstream not told"
    return f"{up}, {'echoed' if heard.headers.get('x-request-id') == _ID else 'not echoed'}"


def _leaving(mark: str, *, during: bool) -> Callable[[Prober], Awaitable[str]]:
    async def probe(prober: Prober) -> str:
        found = [await prober.leave(mark, during=during) for _ in range(_TIMES)]
        seen = [took for took in found if took is not None]
        if not seen:
            return "never"
        told = f"{median(seen):.1f} / {max(seen):.1f}"
        return told if len(seen) == _TIMES else f"{told} ({_TIMES - len(seen)} never)"

    return probe


_PROBES: Mapping[str, Callable[[Prober], Awaitable[str]]] = {
    "429 passed with OpenAI's body": _limited,
    "400 passed with OpenAI's body": _too_long,
    "retry-after passed": _retry_after,
    "x-ratelimit-* passed": _rates,
    "upstream tries on a 500": _tries,
    "upstream cut in mid-stream": _cut,
    "unknown body fields": _unknown,
    "x-request-id": _id,
    "caller left before the first byte: ms until the upstream saw it, median / worst of 5": _leaving(
        "hang", during=False
    ),
    "caller left during the stream: the same": _leaving("endless", during=True),
}


async def probe(order: Order) -> dict[str, str]:
    """Return each probe's outcome."""
    prober = Prober(order)
    found = {}
    for name, ask in _PROBES.items():
        try:
            found[name] = await ask(prober)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            found[name] = f"no answer ({type(error).__name__})"
    return found


def report(found: Mapping[str, Mapping[str, str]]) -> str:
    """Return the table: a row a probe, a column a target."""
    rows = [[name, *(seen[name] for seen in found.values())] for name in _PROBES]
    return table(["probe", *found], rows)
