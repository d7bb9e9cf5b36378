"""Simulates calls with faults, and compares the ledger with what the upstreams invoice.

`python bench/money.py --calls 1000000`. Every call goes through the real nine stages, the real router, and
the real store; only the network is simulated, in virtual time. Each upstream keeps a book of its own: what it
has reported as used, however that answer ended. Callers leave, streams break, answers are cut, connections
fail, errors are billed, replicas are asked twice, another model stands in, requests are sent again under the
same idempotency key, and 64 callers share budgets that do not suffice. The seed makes a run repeatable, but
for what threads of the store do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.virtual import VirtualLoop

from trilith.errors import APIConnectionError
from trilith.money import format_usd
from trilith.seams import Call
from trilith.settings.schema import Settings
from trilith.testing.upstream import MemoryReply
from trilith_gateway import key as keys
from trilith_gateway import platform as platforms
from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange
from trilith_gateway.key import Key
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Breaker, Endpoint
from trilith_gateway.routing.routed import Limits, RoutedUpstream

_CALLERS = 64
_CPU_HOUR = 36_500_000_007
"""Pico-USD for an hour of CPU time: a price of which no nanosecond costs a whole number."""


@dataclass(frozen=True)
class Rates:
    """What an upstream asks for, in pico-USD; written down here once more, apart from the settings."""

    fresh: int
    cached: int
    written: int
    output: int
    request: int

    def price(self, used: dict[str, int], tier: str = "") -> int:
        """Return what a call comes to."""
        total = (
            (used["prompt"] - used["cached"] - used["written"]) * self.fresh
            + used["cached"] * self.cached
            + used["written"] * self.written
            + used["said"] * self.output
            + self.request
        )
        return {"": total, "flex": total // 2, "priority": total * 2}[tier]


@dataclass
class Book:
    """What all upstreams have invoiced."""

    pico_usd: int = 0
    cpu_ns: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass
class Provider:
    """One simulated upstream."""

    rng: random.Random
    book: Book
    rates: Rates
    tiers: tuple[str, ...] = ("",)

    async def send(self, call: Call) -> MemoryReply:
        """Answer, or fail, as the dice fall."""
        outcomes, rng = self.book.outcomes, self.rng
        await asyncio.sleep(rng.uniform(0.001, 0.2) if rng.random() < 0.9 else 2.0)
        fate = rng.random()
        if fate < 0.05:
            outcomes["connection failed"] += 1
            raise APIConnectionError("simulated")
        body = json.loads(call.body)
        prompt = rng.randrange(1, len(call.body) // 4)
        cached = rng.randrange(prompt + 1)
        written = rng.randrange(prompt - cached + 1) if self.rates.written != self.rates.fresh else 0
        used = {"prompt": prompt, "cached": cached, "written": written}
        tier = rng.choice(self.tiers)
        if fate < 0.10:
            outcomes["refused"] += 1
            return MemoryReply(rng.choice((429, 500, 503)), _whole({"error": {"message": "simulated"}}))
        used["said"] = rng.randrange(1, body["max_tokens"] + 1)
        if fate < 0.12:
            billed = {"error": {"message": "simulated"}, "usage": _usage(used)}
            return MemoryReply(rng.choice((500, 503)), self._body(billed, used, "", "error billed"))
        if body.get("stream"):
            cut = rng.randrange(used["said"]) if fate < 0.2 else None
            return MemoryReply(200, self._stream(used, tier, cut), content_type="text/event-stream")
        if fate < 0.15:
            return MemoryReply(200, self._cut(used, rng.random() < 0.5))
        answer = {"id": "s", "choices": list[Any](), "service_tier": tier or None, "usage": _usage(used)}
        return MemoryReply(200, self._body(answer, used, tier, "answered"))

    async def _body(
        self, answer: object, used: dict[str, int], tier: str, outcome: str
    ) -> AsyncIterator[bytes]:
        self.book.pico_usd += self.rates.price(used, tier)
        self.book.outcomes[outcome] += 1
        yield json.dumps(answer).encode()

    async def _cut(self, used: dict[str, int], told: bool) -> AsyncIterator[bytes]:
        """Break off in the middle of a whole answer, after or before its usage."""
        self.book.outcomes["answer cut"] += 1
        if told:
            self.book.pico_usd += self.rates.price(used)
        yield b'{"id":"s",' + (b'"usage":' + json.dumps(_usage(used)).encode() + b"," if told else b"")
        raise APIConnectionError("simulated")

    async def _stream(self, used: dict[str, int], tier: str, cut: int | None) -> AsyncIterator[bytes]:
        billed = 0
        for count in range(1, used["said"] + 1):
            if count - 1 == cut:
                self.book.outcomes["stream broken"] += 1
                raise APIConnectionError("simulated")
            so_far = used | {"said": count}
            now = self.rates.price(so_far, tier)
            self.book.pico_usd += now - billed
            billed = now
            choice = {"index": 0, "delta": {"content": "x"}}
            piece = {"choices": [choice], "service_tier": tier or None, "usage": _usage(so_far)}
            yield _event(piece if tier else {"choices": [choice], "usage": _usage(so_far)})
            await asyncio.sleep(0.01)
        self.book.outcomes["streamed"] += 1
        yield _event({"choices": [], "service_tier": tier or None, "usage": _usage(used)})
        yield b"data: [DONE]\n\n"

    async def ready(self) -> bool:
        """Say yes."""
        return True

    async def aclose(self) -> None:
        """Do nothing."""


@dataclass
class Scorer:
    """A simulated predictor, charged by the CPU time that it reports."""

    rng: random.Random
    book: Book

    async def send(self, call: Call) -> MemoryReply:
        """Score, or fail."""
        await asyncio.sleep(0.001)
        if self.rng.random() < 0.05:
            return MemoryReply(500, _whole({"error": "simulated"}))
        ns = self.rng.randrange(1, 3_000_000)
        self.book.cpu_ns += ns
        self.book.outcomes["scored"] += 1
        reply = MemoryReply(200, _whole({"outputs": []}))
        reply.headers = {**reply.headers, "x-trilith-rows": "1", "x-trilith-cpu-ns": str(ns)}
        return reply

    async def ready(self) -> bool:
        """Say yes."""
        return True

    async def aclose(self) -> None:
        """Do nothing."""


def _usage(used: dict[str, int]) -> dict[str, Any]:
    details = {"cached_tokens": used["cached"], "cache_creation_tokens": used["written"]}
    return {
        "prompt_tokens": used["prompt"],
        "completion_tokens": used["said"],
        "prompt_tokens_details": details,
    }


async def _whole(value: object) -> AsyncIterator[bytes]:
    yield json.dumps(value).encode()


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


class Ear:
    """A caller that hears a few blocks, and may then leave."""

    def __init__(self, patience: int | None) -> None:
        self.status = 0
        self._patience = patience

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Hear a whole answer."""
        self.status = status

    def start(self, status: int, headers: dict[str, str]) -> None:
        """Hear a head."""
        self.status = status

    def write(self, data: bytes) -> Awaitable[None] | None:
        """Hear a block; leave when patience ends."""
        if self._patience is None:
            return None
        self._patience -= 1
        task = asyncio.current_task()
        if self._patience <= 0 and task is not None:
            task.cancel()
            return asyncio.sleep(0)
        return None

    def finish(self) -> None:
        """Hear the end."""


_FIRST = Rates(150_000, 37_500, 150_000, 600_000, 1_000)
_OTHER = Rates(3_000_000, 300_000, 3_750_000, 15_000_000, 0)


def _settings(home: Path) -> Settings:
    first = {
        "input_usd_per_mtok": "0.15",
        "output_usd_per_mtok": "0.6",
        "cached_input_usd_per_mtok": "0.0375",
        "usd_per_request": "0.000000001",
    }
    other = {
        "input_usd_per_mtok": "3",
        "output_usd_per_mtok": "15",
        "cached_input_usd_per_mtok": "0.3",
        "cache_write_usd_per_mtok": "3.75",
        "flex_factor": "0.5",
        "priority_factor": "2",
    }
    longest = {"kind": "chat", "max_output_tokens": 40}
    place = {"upstream": {"url": "http://127.0.0.1:9/v1"}}
    tree = {
        "home": str(home),
        "engines": {"e": {}},
        "models": {
            "m": {**longest, "upstream": {"engine": "e"}, "price": first, "fallbacks": ["other"]},
            "other": {**longest, **place, "price": other},
            "p": {"kind": "predictor", **place, "price": {"usd_per_cpu_hour": "0.036500000007"}},
        },
        "telemetry": {"store_spans": False},
    }
    return Settings.model_validate(tree)


def _upstreams(seed: int, book: Book) -> dict[str, Any]:
    replicas = [
        Endpoint(f"replica {n}", Provider(random.Random(seed + n), book, _FIRST), breaker=Breaker(50))
        for n in (1, 2, 3)
    ]
    routed = RoutedUpstream(
        replicas,
        policy.least_outstanding,
        limits=Limits(attempts=3, retry_share=0.3, hedge_share=0.2),
        rng=random.Random(seed + 4),
    )
    other = Provider(random.Random(seed + 5), book, _OTHER, ("", "flex", "priority"))
    return {"m": routed, "other": other, "p": Scorer(random.Random(seed + 6), book)}


@dataclass
class Callers:
    """All callers of a run."""

    rng: random.Random
    tokens: list[str]
    platform: platforms.Platform
    seen: Counter[int] = field(default_factory=Counter)
    again: int = 0
    """Requests that were sent again under their idempotency key."""

    async def call(self, number: int) -> None:
        """Make one request, and now and then a second one under the same key."""
        rng, headers = self.rng, {"authorization": f"Bearer {self.rng.choice(self.tokens)}"}
        kind = rng.random()
        if kind < 0.1:
            shape = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}
            body: dict[str, Any] = {"inputs": [shape]}
            api, path, model = Api.PREDICT, "/v2/models/p/infer", "p"
        else:
            text = "x" * rng.randrange(4, 400)
            body = {
                "model": rng.choice(("m", "m", "m", "other")),
                "messages": [{"role": "user", "content": text}],
                "max_tokens": rng.randrange(1, 41),
            }
            if rng.random() < 0.5:
                body["stream"] = True
            api, path, model = Api.CHAT, "/v1/chat/completions", None
            if kind < 0.2:
                api, path = Api.MESSAGE, "/v1/messages"
        patience = rng.randrange(1, 20) if rng.random() < 0.15 else None
        if rng.random() < 0.05:
            headers["idempotency-key"] = f"k{number}"
        raw = json.dumps(body).encode()
        status = await self._run(Exchange(api, path, headers, _reader(raw), model), Ear(patience))
        if "idempotency-key" in headers and status == 200:
            self.again += 1
            await self._run(Exchange(api, path, headers, _reader(raw), model), Ear(None))

    async def _run(self, exchange: Exchange, ear: Ear) -> int:
        task = asyncio.create_task(self.platform.front.run(exchange, ear))
        leaving = None
        if self.rng.random() < 0.03:  # before the first byte, too
            leaving = asyncio.get_running_loop().call_later(self.rng.uniform(0, 0.2), task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            self.seen[499] += 1
            return 499
        finally:
            if leaving is not None:
                leaving.cancel()
        self.seen[ear.status] += 1
        return ear.status


async def simulate(calls: int, seed: int, home: Path) -> dict[str, Any]:
    """Run the calls and return both books, in pico-USD, with what happened."""
    rng, book = random.Random(seed), Book()
    poor = calls * 1_500_000  # less than what an eighth of the calls comes to
    limits = [poor if number % 2 else None for number in range(8)]
    made = [keys.mint("k", budget_pico_usd=limit, budget_window="total") for limit in limits]
    platform = platforms.build(
        _settings(home), given=_upstreams(seed, book), fixed_keys=tuple(key for key, _ in made)
    )
    callers = Callers(rng, [token for _, token in made], platform)
    left = iter(range(calls))

    async def caller() -> None:
        for number in left:
            await callers.call(number)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    await asyncio.to_thread(platform.store.flush)
    loop = asyncio.get_running_loop()
    found = _books(platform, book, [key for key, _ in made])
    found["statuses"] = dict(sorted(callers.seen.items()))
    found["again"] = callers.again
    found["virtual_s"] = loop.time() if isinstance(loop, VirtualLoop) else None
    await platform.aclose()
    return found


def _books(platform: platforms.Platform, book: Book, made: list[Key]) -> dict[str, Any]:
    with platform.store.reading() as connection:

        def ask(statement: str) -> list[Any]:
            return list(connection.execute(statement).fetchall())

        total = ask("select sum(amount_pico_usd), count(*), count(distinct id) from ledger")[0]
        spent = dict(ask("select key_id, sum(amount_pico_usd) from ledger group by 1"))
        return {
            "invoiced": book.pico_usd + book.cpu_ns * _CPU_HOUR // 3_600_000_000_000,
            "charged": int(total[0]),
            "rows": total[1],
            "doubled": total[1] - total[2],
            "open": ask("select count(*) from reservations where state = 'open'")[0][0],
            "unpriced": ask("select count(*) from ledger where amount_pico_usd is null")[0][0],
            "overshoot": max(_over(key, spent) for key in made),
            "rules": dict(ask("select rule, count(*) from ledger where category = 'usage' group by 1")),
            "tries": dict(ask("select rule, count(*) from ledger where category = 'attempt' group by 1")),
            "tiers": dict(ask("select tier, count(*) from ledger where tier <> '' group by 1")),
            "fell_back": ask(
                "select count(distinct request_id) from ledger where category = 'attempt' and model = 'm'"
                " and request_id in"
                " (select request_id from ledger where category = 'usage' and model = 'other')"
            )[0][0],
            "outcomes": dict(book.outcomes),
        }


def _reader(raw: bytes) -> Callable[[int], bytes]:
    return lambda most_bytes: raw


def _over(key: Key, spent: dict[str, int]) -> int:
    """Return by how much a key is over its budget; below zero when it is not."""
    return spent.get(key.id, 0) - limit if (limit := key.terms.budget_pico_usd) is not None else -1


def right(found: dict[str, Any]) -> bool:
    """Say whether a run's ledger is the invoice, once and whole, and no budget was overshot."""
    wrong = found["charged"] != found["invoiced"] or found["doubled"] or found["open"] or found["unpriced"]
    return not wrong and found["overshoot"] <= 0


def main() -> int:
    """Simulate and print both books."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        found = runner.run(simulate(arguments.calls, arguments.seed, Path(folder)))
    error = found["charged"] - found["invoiced"]
    took = time.perf_counter() - began
    print(
        f"{arguments.calls:,} calls, seed {arguments.seed}, {took:.0f} s ({found['virtual_s']:.0f} s virtual)"
    )
    print(f"  invoiced   {format_usd(found['invoiced'])} USD")
    print(f"  charged    {format_usd(found['charged'])} USD")
    print(f"  error      {error} pico-USD")
    overshoot = max(0, found["overshoot"])
    told = ("rows", "doubled", "open", "unpriced", "fell_back", "again")
    print(f"  overshoot  {overshoot} pico-USD; " + ", ".join(f"{name} {found[name]:,}" for name in told))
    for name in ("statuses", "rules", "tries", "tiers", "outcomes"):
        print(f"  {name:<9}  {found[name]}")
    return 0 if right(found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
