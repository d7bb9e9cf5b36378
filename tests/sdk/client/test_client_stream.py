"""Streams over a real socket: what arrives, and what the server sees when its caller leaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.caller import ANSWER, Caller, chat, stream
from support.scripted_server import Scripted, Serve

from trilith import AsyncClient, Client, InternalServerError

RECORDED = (Path(__file__).parent / "recorded" / "vllm_stream.sse").read_bytes()
EVENT = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ENDLESS = Scripted(headers={"x-request-id": "req_5"}, parts=[EVENT], stays=True)


def test_a_recorded_stream_arrives_whole(caller: Caller, serve: Serve) -> None:
    cuts = [RECORDED[at : at + 11] for at in range(0, len(RECORDED), 11)]
    chunks = caller(serve(Scripted(parts=cuts)).url, stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "naïve café 5 € 😀"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 52)


def test_a_stream_is_asked_for_as_openai_does(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(parts=[DONE]))
    caller(server.url, lambda client: stream(client, stream_options={"include_usage": True}))
    sent = server.received[0].json()
    assert (sent["stream"], sent["stream_options"]) == (True, {"include_usage": True})


def test_null_choices_are_none(caller: Caller, serve: Serve) -> None:
    usage = b'data: {"choices": null, "usage": {"prompt_tokens": 2}}\n\n'
    (chunk,) = caller(serve(Scripted(parts=[usage, DONE])).url, stream)
    assert (chunk.choices, chunk.usage.prompt_tokens) == ([], 2)


def test_an_error_in_the_stream_is_raised(caller: Caller, serve: Serve) -> None:
    error = b'data: {"error": {"message": "the upstream broke off", "code": "upstream_error"}}\n\n'
    server = serve(Scripted(parts=[EVENT, error], headers={"x-request-id": "req_9"}))
    with pytest.raises(InternalServerError, match="broke off") as caught:
        caller(server.url, stream)
    assert (caught.value.request_id, caught.value.code) == ("req_9", "upstream_error")


def test_a_chunk_arrives_before_the_next_is_made(serve: Serve) -> None:
    second = Event()

    def parts() -> Any:
        yield EVENT
        assert second.wait(5)
        yield DONE

    with Client(serve(Scripted(parts=parts())).url) as client, stream(client) as chunks:
        assert next(chunks).choices[0].delta.content == "a"
        second.set()
        assert list(chunks) == []


def _closed(client: Client) -> None:
    chunks = stream(client)
    next(chunks)
    chunks.close()


def _left_block(client: Client) -> None:
    with stream(client) as chunks:
        next(chunks)


def _never_read(client: Client) -> None:
    stream(client).close()


def _dropped(client: Client) -> None:
    for _ in stream(client):
        break
    gc.collect()


@pytest.mark.parametrize("leave", [_closed, _left_block, _never_read, _dropped])
def test_a_server_sees_its_caller_leave_at_once(serve: Serve, leave: Callable[[Client], None]) -> None:
    server = serve(ENDLESS)
    with Client(server.url) as client:
        leave(client)
        assert server.left.wait(2)


async def _aclosed(client: AsyncClient) -> None:
    chunks = await stream(client)
    await anext(chunks)
    await chunks.aclose()


async def _left_async_block(client: AsyncClient) -> None:
    async with await stream(client) as chunks:
        await anext(chunks)


async def _cancelled(client: AsyncClient) -> None:
    async def read() -> None:
        async for _ in await stream(client):
            pass

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.2)


async def _dropped_async(client: AsyncClient) -> None:
    async for _ in await stream(client):
        break
    gc.collect()
    await asyncio.sleep(0.1)  # the loop finishes dropped generators


@pytest.mark.parametrize("leave", [_aclosed, _left_async_block, _cancelled, _dropped_async])
async def test_a_server_sees_its_coroutine_leave_at_once(
    serve: Serve, leave: Callable[[AsyncClient], Any]
) -> None:
    server = serve(ENDLESS)
    async with AsyncClient(server.url) as client:
        await leave(client)
        assert await asyncio.to_thread(server.left.wait, 2)


def test_a_stream_names_its_request(serve: Serve) -> None:
    with Client(serve(ENDLESS).url) as client, stream(client) as chunks:
        assert chunks.request_id == "req_5"


def test_a_connection_serves_again_after_a_stream(serve: Serve) -> None:
    server = serve(Scripted(parts=[EVENT, DONE]), Scripted(body=ANSWER))
    with Client(server.url) as client:
        list(stream(client))
        chat(client)
    assert server.connections == 1
    assert not server.left.is_set()


def test_a_break_after_the_end_changes_nothing(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(parts=[EVENT, DONE], breaks=True))
    assert len(caller(server.url, stream)) == 1
