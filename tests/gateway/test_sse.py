from __future__ import annotations

from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from trilith_gateway import sse

STREAM = 'data: {"a":"ü"}\n\n: keep-alive\n\ndata: x\ndata: y\r\n\r\ndata: [DONE]\n\n'.encode()


async def cut(data: bytes, at: list[int]) -> AsyncIterator[bytes]:
    marks = [0, *sorted(at), len(data)]
    for start, end in zip(marks, marks[1:], strict=False):
        yield data[start:end]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
async def test_any_cutting_of_the_bytes_gives_the_same_events(at: list[int]) -> None:
    events = [event async for event in sse.split(cut(STREAM, at))]
    assert b"".join(events) == STREAM
    assert [sse.data(event) for event in events] == ['{"a":"ü"}'.encode(), None, b"x\ny", b"[DONE]"]


async def test_a_last_event_without_its_blank_line_is_not_lost() -> None:
    assert [event async for event in sse.split(cut(b"data: 1", []))] == [b"data: 1"]


def test_only_json_objects_are_decoded() -> None:
    assert sse.decode(sse.encode({"a": 1})) == {"a": 1}
    assert sse.decode(sse.DONE) is None
    assert sse.decode(b"data: {broken\n\n") is None
