"""Faults: a gateway before two replicas of a model, of which one goes wrong in every way that it can.

For each fault: how many requests failed that the well replica could have answered, whether every answer
stands in the ledger exactly once, whether a budget was overshot, and how long it took from the fault's end
until the replica was used again (or, for the gateway's own faults, until it answered again).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from bench.gateway.load import Order, head
from bench.gateway.ours import PRICED, commit, make_key
from bench.gateway.process import family
from bench.gateway.report import table
from bench.gateway.target import BIN, Missing, Place, Started, Target
from bench.gateway.upstream import PIECE, whole

_CALLERS = 8
_REQUESTS = 240
"""Requests of one fault."""
_PATIENCE_S = 20.0
_ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,'
    b'"completion_tokens":2,"total_tokens":12}}'
)
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + PIECE * 3
)
_REFUSED = b'{"error":{"message":"no","type":"server_error","param":null,"code":null}}'


class Replica:
    """A model server in this process, with a fault that can be switched."""

    def __init__(self) -> None:
        self.fault = ""
        self.calls = 0
        self._server: asyncio.Server | None = None

    async def listen(self) -> int:
        """Open a port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Close it."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
            while True:
                top = await reader.readuntil(b"\r\n\r\n")
                lower = top.lower()
                at = lower.find(b"content-length: ")
                length = int(lower[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
                body = await reader.readexactly(length)
                if top.startswith(b"GET"):
                    writer.write(whole(200, b'{"object":"list","data":[]}'))
                elif not await self._answer(writer, streamed=b'"stream"' in body):
                    break
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, *, streamed: bool) -> bool:
        """Answer one call; false when the connection is to be closed."""
        self.calls += 1
        fault = self.fault
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "half-open":
            await asyncio.sleep(3600)
        if fault == "latency":
            await asyncio.sleep(1)
        if fault == "slow loris":
            for byte in whole(200, _ANSWER):
                writer.write(bytes((byte,)))
                await asyncio.sleep(0.1)
            return True
        if fault in ("500", "503"):
            writer.write(whole(int(fault), _REFUSED))
        elif fault == "429":
            writer.write(whole(429, _REFUSED, "retry-after: 1\r\n"))
        elif fault == "cut" and streamed:
            writer.write(_STREAM)
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.transport.abort()
            return False
        else:
            writer.write(whole(200, _ANSWER))
        await writer.drain()
        return True


@dataclass
class Book:
    """What the callers of one fault have seen."""

    statuses: Counter[str] = field(default_factory=Counter)
    answered: list[str] = field(default_factory=list)
    """Ids of requests that were answered with 200."""
    failed: list[tuple[float, str]] = field(default_factory=list)
    slowest_s: float = 0.0


class Callers:
    """Sends requests over new connections, each with an id of its own."""

    def __init__(self, order: Order, name: str) -> None:
        self.order = order
        self._name = name
        self._count = 0
        self.book = Book()

    async def many(self, requests: int, *, stream: bool = False, pause_s: float = 0.0) -> Book:
        """Send so many, from a few callers at a time."""
        left = iter(range(requests))

        async def caller() -> None:
            for _ in left:
                await self.one(stream=stream)
                await asyncio.sleep(pause_s)

        await asyncio.gather(*(caller() for _ in range(_CALLERS)))
        return self.book

    async def one(self, *, stream: bool = False) -> str:
        """Send one; returns what came of it."""
        self._count += 1
        id = f"{self._name}-{self._count}"
        began = time.monotonic()
        try:
            outcome = await asyncio.wait_for(self._send(id, stream=stream), _PATIENCE_S)
        except TimeoutError:
            outcome = "no answer in 20 s"
        except OSError:
            outcome = "connection lost"
        book = self.book
        book.slowest_s = max(book.slowest_s, time.monotonic() - began)
        book.statuses[outcome] += 1
        if outcome == "200":
            book.answered.append(id)
        else:
            book.failed.append((time.monotonic(), id))
        return outcome

    async def _send(self, id: str, *, stream: bool) -> str:
        more = ',"stream":true' if stream else ""
        body = f'{{"model":"m","messages":[{{"role":"user","content":"hi {id}"}}],"max_tokens":8{more}}}'
        reader, writer = await asyncio.open_connection("127.0.0.1", self.order.port)
        try:
            extra = f"x-request-id: {id}\r\nconnection: close\r\n"
            writer.write(head(self.order, len(body), extra) + body.encode())
            raw = await reader.read()
        finally:
            writer.close()
        if not raw:
            return "connection lost"
        status = raw[9:12].decode()
        if status == "200" and b"event-stream" in raw and b"[DONE]" not in raw:
            return "200, then an error event" if b'"error"' in raw else "200, then cut"
        return status


def gateway(urls: list[str], *, extra: str = "", workers: int = 1, more: str = "") -> Target:
    """Return a gateway before these replicas."""

    def command(place: Place) -> list[str]:
        others = "".join(f'\n      - {{url: "{url}"}}' for url in urls[1:])
        replicas = f"\n    replicas:{others}" if others else ""
        (place.folder / "trilith.yaml").write_text(
            f"home: home\ngateway: {{port: {place.port}}}\ntelemetry: {{store_spans: false}}\n{extra}"
            f'models:\n  m:\n    kind: chat\n    upstream: {{url: "{urls[0]}"}}{replicas}\n'
            f"    {PRICED}\n{more}"
        )
        return [str(BIN / "trilith"), "serve", "--workers", str(workers)]

    return Target("faults", commit, command, make_key, ready_s=60, ready_path="/readyz", stop=signal.SIGTERM)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fault: str
    requests: int
    lost: str
    charges: str
    recovery: str
    slowest_s: float


Scene: TypeAlias = Callable[["Stage"], Awaitable[Row]]


@dataclass
class Stage:
    """Everything that one fault needs."""

    folder: Path
    ill: Replica
    well: Replica
    urls: list[str]

    @asynccontextmanager
    async def gateway(
        self, target: Target, name: str, *limits: str
    ) -> AsyncIterator[tuple[Started, Callers, Path]]:
        """Run a gateway; gives callers and its home. It starts in a thread: the replicas answer meanwhile."""
        place = self.folder / name.replace(" ", "-")
        running = replace(target, key=lambda folder: make_key(folder, *limits)).running(
            self.folder, place, ""
        )
        started = await asyncio.to_thread(running.__enter__)
        try:
            order = Order(port=started.port, key=started.key, pid=started.pid)
            yield started, Callers(order, name.replace(" ", "-")), place / "home"
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


async def _ledger(home: Path, answered: list[str], *, patience_s: float = 10.0) -> str:
    """Compare the ledger with what was answered: rows missing and doubled.

    What a second replica was asked for in vain is the platform's, and no caller pays for it.
    """
    until = time.monotonic() + patience_s
    while True:
        with contextlib.closing(sqlite3.connect(home / "trilith.db")) as connection:
            found = Counter(
                row[0]
                for row in connection.execute(
                    "select request_id from ledger where amount_pico_usd > 0 and key_id <> 'platform'"
                )
            )
        lost = [id for id in answered if not found[id]]
        doubled = [id for id in answered if found[id] > 1]
        if not lost or time.monotonic() > until:
            return f"{len(lost)} / {len(doubled)}"
        await asyncio.sleep(0.2)


def _lost(book: Book) -> str:
    failures = {name: count for name, count in book.statuses.items() if name != "200"}
    total = sum(failures.values())
    return str(total) if not total else f"{total} ({', '.join(f'{n} x {s}' for s, n in failures.items())})"


def _replica(fault: str, *, stream: bool = False, requests: int = _REQUESTS) -> Scene:
    async def scene(stage: Stage) -> Row:
        name = fault
        stage.ill.fault = ""
        async with stage.gateway(gateway(stage.urls, more=_ROUTING), name) as (_, callers, home):
            await callers.many(60, stream=stream)  # both are in use
            stage.ill.fault = fault
            book = await callers.many(requests, stream=stream, pause_s=0.005)
            stage.ill.fault = ""
            recovery = await _used_again(stage.ill, callers)
            charges = await _ledger(home, book.answered)
        return Row(fault, requests + 60, _lost(book), charges, recovery, book.slowest_s)

    return scene


_ROUTING = "    routing: {hedge_share: 0.5}\n"


async def _used_again(replica: Replica, callers: Callers) -> str:
    began, before = time.monotonic(), replica.calls
    while replica.calls == before:
        if time.monotonic() - began > 35:
            return "not within 35 s"
        await callers.one()
        await asyncio.sleep(0.02)
    return f"{time.monotonic() - began:.1f} s"


async def _name(stage: Stage) -> Row:
    urls = ["http://nowhere.invalid:9/v1", stage.urls[1]]
    async with stage.gateway(gateway(urls, more=_ROUTING), "dns") as (_, callers, home):
        book = await callers.many(_REQUESTS, pause_s=0.005)
        charges = await _ledger(home, book.answered)
    return Row("DNS failure", _REQUESTS, _lost(book), charges, "-", book.slowest_s)


async def _refused(stage: Stage) -> Row:
    urls = ["http://127.0.0.1:9/v1", stage.urls[1]]
    async with stage.gateway(gateway(urls, more=_ROUTING), "refused") as (_, callers, home):
        book = await callers.many(_REQUESTS, pause_s=0.005)
        charges = await _ledger(home, book.answered)
    return Row("nothing listens", _REQUESTS, _lost(book), charges, "-", book.slowest_s)


async def _disk(stage: Stage) -> Row:
    async with stage.gateway(gateway(stage.urls), "disk") as (started, callers, home):
        await callers.many(60)
        before = resource.prlimit(started.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        full = Callers(callers.order, "full")
        await full.many(40)
        resource.prlimit(started.pid, resource.RLIMIT_FSIZE, before)
        recovery = await _answers_again(callers)
        await callers.many(60)
        charges = await _ledger(home, callers.book.answered + full.book.answered)
        again = Counter(dict(full.book.statuses))
    refused = ", ".join(f"{count} x {status}" for status, count in again.items())
    lost = f"{_lost(callers.book)}; while full: {refused}"
    return Row("full disk", 160, lost, charges, recovery, callers.book.slowest_s)


async def _database(stage: Stage) -> Row:
    async with stage.gateway(gateway(stage.urls), "database") as (_, callers, home):
        await callers.many(60)
        with contextlib.closing(sqlite3.connect(home / "trilith.db", isolation_level=None)) as connection:
            connection.execute("begin immediate")  # nobody else can write a table now
            await callers.many(_REQUESTS, pause_s=0.05)
            await asyncio.sleep(2)
            connection.execute("rollback")
        began = time.monotonic()
        charges = await _ledger(home, callers.book.answered, patience_s=30)
        took = f"{time.monotonic() - began:.1f} s until all is in the tables"
    return Row(
        "database away (locked)", 60 + _REQUESTS, _lost(callers.book), charges, took, callers.book.slowest_s
    )


async def _killed(stage: Stage) -> Row:
    async with stage.gateway(gateway(stage.urls, workers=2), "kill") as (started, callers, home):
        await callers.many(120)
        work = asyncio.create_task(callers.many(_REQUESTS * 2, pause_s=0.01))
        await asyncio.sleep(1)
        workers = [pid for pid in family(started.pid) if pid != started.pid and _is_worker(pid)]
        os.kill(workers[0], signal.SIGKILL)
        killed = time.monotonic()
        await work
        recovery = f"{_last_failure(callers.book, killed):.1f} s until the last failure"
        charges = await _ledger(home, callers.book.answered, patience_s=20)
    return Row(
        "kill -9 of one of two workers",
        120 + _REQUESTS * 2,
        _lost(callers.book),
        charges,
        recovery,
        callers.book.slowest_s,
    )


def _last_failure(book: Book, since: float) -> float:
    return max((at - since for at, _ in book.failed), default=0.0)


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"trilith_gateway.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


async def _answers_again(callers: Callers) -> str:
    began = time.monotonic()
    while time.monotonic() - began < 30:
        probe = Callers(callers.order, f"probe{time.monotonic_ns()}")
        if await probe.one() == "200":
            return f"{time.monotonic() - began:.1f} s"
        await asyncio.sleep(0.02)
    return "not within 30 s"


async def _budget(stage: Stage) -> Row:
    """Many callers share a budget that does not suffice, while a replica fails."""
    stage.ill.fault = "500"
    async with stage.gateway(gateway(stage.urls, more=_ROUTING), "budget", "--budget-usd", "0.002") as (
        _,
        callers,
        home,
    ):
        await callers.many(_REQUESTS)
        charges = await _ledger(home, callers.book.answered)
        with contextlib.closing(sqlite3.connect(home / "trilith.db")) as connection:
            spent = connection.execute("select sum(amount_pico_usd) from ledger").fetchone()[0] or 0
    stage.ill.fault = ""
    over = max(0, spent - 2_000_000_000)
    refused = callers.book.statuses.pop("429", 0)
    text = f"{_lost(callers.book)}; overshoot {over} pico-USD ({refused} refused by the budget)"
    return Row("shared budget under 5xx", _REQUESTS, text, charges, "-", callers.book.slowest_s)


_SCENES: dict[str, Scene] = {
    "latency": _replica("latency"),
    "reset": _replica("reset"),
    "half-open": _replica("half-open", requests=120),
    "slow loris": _replica("slow loris", requests=120),
    "500": _replica("500"),
    "503": _replica("503"),
    "429": _replica("429"),
    "cut": _replica("cut", stream=True),
    "DNS failure": _name,
    "nothing listens": _refused,
    "full disk": _disk,
    "database away": _database,
    "kill -9": _killed,
    "budget": _budget,
}


@asynccontextmanager
async def _replicas() -> AsyncIterator[tuple[Replica, Replica, list[str]]]:
    ill, well = Replica(), Replica()
    ports = [await ill.listen(), await well.listen()]
    try:
        yield ill, well, [f"http://127.0.0.1:{port}/v1" for port in ports]
    finally:
        await ill.close()
        await well.close()


async def _play(folder: Path, scene: Scene) -> Row:
    async with _replicas() as (ill, well, urls):
        return await scene(Stage(folder, ill, well, urls))


def run(folder: Path) -> str:
    """Play every fault and return the table."""
    rows = []
    for name, scene in _SCENES.items():
        print(f"... fault: {name}", file=sys.stderr, flush=True)
        try:
            row = asyncio.run(asyncio.wait_for(_play(folder / "faults", scene), 180))
        except (Missing, OSError, TimeoutError) as error:
            rows.append(
                [name, "-", f"not measured: {str(error)[-120:] or type(error).__name__}", "-", "-", "-"]
            )
            continue
        rows.append(
            [row.fault, str(row.requests), row.lost, row.charges, row.recovery, f"{row.slowest_s:.2f}"]
        )
    head = (
        "fault of one replica of two, or of the gateway's own surroundings",
        "requests",
        "not answered",
        "answers missing / doubled in the ledger",
        "recovery",
        "slowest s",
    )
    return "## Faults\n\n" + table(head, rows)
