"""A provider behind the real litellm, in its own process, translating to another protocol."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import uvicorn
from support.installed import free_port, until
from support.provider_server import AnthropicServer

from trilith.errors import InternalServerError
from trilith.seams import Call
from trilith_gateway.upstream.provider import ProviderUpstream, ProviderWorker

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def anthropic() -> Iterator[tuple[AnthropicServer, str]]:
    made, port = AnthropicServer(), free_port()
    server = uvicorn.Server(uvicorn.Config(made.app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started, what="the provider being up")
    yield made, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[ProviderWorker]:
    made = ProviderWorker()
    yield made
    await made.aclose()


@pytest.fixture
def provider(anthropic: tuple[AnthropicServer, str]) -> AnthropicServer:
    made, _ = anthropic
    made.requests.clear()
    made.fail, made.pause_s, made.cut_off = None, 0.0, 0
    return made


@pytest.fixture
def upstream(anthropic: tuple[AnthropicServer, str], worker: ProviderWorker) -> ProviderUpstream:
    return ProviderUpstream(
        "anthropic/claude-test", worker=worker, api_base=anthropic[1], api_key="sk-canary"
    )


def call(**fields: object) -> Call:
    body = {
        "model": "claude",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hello there"}],
        **fields,
    }
    return Call(path="/v1/chat/completions", body=json.dumps(body).encode())


async def body(upstream: ProviderUpstream, asked: Call) -> bytes:
    reply = await upstream.send(asked)
    return b"".join([chunk async for chunk in reply.chunks()])


async def test_a_chat_is_translated_both_ways(provider: AnthropicServer, upstream: ProviderUpstream) -> None:
    answer = json.loads(await body(upstream, call(temperature=0.5)))
    assert answer["choices"][0]["message"]["content"] == "hello there"
    (sent,) = provider.requests
    assert (sent["max_tokens"], sent["temperature"], sent["model"]) == (9, 0.5, "claude-test")
    assert provider.keys[-1] == "sk-canary"


async def test_cached_tokens_are_counted_within_the_prompt_as_openai_does(
    provider: AnthropicServer, upstream: ProviderUpstream
) -> None:
    usage = json.loads(await body(upstream, call()))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (15, 3)  # 10 fresh + 5 cached
    assert usage["prompt_tokens_details"]["cached_tokens"] == 5


async def test_a_stream_is_translated_with_usage_and_its_end(
    provider: AnthropicServer, upstream: ProviderUpstream
) -> None:
    raw = await body(upstream, call(stream=True, stream_options={"include_usage": True}))
    events = [line.removeprefix("data: ") for line in raw.decode().splitlines() if line]
    chunks = [json.loads(event) for event in events[:-1]]
    assert events[-1] == "[DONE]"
    texts = [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]
    assert "".join(texts) == "hello there"
    assert chunks[-1]["usage"]["completion_tokens"] == 3


async def test_the_provider_s_refusal_keeps_its_status_and_its_wait(
    provider: AnthropicServer, upstream: ProviderUpstream
) -> None:
    provider.fail = (429, {"retry-after": "7"})
    reply = await upstream.send(call())
    assert (reply.status, reply.headers.get("retry-after")) == (429, "7")
    assert len(provider.requests) == 1  # retries belong to the gateway


async def test_a_hang_up_in_the_stream_reaches_the_provider(
    provider: AnthropicServer, upstream: ProviderUpstream
) -> None:
    provider.pause_s = 5
    reply = await upstream.send(call(stream=True))
    await anext(reply.chunks())
    await reply.aclose()
    await asyncio.to_thread(
        until, lambda: provider.cut_off == 1, seconds=4, what="the provider being hung up on"
    )


async def test_litellm_is_never_imported_here(
    upstream: ProviderUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "litellm", raising=False)  # another test may have it as a client
    await body(upstream, call())
    assert "litellm" not in sys.modules


async def test_a_worker_that_dies_is_started_again(
    provider: AnthropicServer, upstream: ProviderUpstream, worker: ProviderWorker
) -> None:
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await asyncio.sleep(0.5)
    assert b"hello" in await body(upstream, call())
    assert worker.pid != first


async def test_a_worker_that_cannot_start_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InternalServerError, match=r"trilith\[providers\]"):
        await ProviderUpstream("anthropic/x", worker=ProviderWorker()).send(call())


async def test_the_worker_runs_until_the_last_of_its_models_is_closed(
    anthropic: tuple[AnthropicServer, str], provider: AnthropicServer
) -> None:
    worker = ProviderWorker()
    one, other = (
        ProviderUpstream("anthropic/claude-test", worker=worker, api_base=anthropic[1], api_key="k")
        for _ in range(2)
    )
    assert b"choices" in await body(one, call())
    pid = worker.pid
    await one.aclose()
    await one.aclose()
    assert b"choices" in await body(other, call())
    assert worker.pid == pid
    await other.aclose()
    assert worker.pid is None
