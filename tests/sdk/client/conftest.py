"""Scripted servers on real sockets, and both clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.caller import Caller, CoroutineCaller, PlainCaller
from support.scripted_server import Scripted, ScriptedServer, Serve


@pytest.fixture(params=[PlainCaller, CoroutineCaller], ids=["plain", "async"])
def caller(request: pytest.FixtureRequest) -> Caller:
    made: Caller = request.param()
    return made


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers, each with its script."""
    with ExitStack() as stack:

        def start(*script: Scripted) -> ScriptedServer:
            return stack.enter_context(ScriptedServer(script))

        yield start
