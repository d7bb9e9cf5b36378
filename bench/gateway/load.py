"""Closed-loop load on one core; prints one JSON line.

`python -m bench.gateway.load PORT CONNECTIONS SECONDS MODE KEY PID...` with MODE one of `whole`, `flood`,
`paced`. CPU time is that of the processes given, and of theirs below them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import uvloop
from bench.gateway.upstream import FLOOD, PACED

_END = b"\r\n0\r\n\r\n"
_PIECE = b'" token"'


def request(key: str, mode: str) -> bytes:
    """Return the request that is sent again and again: a prompt of about 400 bytes."""
    more = {"whole": "", "flood": ',"stream":true', "paced": ',"stream":true,"user":"paced"'}[mode]
    prompt = "hello there " * 28
    body = f'{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":16{more}}}'
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\naccept: */*\r\nuser-agent: bench\r\n"
        f"authorization: Bearer {key}\r\nx-portkey-provider: openai\r\n"
        f"x-portkey-custom-host: {os.environ.get('BENCH_UPSTREAM', '')}/v1\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def cpu_s(pids: list[int]) -> float:
    """Return the CPU time of processes and all below them (seconds)."""
    below: dict[int, list[int]] = {}
    times: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            pid = int(folder.name)
            below.setdefault(int(fields[1]), []).append(pid)
            times[pid] = int(fields[11]) + int(fields[12])
    found, todo = 0, list(pids)
    while todo:
        pid = todo.pop()
        found += times.get(pid, 0)
        todo += below.get(pid, [])
    return found / os.sysconf("SC_CLK_TCK")


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

    def __init__(self, message: bytes, mode: str, tally: Tally) -> None:
        self.message, self.mode, self.tally = message, mode, tally

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send one request."""
        self.held = b""
        self.last = 0.0
        self.started = time.perf_counter()
        self.transport.write(self.message)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Look for the end."""
        now = time.perf_counter()
        if not self.held:
            self.chunked = b"transfer-encoding: chunked" in data.lower()
        if not self.held and not data.startswith(b"HTTP/1.1 200"):
            self.tally.failed += 1
            self.tally.sample = self.tally.sample or data[:300]
        if self.mode == "paced" and _PIECE in data:
            (self.tally.gaps if self.last else self.tally.firsts).append(now - (self.last or self.started))
            self.last = now
        self.held = (self.held[-1024:] if self.mode != "whole" else self.held) + data
        if self._ended():
            self.tally.done += 1
            self.tally.times.append(now - self.started)
            self.ask()

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
    port, connections, seconds, mode, key, *pids = sys.argv[1:]
    tally = Tally()
    loop = asyncio.get_running_loop()
    for _ in range(int(connections)):
        await loop.create_connection(lambda: Caller(request(key, mode), mode, tally), "127.0.0.1", int(port))
    await asyncio.sleep(0.7)
    watched = [int(pid) for pid in pids]
    done, spent, began = tally.done, cpu_s(watched), time.perf_counter()
    for seen in (tally.times, tally.firsts, tally.gaps):
        seen.clear()
    await asyncio.sleep(float(seconds))
    count, cpu = tally.done - done, cpu_s(watched) - spent
    chunks = {"whole": 1, "flood": FLOOD, "paced": PACED}[mode]
    found = {
        "per_s": count / (time.perf_counter() - began),
        "cpu_us": cpu / count * 1e6 if count else None,
        "cpu_us_chunk": cpu / count / chunks * 1e6 if count else None,
        "p50_us": _quantile(tally.times, 0.5),
        "first_p50_us": _quantile(tally.firsts, 0.5),
        "gap_p50_us": _quantile(tally.gaps, 0.5),
        "gap_p99_us": _quantile(tally.gaps, 0.99),
        "failed": tally.failed,
        "sample": tally.sample.decode("latin-1"),
    }
    print(json.dumps(found), flush=True)
    os._exit(0)


def _quantile(values: list[float], share: float) -> float | None:
    return sorted(values)[int(len(values) * share)] * 1e6 if values else None


if __name__ == "__main__":
    uvloop.run(main())
