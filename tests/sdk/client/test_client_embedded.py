"""A gateway in this process: tiny applications first, then the real gateway."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from support.caller import ANSWER, chat, stream
from support.scripted_server import Scripted, Serve

from trilith import (
    APIConnectionError,
    APITimeoutError,
    AsyncClient,
    Client,
    EngineError,
    InternalServerError,
    MissingExtra,
    NotFoundError,
    SettingsError,
    traced,
)
from trilith.client import embedded
from trilith.client.embedded import AsyncEmbeddedWire, EmbeddedWire, Room

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
EVENT = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


class Tiny:
    """A gateway whose application is one function."""

    api_key = "made-up"

    def __init__(self, app: Callable[[Any, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        self.life: list[str] = []

    async def startup(self) -> None:
        self.life.append("up")

    async def shutdown(self) -> None:
        self.life.append("down")


async def start(send: Send, status: int = 200) -> None:
    headers = [(b"X-Request-Id", b"req_1")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def body(send: Send, part: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": more})


async def answer(scope: Any, receive: Receive, send: Send) -> None:
    """Answer with a chat that repeats what has been received."""
    request = await receive()
    seen = {
        "scope": {**scope, "headers": _texts(scope["headers"])},
        "body": json.loads(request["body"] or b"0"),
    }
    seen["scope"].pop("raw_path")
    seen["scope"].pop("query_string")
    await start(send)
    await body(send, json.dumps({**ANSWER, "data": [], "seen": seen}).encode(), more=False)


def _texts(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


@contextmanager
def plain(gateway: Tiny, **options: Any) -> Iterator[Client]:
    with Client(api_key=gateway.api_key, _wire=EmbeddedWire(Room(gateway)), **options) as client:
        yield client


@asynccontextmanager
async def coroutine(gateway: Tiny, **options: Any) -> AsyncIterator[AsyncClient]:
    wire = AsyncEmbeddedWire(Room(gateway))
    async with AsyncClient(api_key=gateway.api_key, _wire=wire, **options) as client:
        yield client


class TestCalls:
    def test_a_request_arrives_as_from_a_server(self) -> None:
        with plain(Tiny(answer)) as client:
            found = chat(client)
        scope = found.seen["scope"]
        assert (scope["method"], scope["path"], scope["type"]) == ("POST", "/v1/chat/completions", "http")
        assert scope["headers"]["authorization"] == "Bearer made-up"
        assert int(scope["headers"]["content-length"]) > 50
        assert found.seen["body"]["messages"] == [{"role": "user", "content": "hello"}]
        assert found.request_id == "req_1"

    async def test_a_coroutine_of_another_loop_is_answered(self) -> None:
        async with coroutine(Tiny(answer)) as client:
            found = await asyncio.gather(*(chat(client, seed=number) for number in range(20)))
        assert [answer.seen["body"]["seed"] for answer in found] == list(range(20))

    def test_many_threads_are_answered_at_once(self) -> None:
        everyone = threading.Barrier(4)

        async def meet(scope: Any, receive: Receive, send: Send) -> None:
            await asyncio.to_thread(everyone.wait, 5)
            await answer(scope, receive, send)

        with plain(Tiny(meet)) as client:
            threads = [threading.Thread(target=chat, args=(client,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
        assert not everyone.broken

    def test_escaped_paths_are_told_apart(self) -> None:
        async def model(scope: Any, receive: Receive, send: Send) -> None:
            await start(send)
            await body(
                send,
                json.dumps({"id": scope["path"], "raw": scope["raw_path"].decode()}).encode(),
                more=False,
            )

        with plain(Tiny(model)) as client:
            found = client.models.retrieve("org/m")
        assert (found.id, found.model_extra) == ("/v1/models/org/m", {"raw": "/v1/models/org%2Fm"})

    def test_only_the_trace_s_name_crosses_into_the_gateway(self) -> None:
        inside: list[trace.Span] = []

        async def look(scope: Any, receive: Receive, send: Send) -> None:
            inside.append(trace.get_current_span())
            await answer(scope, receive, send)

        @traced
        def app(client: Client) -> Any:
            return chat(client)

        with plain(Tiny(look)) as client:
            found = app(client)
        assert "traceparent" in found.seen["scope"]["headers"]
        assert not inside[0].get_span_context().is_valid


class TestStreams:
    def test_a_chunk_arrives_before_the_application_is_done(self) -> None:
        second = threading.Event()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await start(send)
            await body(send, EVENT)
            await asyncio.to_thread(second.wait, 5)
            await body(send, DONE, more=False)

        with plain(Tiny(app)) as client, stream(client) as chunks:
            assert next(chunks).choices[0].delta.content == "a"
            assert not second.is_set()
            second.set()
            assert list(chunks) == []

    async def test_a_chunk_reaches_a_coroutine_before_the_application_is_done(self) -> None:
        second = threading.Event()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await start(send)
            await body(send, EVENT)
            await asyncio.to_thread(second.wait, 5)
            await body(send, DONE, more=False)

        async with coroutine(Tiny(app)) as client, await stream(client) as chunks:
            assert (await anext(chunks)).choices[0].delta.content == "a"
            second.set()
            assert [chunk async for chunk in chunks] == []

    def test_the_application_sees_a_caller_leave(self) -> None:
        gone = threading.Event()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await receive()
            await start(send)
            await body(send, EVENT)
            assert (await receive())["type"] == "http.disconnect"
            gone.set()

        with plain(Tiny(app)) as client:
            for _ in stream(client):
                break
            assert gone.wait(5)

    async def test_the_application_sees_a_cancelled_coroutine_leave_before_it_has_answered(self) -> None:
        gone = threading.Event()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await receive()
            await receive()
            gone.set()

        async with coroutine(Tiny(app)) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(chat(client), 0.1)
            assert await asyncio.to_thread(gone.wait, 5)

    def test_the_application_cannot_run_far_ahead_of_its_reader(self) -> None:
        sent: list[int] = []

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await start(send)
            for number in range(1000):
                await body(send, EVENT)
                sent.append(number)
            await body(send, DONE, more=False)

        with plain(Tiny(app)) as client, stream(client) as chunks:
            next(chunks)
            threading.Event().wait(0.2)
            assert len(sent) < 40
            assert len(list(chunks)) == 999

    def test_an_application_that_waits_for_its_reader_goes_on_when_the_reader_leaves(self) -> None:
        ended = threading.Event()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await start(send)
            for _ in range(1000):
                await body(send, EVENT)
            ended.set()

        with plain(Tiny(app)) as client:
            with stream(client) as chunks:
                next(chunks)
            assert ended.wait(5)


class TestFailures:
    def test_an_application_that_fails_answers_500(self, caplog: pytest.LogCaptureFixture) -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            raise KeyError("x")

        with plain(Tiny(app), max_retries=0) as client, pytest.raises(InternalServerError):
            chat(client)
        assert "the embedded gateway failed: KeyError" in caplog.text

    def test_an_application_that_breaks_off_is_a_broken_connection(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await start(send)
            await body(send, EVENT)
            raise KeyError("x")

        with plain(Tiny(app)) as client, pytest.raises(APIConnectionError, match="broke off"):
            list(stream(client))
        assert [record.levelno for record in caplog.records] == [logging.ERROR]

    def test_an_application_that_forgets_to_answer_is_a_broken_connection(self) -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            return

        with plain(Tiny(app), max_retries=0) as client, pytest.raises(APIConnectionError):
            chat(client)

    def test_an_error_answer_is_an_error(self) -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await start(send, 404)
            await body(send, b'{"error": "no such model"}', more=False)

        with plain(Tiny(app)) as client, pytest.raises(NotFoundError, match="no such model"):
            chat(client)

    async def test_silence_is_a_timeout_for_both(self) -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await receive()
            await receive()

        with plain(Tiny(app), max_retries=0, timeout_s=0.05) as client, pytest.raises(APITimeoutError):
            chat(client)
        async with coroutine(Tiny(app), max_retries=0, timeout_s=0.05) as other:
            with pytest.raises(APITimeoutError):
                await chat(other)


class TestLife:
    def test_the_gateway_goes_up_and_down_once(self) -> None:
        gateway = Tiny(answer)
        with plain(gateway) as client:
            chat(client)
            client.with_options(timeout_s=1).close()
            assert gateway.life == ["up"]
        client.close()
        assert gateway.life == ["up", "down"]

    def test_a_closed_gateway_says_so(self) -> None:
        with plain(Tiny(answer), max_retries=0) as client:
            pass
        with pytest.raises(APIConnectionError, match="closed"):
            chat(client)

    def test_closing_breaks_off_what_is_under_way(self) -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            await receive()
            await start(send)
            await body(send, EVENT)
            await receive()

        with plain(Tiny(app)) as client:
            chunks = stream(client)
            next(chunks)
        with pytest.raises(APIConnectionError):
            next(chunks)

    async def test_a_failed_start_is_raised_by_the_first_call(self) -> None:
        class Broken(Tiny):
            async def startup(self) -> None:
                raise EngineError("no vLLM here")

        room = Room(Broken(answer))
        with pytest.raises(EngineError, match="no vLLM"):
            room.wait()
        async with AsyncClient(api_key="k", _wire=AsyncEmbeddedWire(Room(Broken(answer)))) as client:
            with pytest.raises(EngineError, match="no vLLM"):
                await chat(client)

    def test_a_start_that_ends_the_loop_is_raised_and_not_waited_for(self) -> None:
        class Exits(Tiny):
            async def startup(self) -> None:
                raise SystemExit(3)

        with pytest.raises(SystemExit):
            Room(Exits(answer)).wait()

    def test_a_start_can_be_given_up(self) -> None:
        class Slow(Tiny):
            async def startup(self) -> None:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.life.append("given up")
                    raise

        gateway = Slow(answer)
        room = Room(gateway)
        room.stop()
        assert gateway.life in (["given up"], [])

    def test_a_failed_shutdown_is_raised_by_close(self) -> None:
        class Stuck(Tiny):
            async def shutdown(self) -> None:
                raise EngineError("it does not stop")

        client = Client(api_key="k", _wire=EmbeddedWire(Room(Stuck(answer))))
        chat(client)
        with pytest.raises(EngineError, match="does not stop"):
            client.close()

    def test_a_forgotten_gateway_is_shut_down_when_the_program_ends(self) -> None:
        program = """
import asyncio
from trilith import Client
from trilith.client.embedded import EmbeddedWire, Room

class Gateway:
    api_key = "k"
    async def app(self, scope, receive, send): ...
    async def startup(self): await asyncio.to_thread(print, "up", flush=True)
    async def shutdown(self): await asyncio.to_thread(print, "down", flush=True)

room = Room(Gateway())
room.wait()
client = Client(api_key="k", _wire=EmbeddedWire(room))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
        assert (done.stdout, done.stderr) == ("up\ndown\n", "")


class TestGateway:
    @pytest.fixture
    def settings(self, tmp_path: Path, serve: Serve) -> Path:
        server = serve(Scripted(body=ANSWER))
        model = {"kind": "chat", "upstream": {"url": f"{server.url}/v1"}}
        path = tmp_path / "trilith.yaml"
        path.write_text(
            json.dumps({"home": str(tmp_path / "home"), "models": {"m": model}}), encoding="utf-8"
        )
        return path

    def test_the_real_gateway_answers_without_a_server(self, settings: Path) -> None:
        with Client.embedded(settings) as client:
            found = chat(client)
            assert found.choices[0].message.content == "hi"
            assert found.request_id.startswith("req_")
            assert [model.id for model in client.models.list()] == ["m"]

    async def test_the_real_gateway_answers_coroutines(self, settings: Path) -> None:
        async with AsyncClient.embedded(str(settings)) as client:
            assert (await chat(client)).choices[0].message.content == "hi"
            with pytest.raises(NotFoundError):
                await chat(client, model="other")

    def test_wrong_settings_are_refused_before_anything_starts(self, tmp_path: Path) -> None:
        path = tmp_path / "trilith.yaml"
        path.write_text("models: 4", encoding="utf-8")
        with pytest.raises(SettingsError):
            Client.embedded(path)
        with pytest.raises(SettingsError):
            AsyncClient.embedded(path)

    def test_without_the_gateway_the_install_line_is_named(self, tmp_path: Path) -> None:
        program = (
            "import sys; sys.modules['fastapi'] = None\nfrom trilith import Client\nClient.embedded('x')"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
        last = done.stderr.strip().splitlines()[-1]
        assert "MissingExtra: fastapi is not installed" in last
        assert last.endswith("pip install 'trilith[gateway]'")


def test_the_entry_point_is_the_one_that_the_project_declares() -> None:
    assert embedded.GROUP == "trilith.embedded"
    assert issubclass(MissingExtra, ImportError)
