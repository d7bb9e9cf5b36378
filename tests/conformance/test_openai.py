"""OpenAI's own client, unchanged."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import openai
import pytest
from conformance.conftest import Service
from openai.types.chat import ChatCompletionToolParam

TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


class TestChat:
    def test_answers_and_tells_its_usage(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model="chat", messages=ask("one two"))
        assert answer.choices[0].message.content == "one two"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 4

    @pytest.mark.parametrize("usage", [True, False])
    def test_streams_with_usage_only_where_it_is_asked_for(self, client: openai.OpenAI, usage: bool) -> None:
        options: Any = {"stream_options": {"include_usage": True}} if usage else {}
        chunks = list(
            client.chat.completions.create(model="chat", messages=ask("a b c"), stream=True, **options)
        )
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "a b c"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert (chunks[-1].usage is not None) is usage

    @pytest.mark.parametrize("stream", [True, False])
    def test_calls_tools(self, client: openai.OpenAI, stream: bool) -> None:
        if stream:
            with client.chat.completions.stream(
                model="chat", messages=ask("How is Paris?"), tools=[TOOL]
            ) as events:
                answer: Any = events.get_final_completion()
        else:
            answer = client.chat.completions.create(model="chat", messages=ask("How is Paris?"), tools=[TOOL])
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})
        assert answer.choices[0].finish_reason == "tool_calls"

    def test_completes_texts(self, client: openai.OpenAI) -> None:
        assert client.completions.create(model="chat", prompt="one two").choices[0].text == "one two"
        parts = client.completions.create(model="chat", prompt="one two", stream=True)
        assert "".join(part.choices[0].text for part in parts if part.choices) == "one two"

    async def test_the_asynchronous_client_streams_too(self, service: Service) -> None:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key=service.key) as client:
            stream = await client.chat.completions.create(model="chat", messages=ask("a b"), stream=True)
            text = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(text) == "a b"

    def test_a_base_url_without_v1_does_as_well(self, service: Service) -> None:
        with openai.OpenAI(base_url=service.url, api_key=service.key) as client:
            assert client.chat.completions.create(model="chat", messages=ask("a")).choices
            assert client.models.list().data


class TestResponses:
    @pytest.mark.parametrize("model", ["chat", "plain"])
    def test_answers_and_streams(self, client: openai.OpenAI, model: str) -> None:
        answer = client.responses.create(model=model, input="one two", instructions="Be brief.")
        assert answer.output_text == "one two"
        with client.responses.stream(model=model, input=ask("one two")) as events:
            assert events.get_final_response().output_text == "one two"

    def test_are_kept_read_again_gone_on_with_and_deleted(self, client: openai.OpenAI) -> None:
        made = client.responses.create(model="chat", input="one two")
        assert client.responses.retrieve(made.id).output_text == "one two"
        (item,) = client.responses.input_items.list(made.id, order="asc", limit=20)
        assert item.type == "message"
        after = client.responses.create(model="chat", input="three", previous_response_id=made.id)
        assert after.previous_response_id == made.id
        with pytest.raises(openai.BadRequestError, match="background"):
            client.responses.cancel(made.id)
        client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError, match="not found"):  # the upstream's own words
            client.responses.retrieve(made.id)

    @pytest.mark.parametrize("model", ["chat", "plain"])
    def test_that_nobody_keeps_are_not_found(self, client: openai.OpenAI, model: str) -> None:
        made = client.responses.create(model=model, input="one", store=False)
        for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
            with pytest.raises(openai.NotFoundError) as caught:
                call(made.id)
            assert (caught.value.type, caught.value.param) == ("invalid_request_error", "response_id")
        with pytest.raises(openai.NotFoundError):
            list(client.responses.input_items.list("resp_none"))
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="chat", input="x", previous_response_id=made.id)
        assert refused.value.code == "previous_response_not_found"

    def test_calls_functions_where_they_are_translated(self, client: openai.OpenAI) -> None:
        tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
        with client.responses.stream(model="plain", input="How is Paris?", tools=[tool]) as events:
            (call,) = events.get_final_response().output
        assert call.type == "function_call"
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Paris"})
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
        said: Any = call.model_dump(exclude_none=True, exclude={"parsed_arguments"})
        answer = client.responses.create(model="plain", input=[*ask("How?"), said, result], tools=[tool])
        assert answer.output_text == "sun"


class TestOthers:
    @pytest.mark.parametrize("encoding", ["float", "base64", None])
    def test_embeds(self, client: openai.OpenAI, encoding: Any) -> None:
        options = {"encoding_format": encoding} if encoding else {}
        made = client.embeddings.create(model="org/embed", input=["ab", "abc"], **options)
        vectors: list[Any] = [item.embedding for item in made.data]
        if encoding == "base64":
            assert all(isinstance(vector, str) for vector in vectors)
        else:
            assert vectors == [[2.0, 0.5], [3.0, 0.5]]

    def test_moderates(self, client: openai.OpenAI) -> None:
        assert client.moderations.create(model="judge", input="a bad word").results[0].flagged

    def test_makes_changes_and_varies_images(self, client: openai.OpenAI) -> None:
        made = client.images.generate(model="paint", prompt="a stone", n=2)
        assert len(made.data or ()) == 2
        picture = ("a.png", io.BytesIO(b"\x89PNG..."), "image/png")
        assert client.images.edit(model="paint", image=picture, prompt="grey").data
        assert client.images.create_variation(model="paint", image=picture).data

    def test_speaks_and_hears(self, client: openai.OpenAI) -> None:
        with client.audio.speech.with_streaming_response.create(
            model="voice", input="hello", voice="alloy"
        ) as answer:
            assert b"".join(answer.iter_bytes()) == b"hello" * 1000
        recording = ("a.mp3", io.BytesIO(b"x" * 5000))
        assert "bytes" in client.audio.transcriptions.create(model="voice", file=recording).text
        assert "bytes" in client.audio.translations.create(model="voice", file=recording).text

    def test_lists_and_describes_models_also_with_a_slash(self, client: openai.OpenAI) -> None:
        assert "org/embed" in [model.id for model in client.models.list()]
        assert client.models.retrieve("org/embed").id == "org/embed"

    def test_hands_in_a_batch_and_reads_its_answers(self, client: openai.OpenAI) -> None:
        lines = [
            {
                "custom_id": f"c{n}",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"model": "org/embed", "input": "x" * n},
            }
            for n in range(1, 4)
        ]
        data = "\n".join(map(json.dumps, lines)).encode()
        file = client.files.create(file=("in.jsonl", data), purpose="batch")
        assert client.files.wait_for_processing(file.id).status == "processed"
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
        )
        deadline = time.monotonic() + 30
        while (batch := client.batches.retrieve(batch.id)).status != "completed":
            assert time.monotonic() < deadline, batch
            time.sleep(0.05)
        assert batch.id in [found.id for found in client.batches.list()]
        text = client.files.content(batch.output_file_id or "").text
        answers = {a["custom_id"]: a["response"]["body"] for a in map(json.loads, text.splitlines())}
        assert {name: a["data"][0]["embedding"][0] for name, a in answers.items()} == {
            "c1": 1.0,
            "c2": 2.0,
            "c3": 3.0,
        }
        assert client.files.delete(file.id).deleted

    def test_predicts_in_a_batch(self, client: openai.OpenAI) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.5]}
        url: Any = "/v2/models/double/infer"
        line = {"custom_id": "a", "method": "POST", "url": url, "body": {"inputs": [tensor]}}
        file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h")
        deadline = time.monotonic() + 30
        while (batch := client.batches.retrieve(batch.id)).status != "completed":
            assert time.monotonic() < deadline, batch
            time.sleep(0.05)
        (answer,) = map(json.loads, client.files.content(batch.output_file_id or "").text.splitlines())
        assert answer["response"]["body"]["outputs"][0]["data"] == [2.0, 5.0]


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, openai.BadRequestError),
            (401, openai.AuthenticationError),
            (403, openai.PermissionDeniedError),
            (404, openai.NotFoundError),
            (409, openai.ConflictError),
            (422, openai.UnprocessableEntityError),
            (429, openai.RateLimitError),
            (500, openai.InternalServerError),
            (503, openai.InternalServerError),
        ],
    )
    def test_an_upstreams_errors_come_as_the_clients_own_classes_unchanged(
        self, client: openai.OpenAI, status: int, kind: type[openai.APIStatusError]
    ) -> None:
        with pytest.raises(kind, match=f"scripted {status}") as caught:
            client.chat.completions.create(model="chat", messages=ask(f"fail {status}"))
        assert (caught.value.code, caught.value.type) == ("scripted", "scripted")
        assert caught.value.request_id

    def test_the_gateways_own_errors_too(self, service: Service, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="nobody", messages=ask("hi"))
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="chat", messages=[])
        with (
            openai.OpenAI(base_url=f"{service.url}/v1", api_key="tl_wrong") as stranger,
            pytest.raises(openai.AuthenticationError) as unknown,
        ):
            stranger.models.list()
        assert unknown.value.code == "invalid_api_key"

    def test_a_retry_of_the_clients_own_gets_through(self, client: openai.OpenAI) -> None:
        again = client.with_options(max_retries=2)
        answer = again.chat.completions.create(model="chat", messages=ask("flaky in openai"))
        assert answer.choices[0].message.content == "flaky in openai"

    def test_a_client_that_does_not_wait_gets_a_timeout(self, client: openai.OpenAI) -> None:
        """Its own, or the gateway's, which it has told how long it waits: whichever clock is first."""
        with pytest.raises((openai.APITimeoutError, openai.InternalServerError)) as told:
            client.with_options(timeout=0.5).chat.completions.create(model="chat", messages=ask("slow"))
        if isinstance(told.value, openai.InternalServerError):
            assert (told.value.status_code, told.value.code) == (504, "timeout")

    def test_raw_answers_carry_the_headers_that_clients_read(self, client: openai.OpenAI) -> None:
        raw = client.chat.completions.with_raw_response.create(model="chat", messages=ask("a"))
        assert raw.headers["openai-version"] == "2020-10-01"
        assert raw.headers["x-request-id"] == raw.request_id
        assert int(raw.headers["openai-processing-ms"]) >= 0
