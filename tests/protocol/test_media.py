"""Images, audio, moderation and rerank: passed through, counted, priced, protected."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gateway import Gateway, StartGateway

from trilith.errors import APIConnectionError, BadRequestError
from trilith.seams import Call
from trilith.testing import MemoryUpstream
from trilith.testing.upstream import MemoryReply
from trilith_gateway import focus, media, multipart
from trilith_gateway.commands import costs

KINDS: dict[str, dict[str, Any]] = {
    "paint": {"kind": "image", "price": {"usd_per_image": "0.04"}},
    "voice": {"kind": "audio", "price": {"usd_per_audio_s": "0.0001", "usd_per_mchar": "15"}},
    "judge": {"kind": "moderation", "price": {"usd_per_request": "0.001"}},
    "order": {"kind": "rerank", "price": {"input_usd_per_mtok": "1"}},
}
PIXEL = bytes.fromhex("89504e470d0a1a0a") + b"not really\r\n--x\r\n a picture"


class Media(MemoryUpstream):
    """Answers with what it was made with, and keeps the calls."""

    def __init__(self, answer: object = b"", content_type: str = "application/json") -> None:
        super().__init__()
        self.parts = [answer if isinstance(answer, bytes) else json.dumps(answer).encode()]
        self.content_type = content_type
        self.breaks = False

    async def send(self, call: Call) -> MemoryReply:
        self.calls.append(call)
        return MemoryReply(200, self._parts(), content_type=self.content_type)

    async def _parts(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part
        if self.breaks:
            raise APIConnectionError("scripted break")


def serve(start_gateway: StartGateway, answering: Media, name: str, **more: Any) -> Gateway:
    return start_gateway({name: answering}, **{name: KINDS[name] | more})


Connect = Callable[[Gateway], openai.OpenAI]


@pytest.fixture
def client() -> Iterator[Connect]:
    """Make OpenAI's own client for a gateway."""
    with ExitStack() as stack:
        yield lambda gateway: stack.enter_context(
            openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=0)
        )


def recording(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(b"\0\0" * int(8000 * seconds))
    return file.getvalue()


class TestImages:
    def test_images_are_charged_by_how_many_were_made(
        self, start_gateway: StartGateway, client: Connect
    ) -> None:
        upstream = Media({"created": 1, "data": [{"b64_json": "aGk="}, {"b64_json": "aGk="}]})
        gateway = serve(start_gateway, upstream, "paint")
        made = client(gateway).images.generate(model="paint", prompt="a stone", n=2, size="1024x1024")
        assert made.data is not None
        assert len(made.data) == 2
        (row,) = gateway.ledger()
        assert (row["rule"], row["kind"], row["images"], row["amount_pico_usd"]) == (
            "usage",
            "image",
            2,
            80_000_000_000,
        )
        assert json.loads(upstream.calls[0].body)["size"] == "1024x1024"

    def test_an_edit_goes_on_byte_for_byte_but_for_the_models_name(
        self, start_gateway: StartGateway, client: Connect
    ) -> None:
        upstream = Media({"created": 1, "data": [{"b64_json": "aGk="}]})
        gateway = serve(
            start_gateway, upstream, "paint", upstream={"url": "http://127.0.0.1:9/v1", "model": "theirs"}
        )
        client(gateway).images.edit(model="paint", image=("a.png", PIXEL), prompt="a stone, grey")
        (call,) = upstream.calls
        fields = multipart.read(call.body, call.headers)
        assert (call.path, fields["model"], fields["prompt"]) == (
            "/v1/images/edits",
            "theirs",
            "a stone, grey",
        )
        start, end = fields["image"]
        assert call.body[start:end] == PIXEL

    def test_a_prompt_is_masked_and_a_picture_refused_under_a_policy(
        self, start_gateway: StartGateway, client: Connect
    ) -> None:
        upstream = Media(
            {"created": 1, "data": [{"b64_json": "aGk=", "revised_prompt": "<PERSON_1> at sea"}]}
        )
        gateway = serve(start_gateway, upstream, "paint", policy="private")
        made = client(gateway).images.generate(model="paint", prompt="Ada Lovelace at sea")
        assert made.data is not None
        assert made.data[0].revised_prompt == "Ada Lovelace at sea"
        assert b"Lovelace" not in upstream.calls[0].body
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client(gateway).images.create_variation(model="paint", image=("a.png", PIXEL))
        assert caught.value.code == "policy_unsupported"
        assert len(upstream.calls) == 1

    def test_a_stream_of_images_is_passed_and_counted(
        self, start_gateway: StartGateway, client: Connect
    ) -> None:
        usage = {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16}
        events: list[dict[str, Any]] = [
            {"type": "image_generation.partial_image", "b64_json": "aGk=", "partial_image_index": 0},
            {"type": "image_generation.completed", "b64_json": "aGk=", "usage": usage},
        ]
        upstream = Media(content_type="text/event-stream")
        upstream.parts = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events]
        gateway = serve(start_gateway, upstream, "paint")
        got = list(client(gateway).images.generate(model="paint", prompt="a stone", stream=True))
        assert [event.type for event in got] == [event["type"] for event in events]
        (row,) = gateway.ledger()
        assert (row["rule"], row["images"], row["input_tokens"], row["output_tokens"]) == ("usage", 1, 7, 9)


class TestAudio:
    def test_speech_is_passed_on_as_it_comes_and_charged_by_the_character(
        self, start_gateway: StartGateway, client: Connect
    ) -> None:
        upstream = Media(content_type="audio/mpeg")
        upstream.parts = [bytes([n]) * 5000 for n in range(8)]
        gateway = serve(start_gateway, upstream, "voice")
        speech = client(gateway).audio.speech
        with speech.with_streaming_response.create(model="voice", input="häy", voice="alloy") as answer:
            assert answer.headers["content-type"] == "audio/mpeg"
            assert b"".join(answer.iter_bytes()) == b"".join(upstream.parts)
        (row,) = gateway.ledger()
        assert (row["rule"], row["characters"], row["amount_pico_usd"]) == ("request", 3, 45_000_000)

    def test_speech_that_breaks_off_breaks_the_connection(
        self, start_gateway: StartGateway, client: Connect
    ) -> None:
        upstream = Media(content_type="audio/mpeg")
        upstream.parts, upstream.breaks = [b"x" * 100], True
        gateway = serve(start_gateway, upstream, "voice")
        with pytest.raises(openai.APIConnectionError):
            client(gateway).audio.speech.create(model="voice", input="hey", voice="alloy")
        (row,) = gateway.ledger()
        assert (row["rule"], row["characters"], row["amount_pico_usd"]) == ("broken", 3, 45_000_000)

    def test_personal_data_is_not_spoken(self, start_gateway: StartGateway, client: Connect) -> None:
        upstream = Media(b"sound", "audio/mpeg")
        gateway = serve(start_gateway, upstream, "voice", policy="private")
        assert client(gateway).audio.speech.create(model="voice", input="hey", voice="x").content == b"sound"
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client(gateway).audio.speech.create(model="voice", input="Ada Lovelace", voice="x")
        assert caught.value.code == "policy_unsupported"
        assert len(upstream.calls) == 1

    @pytest.mark.parametrize(
        ("answer", "rule", "seconds"),
        [
            ({"text": "hi", "usage": {"type": "duration", "seconds": 2.2}}, "usage", 3),
            ({"text": "hi", "duration": "4.0"}, "usage", 4),
            ({"text": "hi"}, "request", 2),
            (b"1\n00:00:00,000 --> 00:00:01,000\nhi\n", "request", 2),
        ],
        ids=["told", "verbose", "silent", "subtitles"],
    )
    def test_a_recording_is_charged_by_the_second(
        self, start_gateway: StartGateway, client: Connect, answer: object, rule: str, seconds: int
    ) -> None:
        upstream = Media(answer, "text/plain" if isinstance(answer, bytes) else "application/json")
        gateway = serve(start_gateway, upstream, "voice")
        file = ("a.wav", recording(1.5))
        if isinstance(answer, bytes):
            shown = client(gateway).audio.transcriptions.create(
                model="voice", file=file, response_format="srt"
            )
            assert shown == answer.decode()
        else:
            assert client(gateway).audio.transcriptions.create(model="voice", file=file).text == "hi"
        (row,) = gateway.ledger()
        assert (row["rule"], row["seconds"], row["amount_pico_usd"]) == (rule, seconds, seconds * 10**8)
        call = upstream.calls[0]
        start, end = multipart.read(call.body, call.headers)["file"]
        assert call.body[start:end] == file[1]

    def test_a_recording_is_refused_where_a_policy_would_have_to_listen(
        self, start_gateway: StartGateway, client: Connect
    ) -> None:
        upstream = Media({"text": "hi"})
        gateway = serve(start_gateway, upstream, "voice", policy="private")
        with pytest.raises(openai.PermissionDeniedError):
            client(gateway).audio.translations.create(model="voice", file=("a.wav", recording(1)))
        assert not upstream.calls


class TestTexts:
    def test_a_moderation_sees_placeholders_and_costs_its_request(
        self, start_gateway: StartGateway, client: Connect
    ) -> None:
        upstream = Media({"id": "m", "model": "judge", "results": []})
        gateway = serve(start_gateway, upstream, "judge", policy="private")
        client(gateway).moderations.create(model="judge", input=["Ada Lovelace", "hello"])
        assert json.loads(upstream.calls[0].body)["input"] == ["<PERSON_1>", "hello"]
        assert [row["amount_pico_usd"] for row in gateway.ledger()] == [10**9]
        picture: Any = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
        with pytest.raises(openai.PermissionDeniedError):
            client(gateway).moderations.create(model="judge", input=picture)

    @pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
    def test_a_rerank_passes_and_its_documents_come_back_as_they_were(
        self, start_gateway: StartGateway, path: str
    ) -> None:
        found = [{"index": 1, "relevance_score": 0.9, "document": {"text": "<PERSON_1> wrote it"}}]
        upstream = Media({"id": "r", "results": found, "usage": {"total_tokens": 12}})
        gateway = serve(start_gateway, upstream, "order", policy="private")
        ask = {"model": "order", "query": "Who is Ada Lovelace?", "documents": ["a", "Ada Lovelace wrote it"]}
        with gateway.client() as http:
            answer = http.post(path, json=ask).json()
        assert answer["results"][0]["document"]["text"] == "Ada Lovelace wrote it"
        assert b"Lovelace" not in upstream.calls[0].body
        assert upstream.calls[0].path == ("/v2/rerank" if "v2" in path else "/v1/rerank")
        (row,) = gateway.ledger()
        assert (row["rule"], row["input_tokens"], row["amount_pico_usd"]) == ("usage", 12, 12_000_000)


def test_pictures_are_exported_by_the_picture(start_gateway: StartGateway, client: Connect) -> None:
    gateway = serve(start_gateway, Media({"created": 1, "data": [{"b64_json": "aGk="}] * 3}), "paint")
    client(gateway).images.generate(model="paint", prompt="a stone", n=3)
    found = gateway.rows(focus.statement(costs._GROUPS["day"]), (0.0, float("inf")))
    (row,) = focus.rows(found, "acme")
    assert (row["ConsumedQuantity"], row["ConsumedUnit"], row["BilledCost"]) == ("3", "Images", "0.12")


class TestForms:
    @given(
        st.lists(st.tuples(st.sampled_from(["model", "n", "b"]), st.binary(max_size=40)), max_size=5),
        st.text("abc-'", min_size=1, max_size=20),
    )
    def test_what_is_not_changed_stays_byte_for_byte(
        self, fields: list[tuple[str, bytes]], boundary: str
    ) -> None:
        mark = b"\r\n--" + boundary.encode()
        fields = [(name, value) for name, value in fields if mark not in b"\r\n" + value + b"\r\n"]
        raw = form(fields, boundary)
        headers = {"content-type": f'multipart/form-data; boundary="{boundary}"'}
        if [name for name, _ in fields].count("model") > 1:
            with pytest.raises(BadRequestError, match="twice"):
                multipart.splice(raw, headers, {"model": "new"})
            return
        changed = [(name, b"new" if name == "model" else value) for name, value in fields]
        assert multipart.splice(raw, headers, {"model": "new"}) == form(changed, boundary)

    @pytest.mark.parametrize(
        ("raw", "content_type"),
        [
            (b"", "multipart/form-data; boundary=x"),
            (b"--x\r\n", "multipart/form-data; boundary=x"),
            (b"--y\r\n", "multipart/form-data; boundary=x"),
            (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nv', "multipart/form-data; boundary=x"),
            (b"--x\r\nContent-Disposition: form-data\r\n\r\nv\r\n--x--", "multipart/form-data; boundary=x"),
            (b"--x--", "application/json"),
            (b"--x--", "multipart/form-data"),
            (b'--x\r\nname="a"\r\n\r\nv\r\n' * 70 + b"--x--", "multipart/form-data; boundary=x"),
        ],
    )
    def test_a_form_that_cannot_be_read_is_refused(self, raw: bytes, content_type: str) -> None:
        with pytest.raises(BadRequestError):
            multipart.read(raw, {"content-type": content_type})

    def test_a_body_that_is_no_form_is_400_over_the_wire(self, start_gateway: StartGateway) -> None:
        gateway = serve(start_gateway, Media({}), "voice")
        with gateway.client() as http:
            answer = http.post("/v1/audio/transcriptions", json={"model": "voice"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def form(fields: list[tuple[str, bytes]], boundary: str) -> bytes:
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="f"\r\n\r\n%b\r\n'
        % (boundary.encode(), name.encode(), value)
        for name, value in fields
    ]
    return b"".join(parts) + b"--%b--\r\n" % boundary.encode()


@given(st.binary(max_size=600))
def test_a_recordings_length_is_read_from_any_bytes(raw: bytes) -> None:
    found = media._seconds(raw, 0, len(raw))
    assert found is None or found >= 0
