"""A caller's body cannot steer the real litellm: not its address, its credential, nor what it fetches."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.installed import free_port, until

from trilith.seams import Call
from trilith_gateway.upstream.provider import ProviderUpstream, ProviderWorker
from trilith_gateway.upstream.provider_fields import CHAT, EMBEDDINGS
from trilith_gateway.upstream.provider_worker import TARGET, _arguments

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOSED = {
    "timeout", "deployment_id", "base_url", "api_base", "api_version", "api_key", "api_type", "model_list",
    "extra_headers", "include_server_side_tool_invocations", "shared_session",
    "enable_json_schema_validation", "caching", "custom_llm_provider", "litellm_call_id", "logger_fn",
}  # fmt: skip
"""litellm's own arguments that no caller may set; a new release's new one belongs here or in the lists."""

HIDDEN = {
    "extra_body", "extra_query", "headers", "fallbacks", "mock_response", "metadata", "litellm_params",
    "aws_access_key_id", "aws_bedrock_runtime_endpoint", "vertex_credentials", "vertex_location",
    "input_cost_per_token", "organization", "azure_ad_token", "drop_params", "client", "acompletion",
    "max_retries", "num_retries", "a_field_that_nobody_knows",
}  # fmt: skip
"""What litellm takes as `**kwargs`."""


class Recorder:
    """Speaks OpenAI's protocol, and remembers who asked for what."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        routes = [Route("/{path:path}", self.answer, methods=["GET", "HEAD", "POST"])]
        self.app = Starlette(routes=routes)
        self.url = ""

    async def answer(self, request: Request) -> Response:
        self.paths.append(request.url.path)
        raw = await request.body()
        if raw:
            self.bodies.append(json.loads(raw))
        if request.url.path.endswith("embeddings"):
            item = {"object": "embedding", "index": 0, "embedding": [0.5]}
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            return JSONResponse({"object": "list", "model": "m", "data": [item], "usage": usage})
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
        return JSONResponse({**answer, "choices": [choice], "usage": usage})


def serving() -> Iterator[Recorder]:
    made, port = Recorder(), free_port()
    server = uvicorn.Server(uvicorn.Config(made.app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started, what="the recorder being up")
    made.url = f"http://127.0.0.1:{port}/v1"
    yield made
    server.should_exit = True
    thread.join()


evil = pytest.fixture(scope="module", name="evil")(serving)
friend = pytest.fixture(scope="module", name="friend")(serving)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[ProviderWorker]:
    made = ProviderWorker()
    yield made
    await made.aclose()


@pytest.fixture(autouse=True)
def _forget(evil: Recorder, friend: Recorder) -> None:
    for recorder in (evil, friend):
        recorder.bodies.clear()
        recorder.paths.clear()


async def ask(
    worker: ProviderWorker,
    body: dict[str, Any],
    *,
    at: str | None = None,
    path: str = "/v1/chat/completions",
    provider: str = "openai/gpt-4o",
) -> tuple[int, dict[str, Any]]:
    upstream = ProviderUpstream(provider, worker=worker, api_base=at, api_key="sk-canary")
    reply = await upstream.send(Call(path=path, body=json.dumps({"model": "m", **body}).encode()))
    return reply.status, json.loads(b"".join([chunk async for chunk in reply.chunks()]))


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], **fields}


async def test_every_argument_of_litellm_is_either_allowed_or_closed() -> None:
    import litellm

    functions = (litellm.completion, litellm.acompletion, litellm.embedding)
    taken = {name for function in functions for name in inspect.signature(function).parameters}
    assert taken - {"kwargs"} - CHAT - EMBEDDINGS - CLOSED == set()
    assert (CLOSED | HIDDEN).isdisjoint(CHAT | EMBEDDINGS)


@pytest.mark.parametrize("name", sorted(CLOSED | HIDDEN))
async def test_a_field_that_could_steer_litellm_is_refused(
    name: str, worker: ProviderWorker, evil: Recorder, friend: Recorder
) -> None:
    for at in (None, friend.url):
        status, answer = await ask(worker, chat(**{name: evil.url}), at=at)
        assert (status, answer["error"]["param"]) == (400, name)
        assert name in answer["error"]["message"]
    status, answer = await ask(worker, {"input": "a", name: evil.url}, path="/v1/embeddings")
    assert (status, answer["error"]["param"]) == (400, name)
    assert evil.paths == friend.paths == []


async def test_what_the_operator_left_unset_is_not_the_caller_s_to_set() -> None:
    target = json.dumps({"model": "openai/x", "api_base": None, "api_key": None})
    head = {"type": "http", "headers": [(TARGET.encode(), target.encode())]}
    body = {"api_base": "http://evil", "api_key": "k", "model": "other", "num_retries": 9}
    made = _arguments(Request(head), body, frozenset(body))
    assert made == {**json.loads(target), "max_retries": 0, "num_retries": 0}


async def test_fields_that_shape_the_answer_arrive(worker: ProviderWorker, friend: Recorder) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    fields = {"temperature": 0.5, "seed": 7, "tools": [tool], "user": "u", "top_k": 3, "min_p": 0.1}
    status, answer = await ask(worker, chat(**fields), at=friend.url)
    assert status == 200, answer
    (sent,) = friend.bodies
    assert {name: sent[name] for name in fields} == fields


async def test_embeddings_arrive(worker: ProviderWorker, friend: Recorder) -> None:
    body = {"input": "a", "dimensions": 1}
    status, _ = await ask(
        worker, body, at=friend.url, path="/v1/embeddings", provider="openai/text-embedding-3-small"
    )
    assert (status, friend.bodies[0]["dimensions"]) == (200, 1)


def picture(url: str) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]}


async def test_the_address_of_an_image_is_the_provider_s_to_fetch(
    worker: ProviderWorker, evil: Recorder, friend: Recorder
) -> None:
    body = picture(f"{evil.url}/a.png")
    status, _ = await ask(worker, body, at=friend.url)
    assert (status, friend.bodies[0]["messages"]) == (200, body["messages"])
    assert evil.paths == []


@pytest.mark.parametrize(
    "provider", ["ollama_chat/llava", "ollama/llava", "anthropic/claude-test", "gigachat/x"]
)
async def test_litellm_fetches_no_address_itself(
    provider: str, worker: ProviderWorker, evil: Recorder, friend: Recorder
) -> None:
    await ask(worker, picture(f"{evil.url}/a.png"), at=friend.url, provider=provider)
    assert evil.paths == []


async def test_litellm_fetches_no_public_address_either() -> None:
    # In a process of its own, as the worker: what is changed in litellm stays changed.
    script = """
from trilith_gateway.upstream.provider_worker import create_app
create_app()
from litellm.litellm_core_utils.url_utils import SSRFError, safe_get
class Client:
    def get(self, *args, **kwargs):
        raise SystemExit("dialled")
try:
    safe_get(Client(), "http://93.184.216.34/a.png")
except SSRFError:
    print("refused")
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out.strip()) == (0, b"refused")


async def test_an_adapter_that_fetches_on_its_own_gets_no_address(
    worker: ProviderWorker, evil: Recorder
) -> None:
    status, answer = await ask(worker, picture(f"{evil.url}/a.png"), provider="gigachat/x", at=evil.url)
    assert (status, answer["error"]["param"], evil.paths) == (400, "messages", [])


async def test_an_address_as_a_file_is_refused(
    worker: ProviderWorker, evil: Recorder, friend: Recorder
) -> None:
    content = [{"type": "file", "file": {"file_id": f"{evil.url}/a.pdf"}}]
    status, _ = await ask(worker, {"messages": [{"role": "user", "content": content}]}, at=friend.url)
    assert (status, evil.paths, friend.paths) == (400, [], [])


async def test_a_tool_that_litellm_would_run_is_refused(worker: ProviderWorker, friend: Recorder) -> None:
    tool = {"type": "mcp", "server_url": "litellm_proxy"}
    status, answer = await ask(worker, chat(tools=[tool]), at=friend.url)
    assert (status, answer["error"]["param"], friend.paths) == (400, "tools", [])


async def test_an_operation_that_litellm_lacks_here_is_said_so(worker: ProviderWorker) -> None:
    status, answer = await ask(worker, {"prompt": "a"}, path="/v1/completions")
    assert (status, answer["error"]["code"]) == (400, "operation_not_supported")
    assert "/v1/chat/completions" in answer["error"]["message"]
