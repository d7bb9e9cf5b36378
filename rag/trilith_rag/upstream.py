"""A `rag` model as an upstream: retrieves, asks the generator, and answers with citations."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from opentelemetry.trace import Span, SpanKind, Tracer

from trilith.errors import APIConnectionError
from trilith.seams import Call, Reply, Shield, Upstream
from trilith.telemetry import names, span
from trilith.types import Hit, Message
from trilith_rag.answer import DONE, ProcessReply, event, refusal, whole
from trilith_rag.attribution import Attributor
from trilith_rag.marker import Markers
from trilith_rag.prompt import Prompt, build_prompt
from trilith_rag.retriever import Retriever
from trilith_rag.wording import sentences

RELEVANT = 0.25
"""Cosine similarity below which no passage is taken to speak of the question."""

NO_ANSWER = "I don't know: the documents do not seem to speak of this."

_OWN_FIELDS = frozenset({"model", "messages", "stream", "stream_options", "n"}) | {
    # who asks, and what repeats the question: the generator needs none of them
    "user",
    "safety_identifier",
    "metadata",
    "prediction",
    "documents",
    "prompt_cache_key",
}
"""Fields that do not go on to the generator as they came."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request, read."""

    question: str
    history: list[Message]
    streamed: bool
    body: dict[str, Any]


class RagUpstream:
    """Answers chats from an index.

    The last message is the question; earlier ones are history. Retrieval gets the words as the caller wrote
    them; what goes on to the generator passes the call's shield.
    """

    def __init__(
        self,
        model: str,
        retriever: Retriever,
        generator: Upstream,
        generator_model: str,
        *,
        top_k: int,
        max_output_tokens: int,
        provider_name: str,
        place: str = "",
        tracer: Tracer | None = None,
    ) -> None:
        self._model = model
        self._retriever = retriever
        self._generator = generator
        self._generator_model = generator_model
        self._top_k = top_k
        self._max_output_tokens = max_output_tokens
        self._provider = provider_name
        self._place = place
        self._tracer = tracer

    async def send(self, call: Call) -> Reply:
        """Answer one chat."""
        asked = _read(json.loads(call.body))
        if isinstance(asked, str):
            return refusal(asked, param="messages")
        hits = await asyncio.to_thread(self._retriever.retrieve, asked.question, self._top_k)
        relevant = [hit for hit in hits if hit.similarity >= RELEVANT]
        if not relevant:
            return self._no_answer(asked)
        prompt, attributor = await asyncio.to_thread(_prepare, asked, relevant, call.shield)
        attributes = {
            names.OPERATION: "chat",
            names.PROVIDER: self._provider,
            names.REQUEST_MODEL: self._generator_model,
        }
        with span(
            "chat", self._generator_model, attributes, kind=SpanKind.CLIENT, using=self._tracer
        ) as current:
            body = self._request(asked, prompt)
            reply = await self._generator.send(
                Call(
                    "/v1/chat/completions",
                    json.dumps(body).encode(),
                    call.headers,
                    call.timeout_s,
                    affinity="|".join(hit.chunk.id for hit in relevant).encode(),
                    tried=call.tried,
                    trail=call.trail,
                )
            )
            if reply.status >= 400:
                return reply
            if not asked.streamed:
                made = await self._whole(reply, prompt, attributor, current)
            else:
                streamed = self._stream(reply, prompt, attributor)
                made = ProcessReply(200, streamed, "text/event-stream", reply.aclose)
        made.upstream = getattr(reply, "upstream", "") or self._place
        return made

    async def ready(self) -> bool:
        """Say whether the generator is."""
        return await self._generator.ready()

    def version(self) -> str | None:
        """Name the documents that a question would be answered from."""
        return self._retriever.version()

    async def aclose(self) -> None:
        """Close the index; the generator belongs to its own model."""
        await asyncio.to_thread(self._retriever.close)

    def _request(self, asked: _Asked, prompt: Prompt) -> dict[str, Any]:
        # Facts from sources want the likeliest words, unless the caller says otherwise.
        passed = {"temperature": 0, **{n: v for n, v in asked.body.items() if n not in _OWN_FIELDS}}
        if passed.get("max_tokens") is None and passed.get("max_completion_tokens") is None:
            passed["max_tokens"] = self._max_output_tokens
        request = {**passed, "model": self._generator_model, "messages": prompt.messages}
        if asked.streamed:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        return request

    async def _whole(
        self, reply: Reply, prompt: Prompt, attributor: Attributor, current: Span
    ) -> ProcessReply:
        try:
            body = json.loads(b"".join([chunk async for chunk in reply.chunks()]))
        finally:
            await reply.aclose()
        usage = body.get("usage") or {}
        current.set_attributes(
            {
                names.INPUT_TOKENS: usage.get("prompt_tokens", 0),
                names.OUTPUT_TOKENS: usage.get("completion_tokens", 0),
            }
        )
        for choice in body["choices"]:
            message = choice["message"]
            markers = Markers(len(prompt.sources))
            text = markers.feed(message.get("content") or "") + markers.rest()
            added = attributor.attribute(text, markers.number, markers.ordered)
            message["content"] = _marked(text, added)
            message["citations"] = [asdict(c) for c in attributor.citations(markers.ordered)]
        return whole({**body, "model": self._model})

    async def _stream(self, reply: Reply, prompt: Prompt, attributor: Attributor) -> AsyncIterator[bytes]:
        """Pass text on as it comes; its last chunk carries the missing markers and the citations."""
        markers, text, ended, buffer = Markers(len(prompt.sources)), "", False, b""
        async for chunk in reply.chunks():
            *events, buffer = (buffer + chunk).split(b"\n\n")
            for raw in events:
                payload = raw.removeprefix(b"data:").strip()
                if payload == b"[DONE]":
                    ended = True
                    continue
                if not payload.startswith(b"{"):
                    continue
                value = {**json.loads(payload), "model": self._model}
                for choice in value.get("choices") or ():
                    shown = markers.feed(choice["delta"].get("content") or "")
                    if choice.get("finish_reason") is not None:
                        shown += markers.rest()
                        text += shown
                        added = attributor.attribute(text, markers.number, markers.ordered)
                        trailing = "".join(f"[{n}]" for n in dict.fromkeys(filter(None, added)))
                        shown += f" {trailing}" if trailing else ""
                        choice["delta"]["citations"] = [
                            asdict(c) for c in attributor.citations(markers.ordered)
                        ]
                    else:
                        text += shown
                    choice["delta"]["content"] = shown
                yield event(value)
        if not ended:
            raise APIConnectionError("the generator ended its stream without [DONE]")
        yield DONE

    def _no_answer(self, asked: _Asked) -> ProcessReply:
        head = {"id": "rag-none", "created": int(time.time()), "model": self._model}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        if not asked.streamed:
            message = {"role": "assistant", "content": NO_ANSWER, "citations": []}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return whole({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

        async def parts() -> AsyncIterator[bytes]:
            delta = {"role": "assistant", "content": NO_ANSWER, "citations": []}
            first = {**head, "object": "chat.completion.chunk"}
            yield event({**first, "choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]})
            yield event({**first, "choices": [], "usage": usage})
            yield DONE

        return ProcessReply(200, parts(), "text/event-stream")


def _read(body: dict[str, Any]) -> _Asked | str:
    """Return the request, or what is wrong with it."""
    turns = [(str(m.get("role")), _text(m.get("content"))) for m in body.get("messages", ())]
    if not turns or turns[-1][0] != "user" or not turns[-1][1].strip():
        return "The last message is expected to be the user's question, as text."
    history = [Message(role, text) for role, text in turns[:-1] if role in ("user", "assistant") and text]
    return _Asked(turns[-1][1], history, body.get("stream") is True, body)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _prepare(asked: _Asked, hits: list[Hit], shield: Shield | None) -> tuple[Prompt, Attributor]:
    """Lay out the prompt; masking may search for names, so this runs in a thread."""
    mask = shield.mask if shield is not None else _same
    known = shield.mask_known if shield is not None else _same
    question = mask(asked.question)
    history = [Message(turn.role, mask(turn.content)) for turn in asked.history]
    prompt = build_prompt(question, history, hits, masked=known)
    return prompt, Attributor(prompt.sources, question, known)


def _same(text: str) -> str:
    return text


def _marked(text: str, numbers: list[int]) -> str:
    """Set each sentence's number behind it."""
    parts, at = [], 0
    for place, number in zip(sentences(text), numbers, strict=True):
        parts += [text[at : place.end], f" [{number}]" if number else ""]
        at = place.end
    return "".join((*parts, text[at:]))
