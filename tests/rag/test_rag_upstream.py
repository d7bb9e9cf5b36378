"""A `rag` model on the twins: what the generator is sent, and what the caller gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rag_words import chunk

from trilith.seams import Call, Embedder
from trilith.testing import MemoryIndex, MemoryUpstream
from trilith_rag import EmbeddingUpstream, RagUpstream, Retriever
from trilith_rag.upstream import NO_ANSWER

SEA = chunk("sea", "The sea is salty because rivers carry salt. Ships sail it.", start=100)
CAT = chunk("cat", "A cat purrs when it is content.")


class Shield:
    """Hides one name."""

    def mask(self, text: str) -> str:
        return text.replace("Ada", "<PERSON_1>")

    mask_known = mask

    def restore(self, text: str) -> str:
        return text.replace("<PERSON_1>", "Ada")


def rag(embedder: Embedder, generator: MemoryUpstream, **options: Any) -> RagUpstream:
    index = MemoryIndex(dimension=embedder.dimension)
    index.upsert([SEA, CAT], embedder.embed([SEA.text, CAT.text]))
    retriever = Retriever("docs", index, embedder)
    return RagUpstream(
        "library",
        retriever,
        generator,
        "tiny",
        top_k=2,
        max_output_tokens=32,
        provider_name="vllm",
        **options,
    )


def call(question: str, **fields: Any) -> Call:
    body = {"model": "library", "messages": [{"role": "user", "content": question}], **fields}
    return Call("/v1/chat/completions", json.dumps(body).encode())


async def whole(upstream: RagUpstream, asked: Call) -> dict[str, Any]:
    reply = await upstream.send(asked)
    answer: dict[str, Any] = json.loads(b"".join([part async for part in reply.chunks()]))
    return answer


async def test_a_sentence_gets_the_number_of_the_source_that_holds_its_words(embedder: Embedder) -> None:
    answer = await whole(rag(embedder, MemoryUpstream("Rivers carry salt.")), call("why is the sea salty"))
    message = answer["choices"][0]["message"]
    (citation,) = message["citations"]
    assert message["content"] == "Rivers carry salt. [1]"
    assert (citation["path"], citation["supported"]) == ("sea.txt", True)
    assert SEA.text[citation["start"] - 100 : citation["end"] - 100] == citation["quote"]


async def test_a_marker_that_names_no_source_is_dropped(embedder: Embedder) -> None:
    answer = await whole(
        rag(embedder, MemoryUpstream("Rivers carry salt [7].")), call("why is the sea salty")
    )
    assert "[7]" not in answer["choices"][0]["message"]["content"]


async def test_an_invented_sentence_is_marked_as_unsupported(embedder: Embedder) -> None:
    said = MemoryUpstream("Neptune personally seasoned every ocean with salt.")
    answer = await whole(rag(embedder, said), call("why is the sea salty"))
    assert not any(citation["supported"] for citation in answer["choices"][0]["message"]["citations"])


async def test_a_stream_ends_with_its_citations_before_usage_and_done(embedder: Embedder) -> None:
    upstream = rag(embedder, MemoryUpstream("Rivers carry salt.", chunks=9))
    reply = await upstream.send(call("why is the sea salty", stream=True))
    lines = b"".join([part async for part in reply.chunks()]).decode().split("\n\n")
    events = [line.removeprefix("data: ") for line in lines if line]
    chunks = [json.loads(event) for event in events[:-1]]
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    assert events[-1] == "[DONE]"
    assert "".join(delta.get("content") or "" for delta in deltas) == "Rivers carry salt. [1]"
    assert deltas[-1]["citations"][0]["path"] == "sea.txt"
    assert chunks[-1]["usage"]["completion_tokens"] == 3


async def test_a_question_that_nothing_speaks_of_is_not_sent_on(embedder: Embedder) -> None:
    generator = MemoryUpstream("whatever")
    answer = await whole(rag(embedder, generator), call("quantum chromodynamics lattice"))
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": NO_ANSWER, "citations": []}
    assert generator.calls == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_names_who_generated_it_where_anybody_did(embedder: Embedder, stream: bool) -> None:
    upstream = rag(embedder, MemoryUpstream("Rivers carry salt."), place="http://gpu/v1")
    reply: Any = await upstream.send(call("why is the sea salty", stream=stream))
    assert reply.upstream == "http://gpu/v1"
    await reply.aclose()
    nobody: Any = await upstream.send(call("quantum chromodynamics lattice", stream=stream))
    assert nobody.upstream == ""


async def test_what_goes_on_to_the_generator_passes_the_shield(embedder: Embedder) -> None:
    generator = MemoryUpstream("Rivers carry salt.")
    asked = call("I am Ada. Why is the sea salty?")
    await whole(rag(embedder, generator), Call(asked.path, asked.body, shield=Shield()))
    sent = generator.calls[0].body.decode()
    assert "Ada" not in sent
    assert "<PERSON_1>" in sent


async def test_the_caller_s_parameters_are_kept_and_the_rest_is_set(embedder: Embedder) -> None:
    generator = MemoryUpstream("Rivers carry salt.")
    await whole(rag(embedder, generator), call("why is the sea salty", temperature=0.7, seed=5))
    sent = json.loads(generator.calls[0].body)
    assert (sent["model"], sent["temperature"], sent["seed"], sent["max_tokens"]) == ("tiny", 0.7, 5, 32)


async def test_giving_a_stream_up_aborts_the_generator(embedder: Embedder) -> None:
    generator = MemoryUpstream("Rivers carry salt. " * 50)
    reply = await rag(embedder, generator).send(call("why is the sea salty", stream=True))
    await anext(aiter(reply.chunks()))
    await reply.aclose()
    assert generator.aborted == 1


async def test_a_conversation_that_does_not_end_with_a_question_is_refused(embedder: Embedder) -> None:
    body = {"messages": [{"role": "assistant", "content": "hello"}]}
    reply = await rag(embedder, MemoryUpstream()).send(
        Call("/v1/chat/completions", json.dumps(body).encode())
    )
    assert reply.status == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [[1, 2]]}, "input"),
        ({"dimensions": 8}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
async def test_embeddings_refuse_what_they_cannot_do(
    embedder: Embedder, fields: dict[str, Any], param: str
) -> None:
    body = json.dumps({"input": "a text", **fields}).encode()
    reply = await EmbeddingUpstream(embedder, "words").send(Call("/v1/embeddings", body))
    error = json.loads(b"".join([part async for part in reply.chunks()]))["error"]
    assert (reply.status, error["param"]) == (400, param)
