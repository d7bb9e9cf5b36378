"""Load on one core, as much as the target answers or at a steady rate; prints one JSON line.

`python -m bench.gateway.load JSON`, with the fields of `Order`. CPU time is that of the process given, and of
all below it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import uvloop
from bench.gateway.process import cpu_s, rss_mb
from bench.gateway.upstream import FLOOD, PACED

Mode = Literal["whole", "flood", "paced", "first"]

_END = b"\r\n0\r\n\r\n"
_PIECE = b'" token"'
_CHUNKS = {"whole": 1, "flood": FLOOD, "paced": PACED, "first": 2}


@dataclass(frozen=True)
class Order:
    """What is sent where."""

    port: int
    key: str
    path: str = "/v1/chat/completions"
    model: str = "m"
    upstream: str = ""
    """For gateways that are told it with each request."""
    pid: int = 0
    """Whose CPU time counts; 0: nobody's."""
    mode: Mode = "whole"
    connections: int = 1
    seconds: float = 3.0
    requests: int = 0
    """Instead of a time: so many requests; memory is then noted ten times on the way."""
    body: str = ""
    """Another body than a chat."""
    per_s: float = 0.0
    """Requests per second, spread evenly over the connections; 0: each asks again when it is answered."""

    def json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))


def request(order: Order) -> bytes:
    """Return the request that is sent again and again: a prompt of about 400 bytes."""
    mark = f"[[{order.mode}]] " if order.mode in ("paced", "first") else ""
    prompt = mark + "hello there " * 28
    more = "" if order.mode == "whole" else ',"stream":true'
    message = f'{{"model":"{order.model}","messages":[{{"role":"user","content":"{prompt}"}}]'
    body = order.body or f'{message},"max_tokens":16{more}}}'
    return head(order, len(body.encode())) + body.encode()


def head(order: Order, length: int, more: str = "") -> bytes:
    """Return a request's head."""
    return (
        f"POST {order.path} HTTP/1.1\r\nhost: bench\r\naccept: */*\r\nuser-agent: bench\r\n"
        f"authorization: Bearer {order.key}\r\nx-portkey-provider: openai\r\n"
        f"x-portkey-custom-host: {order.upstream}/v1\r\n{more}"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


class Tally:
    """What all connections saw."""

    def __init__(self) -> None:
        self.done = self.failed = 0
        self.times: list[float] = []
        self.firsts: list[float] = []
        self.gaps: list[float] = []
        self.sample = b""


class Caller(asyncio.Protocol):
    """One connection, one request at a time."""

    transport: asyncio.Transport

    def __init__(
        self, message: bytes, mode: Mode, tally: Tally, due: float = 0.0, every_s: float = 0.0
    ) -> None:
        self.message, self.mode, self.tally = message, mode, tally
        self.due, self.every_s = due, every_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport  # type: ignore[assignment]  # a stream's transport reads and writes
        self.next()

    def next(self) -> None:
        """Send the next request, now or when it is due."""
        if not self.every_s:
            self.ask()
            return
        loop = asyncio.get_running_loop()
        self.due = max(self.due + self.every_s, loop.time())
        loop.call_at(self.due, self.ask)

    def ask(self) -> None:
        """Send one request."""
        self.held = b""
        self.last = 0.0
        self.started = time.perf_counter()
        self.transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        """Look for the end."""
        now = time.perf_counter()
        if not self.held:
            self.chunked = b"transfer-encoding: chunked" in data.lower()
            if not data.startswith(b"HTTP/1.1 200"):
                self.tally.failed += 1
                self.tally.sample = self.tally.sample or data[:300]
        if self.mode in ("paced", "first") and _PIECE in data:
            (self.tally.gaps if self.last else self.tally.firsts).append(now - (self.last or self.started))
            self.last = now
        self.held = (self.held[-1024:] if self.mode != "whole" else self.held) + data
        if self._ended():
            self.tally.done += 1
            self.tally.times.append(now - self.started)
            self.next()

    def _ended(self) -> bool:
        if self.mode != "whole":
            return self.held.endswith(_END) if self.chunked else b"data: [DONE]" in self.held
        head, mark, body = self.held.partition(b"\r\n\r\n")
        if not mark:
            return False
        lower = head.lower()
        at = lower.find(b"content-length: ")
        if at < 0:
            return body.endswith(b"0\r\n\r\n")
        return len(body) >= int(lower[at + 16 :].split(b"\r\n", 1)[0])

    def connection_lost(self, error: Exception | None) -> None:
        """Count it as a failure: nobody should hang up."""
        self.tally.failed += 1


async def main() -> None:
    """Run, and print what was seen."""
    order = Order(**json.loads(sys.argv[1]))
    tally = Tally()
    loop = asyncio.get_running_loop()
    message = request(order)
    every_s = order.connections / order.per_s if order.per_s else 0.0
    for number in range(order.connections):
        due = loop.time() - every_s * number / order.connections
        caller = Caller(message, order.mode, tally, due, every_s)
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", order.port)  # type: ignore[misc]
    if not order.requests:
        await asyncio.sleep(0.7)
    done, spent, began = tally.done, cpu_s(order.pid), time.perf_counter()
    for seen in (tally.times, tally.firsts, tally.gaps):
        seen.clear()
    memory = await _wait(order, tally)
    count, cpu = tally.done - done, cpu_s(order.pid) - spent
    found: dict[str, Any] = {
        "requests": count,
        "per_s": count / (time.perf_counter() - began),
        "cpu_us": cpu / count * 1e6 if count else None,
        "cpu_us_chunk": cpu / count / _CHUNKS[order.mode] * 1e6 if count else None,
        "p50_us": _quantile(tally.times, 0.5),
        "first_p50_us": _quantile(tally.firsts, 0.5),
        "gap_p50_us": _quantile(tally.gaps, 0.5),
        "gap_p99_us": _quantile(tally.gaps, 0.99),
        "memory_mb": memory,
        "failed": tally.failed,
        "sample": tally.sample.decode("latin-1"),
    }
    print(json.dumps(found), flush=True)
    os._exit(0)


async def _wait(order: Order, tally: Tally) -> list[float]:
    if not order.requests:
        await asyncio.sleep(order.seconds)
        return []
    memory: list[float] = []
    while len(memory) < 10 and tally.failed < 100:
        if tally.done >= order.requests * (len(memory) + 1) / 10:
            memory.append(rss_mb(order.pid))
            tally.times.clear()
        await asyncio.sleep(0.02)
    return memory


def _quantile(values: list[float], share: float) -> float | None:
    return sorted(values)[int(len(values) * share)] * 1e6 if values else None


if __name__ == "__main__":
    uvloop.run(main())
