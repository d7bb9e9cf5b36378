"""Two gateways on one Redis share answers; without it each goes on alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.gateway import PRICE, Gateway, Running
from support.installed import until

from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream


@pytest.fixture
def pair(tmp_path: Path, redis: Any) -> Iterator[list[tuple[Gateway, MemoryUpstream]]]:
    with ExitStack() as stack:
        made = []
        for name in ("one", "two"):
            model = {
                "kind": "chat",
                "upstream": {"url": "http://127.0.0.1:9/v1"},
                "price": PRICE,
                "cache": {},
            }
            settings = Settings.model_validate(
                {"home": tmp_path / name, "store": {"redis_url": redis.url}, "models": {"echo": model}}
            )
            upstream = MemoryUpstream()
            made.append((stack.enter_context(Running(settings, {"echo": upstream})), upstream))
        yield made


def test_an_answer_of_one_is_given_by_the_other_until_redis_is_away(
    pair: list[tuple[Gateway, MemoryUpstream]], redis: Any
) -> None:
    (one, first), (two, second) = pair
    said = one.chat(temperature=0)
    assert said.headers["x-trilith-cache"] == "miss"
    until(lambda: two.chat(temperature=0).headers["x-trilith-cache"] == "hit", what="the answer in Redis")
    again = two.chat(temperature=0, stream=True)
    assert (again.status_code, again.headers["x-trilith-cache"]) == (200, "hit")
    assert len(first.calls) == 1
    before = len(second.calls)
    redis.stop()
    alone = two.chat(temperature=0)
    assert (alone.status_code, alone.headers["x-trilith-cache"]) == (200, "miss")
    assert len(second.calls) == before + 1
