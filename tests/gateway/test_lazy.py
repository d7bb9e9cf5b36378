"""A model that cannot be opened yet: refused with its reason, and taken up when the cause is gone."""

from __future__ import annotations

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
