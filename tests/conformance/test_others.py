"""Anthropic's, langchain's, litellm's and Triton's clients, unchanged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import numpy as np
import pytest
from conformance.conftest import Service

# litellm and langchain warn of what they use themselves, and leave connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class TestAnthropic:
    @pytest.fixture
    def client(self, service: Service) -> Iterator[anthropic.Anthropic]:
        with anthropic.Anthropic(base_url=service.url, api_key=service.key, max_retries=0) as made:
            yield made

    @pytest.mark.parametrize("model", ["chat", "claude"])
    def test_answers_and_streams_translated_or_passed(self, client: anthropic.Anthropic, model: str) -> None:
        ask: Any = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}]}
        assert client.messages.create(**ask).content[0].text == "one two"
        with client.messages.stream(**ask) as stream:
            assert "".join(stream.text_stream) == "one two"
            assert stream.get_final_message().usage.output_tokens == 2

    @pytest.mark.parametrize(("model", "count"), [("chat", 2), ("claude", 102)])
    def test_counts_tokens_where_the_upstream_does(
        self, client: anthropic.Anthropic, model: str, count: int
    ) -> None:
        counted = client.messages.count_tokens(model=model, messages=[{"role": "user", "content": "one two"}])
        assert counted.input_tokens == count

    def test_calls_tools(self, client: anthropic.Anthropic) -> None:
        tool: Any = {"name": "weather", "input_schema": {"type": "object"}}
        with client.messages.stream(
            model="chat", max_tokens=9, messages=[{"role": "user", "content": "How is Paris?"}], tools=[tool]
        ) as stream:
            answer = stream.get_final_message()
        (block,) = answer.content
        assert block.type == "tool_use"
        assert (block.name, block.input, answer.stop_reason) == ("weather", {"city": "Paris"}, "tool_use")

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, anthropic.BadRequestError),
            (401, anthropic.AuthenticationError),
            (403, anthropic.PermissionDeniedError),
            (404, anthropic.NotFoundError),
            (429, anthropic.RateLimitError),
            (500, anthropic.InternalServerError),
        ],
    )
    def test_errors_come_as_its_own_classes(
        self, client: anthropic.Anthropic, status: int, kind: type[anthropic.APIStatusError]
    ) -> None:
        with pytest.raises(kind):
            client.messages.create(
                model="chat", max_tokens=9, messages=[{"role": "user", "content": f"fail {status}"}]
            )


class TestLangchain:
    @pytest.fixture
    def options(self, service: Service) -> dict[str, Any]:
        return {"base_url": f"{service.url}/v1", "api_key": service.key, "max_retries": 0}

    @pytest.mark.parametrize("responses", [True, False])
    def test_chats_and_streams(self, options: dict[str, Any], responses: bool) -> None:
        from langchain_openai import ChatOpenAI

        model = ChatOpenAI(model="chat", use_responses_api=responses, **options)
        assert model.invoke("one two").text == "one two"
        assert "".join(chunk.text for chunk in model.stream("one two")) == "one two"

    def test_binds_tools(self, options: dict[str, Any]) -> None:
        from langchain_openai import ChatOpenAI

        def weather(city: str) -> str:
            """Look outside."""
            return city

        answer = ChatOpenAI(model="chat", **options).bind_tools([weather]).invoke("How is Paris?")
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})

    def test_embeds(self, options: dict[str, Any]) -> None:
        from langchain_openai import OpenAIEmbeddings

        model = OpenAIEmbeddings(model="org/embed", check_embedding_ctx_length=False, **options)
        assert model.embed_documents(["ab", "abc"]) == [[2.0, 0.5], [3.0, 0.5]]


class TestLitellm:
    """One import for all of them: it takes seconds."""

    @pytest.fixture(scope="class")
    def litellm(self) -> Any:
        import litellm

        litellm.suppress_debug_info = True
        return litellm

    @pytest.fixture
    def options(self, service: Service) -> dict[str, Any]:
        return {"api_base": f"{service.url}/v1", "api_key": service.key, "num_retries": 0, "max_retries": 0}

    def test_completes_and_streams(self, litellm: Any, options: dict[str, Any]) -> None:
        ask = {"model": "openai/chat", "messages": [{"role": "user", "content": "one two"}], **options}
        assert litellm.completion(**ask).choices[0].message.content == "one two"
        parts = litellm.completion(stream=True, **ask)
        assert "".join(part.choices[0].delta.content or "" for part in parts) == "one two"

    def test_embeds(self, litellm: Any, options: dict[str, Any]) -> None:
        made = litellm.embedding(model="openai/org/embed", input=["ab"], **options)
        assert made.data[0]["embedding"] == [2.0, 0.5]

    def test_speaks_anthropics_protocol(self, litellm: Any, service: Service) -> None:
        answer = litellm.completion(
            model="anthropic/claude",
            messages=[{"role": "user", "content": "one two"}],
            api_base=service.url,
            api_key=service.key,
        )
        assert answer.choices[0].message.content == "one two"

    def test_reranks(self, litellm: Any, options: dict[str, Any]) -> None:
        answer = litellm.rerank(
            model="hosted_vllm/order",
            query="a",
            documents=["b", "a"],
            api_base=options["api_base"],
            api_key=options["api_key"],
        )
        assert [result["index"] for result in answer.results] == [1, 0]

    def test_hands_in_a_batch_and_reads_its_answers(self, litellm: Any, options: dict[str, Any]) -> None:
        there = {
            "custom_llm_provider": "openai",
            "api_base": options["api_base"],
            "api_key": options["api_key"],
        }
        body = {"model": "org/embed", "input": "ab"}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": body}
        data = ("in.jsonl", json.dumps(line).encode())
        file = litellm.create_file(file=data, purpose="batch", **there)
        made = litellm.create_batch(
            input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h", **there
        )
        deadline = time.monotonic() + 30
        while (done := litellm.retrieve_batch(made.id, **there)).status != "completed":
            assert time.monotonic() < deadline, done
            time.sleep(0.05)
        (answer,) = litellm.file_content(file_id=done.output_file_id, **there).text.splitlines()
        assert json.loads(answer)["response"]["body"]["data"][0]["embedding"] == [2.0, 0.5]
        assert made.id in [found.id for found in litellm.list_batches(**there)]
        assert file.id in [found.id for found in litellm.file_list(**there)]
        with pytest.raises(Exception, match="Cannot cancel a batch with status 'completed'"):
            litellm.cancel_batch(made.id, **there)
        assert litellm.file_delete(file_id=file.id, **there).deleted

    def test_errors_come_as_its_own_classes(self, litellm: Any, options: dict[str, Any]) -> None:
        for text, kind in (("fail 429", "RateLimitError"), ("fail 503", "ServiceUnavailableError")):
            with pytest.raises(getattr(litellm, kind)):
                litellm.completion(
                    model="openai/chat", messages=[{"role": "user", "content": text}], **options
                )
        with pytest.raises(litellm.AuthenticationError):
            litellm.completion(
                model="openai/chat",
                messages=[{"role": "user", "content": "hi"}],
                **options | {"api_key": "tl_wrong"},
            )


class TestTriton:
    @pytest.fixture
    def client(self, service: Service) -> Iterator[Any]:
        import tritonclient.http as triton  # type: ignore[import-untyped]

        made = triton.InferenceServerClient(service.url.removeprefix("http://"))
        made.headers = {"authorization": f"Bearer {service.key}"}
        yield made
        made.close()

    def test_looks_around(self, client: Any) -> None:
        assert client.is_server_live()
        assert client.is_model_ready("double", headers=client.headers)
        assert client.get_server_metadata(headers=client.headers)["name"] == "trilith"
        assert client.get_model_metadata("double", headers=client.headers)["inputs"][0]["name"] == "x"
        index = client.get_model_repository_index(headers=client.headers)
        assert [entry["name"] for entry in index] == ["double"]

    @pytest.mark.parametrize("binary", [True, False])
    def test_infers_in_json_and_in_bytes(self, client: Any, binary: bool) -> None:
        import tritonclient.http as triton

        numbers = np.array([1.0, 2.5, -3.0], dtype=np.float32)
        tensor = triton.InferInput("x", [3], "FP32")
        tensor.set_data_from_numpy(numbers, binary_data=binary)
        wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
        answer = client.infer("double", [tensor], outputs=wanted, request_id="r1", headers=client.headers)
        assert answer.as_numpy("y").tolist() == [2.0, 5.0, -6.0]
        assert answer.get_response()["id"] == "r1"

    def test_errors_are_its_own(self, client: Any) -> None:
        import tritonclient.http as triton
        from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

        tensor = triton.InferInput("x", [1], "FP32")
        tensor.set_data_from_numpy(np.zeros(1, dtype=np.float32))
        for name, headers in (("nobody", client.headers), ("double", {})):
            with pytest.raises(InferenceServerException):
                client.infer(name, [tensor], headers=headers)
