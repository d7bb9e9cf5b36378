"""Cutting bytes into events, however they arrive."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trilith import APIConnectionError, APIStatusError, BadRequestError, InternalServerError
from trilith.client.sse import EventDecoder, EventReader

RECORDED = (Path(__file__).parent / "recorded" / "vllm_stream.sse").read_bytes()
SAID = "naïve café 5 € 😀"


def read(*chunks: bytes) -> list[Any]:
    reader = EventReader(lambda value, _: value, "req_1")
    found = [item for chunk in chunks for item in reader.feed(chunk)]
    reader.end()
    return found


def said(events: list[Any]) -> str:
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events if event["choices"])


def data(*chunks: bytes) -> list[str]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def test_a_recorded_stream_reads_alike_wherever_it_is_cut() -> None:
    whole = read(RECORDED)
    assert said(whole) == SAID
    assert all(read(RECORDED[:at], RECORDED[at:]) == whole for at in range(len(RECORDED)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_recorded_stream_reads_alike_in_small_pieces_and_with_any_line_end(size: int, end: bytes) -> None:
    stream = RECORDED.replace(b"\n", end)
    cuts = [*range(0, len(stream), size), len(stream)]
    assert said(read(*(stream[a:b] for a, b in pairwise(cuts)))) == SAID


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),  # only one space belongs to the format
        (b": keep-alive\n\ndata: a\n\n: x\n\n", ["a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data\n\n", [""]),
        (b"event: message\nid: 3\nretry: 5\ndata: a\n\n", ["a"]),
        (b"dataset: a\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"\n\n\ndata: a\n\n", ["a"]),
        (b"data: a\n", []),  # not complete
        ("data: a\u2028b\x85c\n\n".encode(), ["a\u2028b\x85c"]),  # line ends to str.splitlines, not here
    ],
)
def test_events_are_cut_as_the_standard_says(stream: bytes, events: list[str]) -> None:
    assert data(stream) == events
    assert data(*(stream[at : at + 1] for at in range(len(stream)))) == events


def test_done_without_its_blank_line_is_done() -> None:
    assert read(b'data: {"a": 1}\n\n', b"data: [DONE]") == [{"a": 1}]


def test_what_comes_after_done_is_ignored() -> None:
    assert read(b"data: [DONE]\n\ndata: nonsense\n\n", b"data: nonsense\n\n") == []


@pytest.mark.parametrize("stream", [b"", b'data: {"a": 1}\n\n', b'data: {"a": 1}', b": only a comment\n\n"])
def test_a_stream_without_done_is_not_complete(stream: bytes) -> None:
    with pytest.raises(APIConnectionError, match=r"without \[DONE\]") as caught:
        read(stream)
    assert caught.value.request_id == "req_1"


def test_an_event_that_is_no_json_is_not_quoted() -> None:
    with pytest.raises(APIConnectionError) as caught:
        read(b"data: my secret\n\n")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("event", "kind", "status"),
    [
        (b'{"error": {"message": "gone", "type": "server_error", "code": "upstream_error"}}', None, 500),
        (b'{"error": {"message": "gone", "code": 400}}', BadRequestError, 400),  # vLLM
        (b'{"error": {"message": "gone", "code": "502"}}', None, 502),
        (b'{"error": "gone"}', None, 500),
    ],
)
def test_an_error_within_a_stream_is_raised_after_what_came_before(
    event: bytes, kind: type[APIStatusError] | None, status: int
) -> None:
    reader = EventReader(lambda value, _: value, "req_1")
    items = reader.feed(b'data: {"a": 1}\n\ndata: ' + event + b"\n\n")
    assert next(items) == {"a": 1}
    with pytest.raises(kind or InternalServerError, match="gone") as caught:
        next(items)
    assert (caught.value.status_code, caught.value.request_id) == (status, "req_1")


def test_a_null_error_is_none() -> None:
    assert read(b'data: {"error": null, "choices": []}\n\ndata: [DONE]\n\n') == [
        {"error": None, "choices": []}
    ]
