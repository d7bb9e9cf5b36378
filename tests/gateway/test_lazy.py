"""A model that cannot be opened yet: refused with its reason, and taken up when the cause is gone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from trilith.errors import InternalServerError, MissingExtra
from trilith.seams import Call, Upstream
from trilith.testing import MemoryUpstream
from trilith_gateway.upstream import lazy
from trilith_gateway.upstream.lazy import LazyUpstream

CALL = Call("/v1/chat/completions", b"{}")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            MissingExtra("torch is not installed; it comes with: pip install 'trilith[rag]'"),
            r"not ready: torch is not installed; it comes with: pip install 'trilith\[rag\]'\.$",
        ),
        (OSError("libgomp.so: cannot open"), "could not be opened .OSError.; the log has the reason"),
    ],
)
async def test_a_model_that_cannot_be_opened_refuses_and_hurts_no_other(error: Exception, said: str) -> None:
    def fail() -> Upstream:
        raise error

    upstream = LazyUpstream("m", fail)
    assert not await upstream.ready()
    with pytest.raises(InternalServerError, match=said) as caught:
        await upstream.send(CALL)
    assert caught.value.status_code == 503


async def test_a_model_is_opened_when_the_cause_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_RETRY_S", 0.0)
    tries: list[Upstream] = []

    def open() -> Upstream:
        tries.append(MemoryUpstream())
        if len(tries) == 1:
            raise MissingExtra("not yet")
        return tries[-1]

    upstream = LazyUpstream("m", open)
    assert not await upstream.ready()
    assert await upstream.ready()
    assert await upstream.ready()
    assert len(tries) == 2


async def test_who_gives_up_waiting_does_not_undo_the_opening_for_others() -> None:
    may_open, opened = threading.Event(), []

    def open() -> Upstream:
        may_open.wait(10)
        opened.append(Kept())
        return opened[-1]

    upstream = LazyUpstream("m", open)
    first = asyncio.create_task(upstream.send(CALL))
    second = asyncio.create_task(upstream.ready())
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait({first})
    may_open.set()
    assert await second
    assert await upstream.ready()
    assert len(opened) == 1


async def test_what_was_being_opened_when_nobody_wants_it_any_more_is_closed() -> None:
    may_open, kept = threading.Event(), Kept()

    def open() -> Upstream:
        may_open.wait(10)
        return kept

    upstream = LazyUpstream("m", open)
    asking = asyncio.create_task(upstream.ready())
    await asyncio.sleep(0.01)
    asking.cancel()
    closing = asyncio.create_task(upstream.aclose())
    await asyncio.sleep(0.01)
    may_open.set()
    await closing
    assert kept.closed


class Kept(MemoryUpstream):
    """Notes that it was closed."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True
