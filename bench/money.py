"""Simulates calls with faults, and compares the ledger with what the upstream invoices.

`python bench/money.py --calls 1000000`. Every call goes through the real nine stages and the real store; only
the network is simulated. The upstream keeps a book of its own: what it has reported as used, for each answer,
however that ended. Callers leave, streams break, connections fail, and 64 callers share budgets that do not
suffice. The seed makes a run repeatable.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

_INPUT, _OUTPUT, _CACHED, _REQUEST = 150_000, 600_000, 37_500, 1_000
"""Pico-USD per unit, as in the settings below."""
_CALLERS = 64


@dataclass
class Provider:
    """The simulated upstream, and its book."""

    rng: random.Random
    invoiced: int = 0
    """Pico-USD for everything that it has reported as used."""
    outcomes: Counter[str] = field(default_factory=Counter)

    async def send(self, call: Call) -> MemoryReply:
        """Answer, or fail, as the dice fall."""
        fate = self.rng.random()
        await asyncio.sleep(0)
        if fate < 0.05:
            self.outcomes["connection failed"] += 1
            raise APIConnectionError("simulated")
        if fate < 0.10:
            status = self.rng.choice((429, 500, 503))
            self.outcomes["refused"] += 1
            return MemoryReply(status, _whole({"error": {"message": "simulated"}}))
        body = json.loads(call.body)
        prompt = self.rng.randrange(1, len(call.body) // 4)
        cached = self.rng.randrange(prompt + 1)
        said = self.rng.randrange(1, body["max_tokens"] + 1)
        if body.get("stream"):
            cut = self.rng.randrange(said) if fate < 0.2 else None
            return MemoryReply(200, self._stream(prompt, cached, said, cut), content_type="text/event-stream")
        self.invoiced += _price(prompt, cached, said)
        self.outcomes["answered"] += 1
        return MemoryReply(200, _whole({"id": "s", "choices": [], "usage": _usage(prompt, cached, said)}))

    async def _stream(self, prompt: int, cached: int, said: int, cut: int | None) -> AsyncIterator[bytes]:
        billed = 0
        for count in range(1, said + 1):
            if count - 1 == cut:
                self.outcomes["stream broken"] += 1
                raise APIConnectionError("simulated")
            now = _price(prompt, cached, count)
            self.invoiced += now - billed
            billed = now
            piece = {
                "choices": [{"index": 0, "delta": {"content": "x"}}],
                "usage": _usage(prompt, cached, count),
            }
            yield _event(piece)
            await asyncio.sleep(0)
        self.outcomes["streamed"] += 1
        yield _event({"choices": [], "usage": _usage(prompt, cached, said)})
        yield b"data: [DONE]\n\n"

    async def ready(self) -> bool:
        """Say yes."""
        return True

    async def aclose(self) -> None:
        """Do nothing."""


def _price(prompt: int, cached: int, said: int) -> int:
    return (prompt - cached) * _INPUT + cached * _CACHED + said * _OUTPUT + _REQUEST


def _usage(prompt: int, cached: int, said: int) -> dict[str, Any]:
    details = {"cached_tokens": cached}
    return {"prompt_tokens": prompt, "completion_tokens": said, "prompt_tokens_details": details}


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


def _settings(home: Path) -> Settings:
    price = {
        "input_usd_per_mtok": "0.15",
        "output_usd_per_mtok": "0.6",
        "cached_input_usd_per_mtok": "0.0375",
        "usd_per_request": "0.000000001",
    }
    model = {"kind": "chat", "upstream": {"engine": "e"}, "price": price, "max_output_tokens": 40}
    tree = {
        "home": str(home),
        "engines": {"e": {}},
        "models": {"m": model},
        "telemetry": {"store_spans": False},
    }
    return Settings.model_validate(tree)


async def simulate(calls: int, seed: int, home: Path) -> dict[str, Any]:
    """Run the calls and return both books, in pico-USD, with what happened."""
    rng = random.Random(seed)
    provider = Provider(random.Random(seed + 1))
    poor = calls * 600_000  # about half of what an eighth of the calls comes to
    limits = [poor if number % 2 else None for number in range(8)]
    made = [keys.mint("k", budget_pico_usd=limit, budget_window="total") for limit in limits]
    platform = platforms.build(
        _settings(home), given={"m": provider}, fixed_keys=tuple(key for key, _ in made)
    )
    seen: Counter[int] = Counter()
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            _, token = made[rng.randrange(len(made))]
            body: dict[str, Any] = {
                "model": "m",
                "messages": [{"role": "user", "content": "x" * rng.randrange(4, 400)}],
            }
            body |= {"max_tokens": rng.randrange(1, 41)}
            ear = Ear(rng.randrange(1, 20) if rng.random() < 0.15 else None)
            if rng.random() < 0.5:
                body["stream"] = True
            raw = json.dumps(body).encode()
            headers = {"authorization": f"Bearer {token}"}
            exchange = Exchange(Api.CHAT, "/v1/chat/completions", headers, _reader(raw))
            try:
                await asyncio.create_task(platform.front.run(exchange, ear))
            except asyncio.CancelledError:
                seen[499] += 1
            else:
                seen[ear.status] += 1

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    await asyncio.to_thread(platform.store.flush)
    with platform.store.reading() as connection:
        total = connection.execute(
            "select sum(amount_pico_usd), count(*), count(distinct id) from ledger"
        ).fetchone()
        spent = dict(
            connection.execute("select key_id, sum(amount_pico_usd) from ledger group by 1").fetchall()
        )
        open_ = connection.execute("select count(*) from reservations where state = 'open'").fetchone()[0]
        rules = dict(connection.execute("select rule, count(*) from ledger group by 1").fetchall())
    await platform.aclose()
    return {
        "invoiced": provider.invoiced,
        "charged": int(total[0]),
        "rows": total[1],
        "doubled": total[1] - total[2],
        "open": open_,
        "overshoot": max(_over(key, spent) for key, _ in made),
        "statuses": dict(sorted(seen.items())),
        "rules": rules,
        "outcomes": dict(provider.outcomes),
    }


def _reader(raw: bytes) -> Callable[[int], bytes]:
    return lambda most_bytes: raw


def _over(key: Key, spent: dict[str, int]) -> int:
    """Return by how much a key is over its budget; below zero when it is not."""
    return spent.get(key.id, 0) - limit if (limit := key.terms.budget_pico_usd) is not None else -1


def main() -> int:
    """Simulate and print both books."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(simulate(arguments.calls, arguments.seed, Path(folder)))
    error = found["charged"] - found["invoiced"]
    print(f"{arguments.calls:,} calls, seed {arguments.seed}, {time.perf_counter() - began:.0f} s")
    print(
        f"  invoiced   {format_usd(found['invoiced'])} USD\n  charged    {format_usd(found['charged'])} USD"
    )
    print(f"  error      {error} pico-USD")
    overshoot = max(0, found["overshoot"])
    print(f"  overshoot  {overshoot} pico-USD; rows doubled {found['doubled']}, open {found['open']}")
    for name in ("statuses", "rules", "outcomes"):
        print(f"  {name:<9}  {found[name]}")
    return 0 if error == 0 and found["overshoot"] <= 0 and not found["doubled"] and not found["open"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
