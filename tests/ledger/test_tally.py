"""What a stream said is estimated from what passed, however the network cut it."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest

from trilith_gateway.usage import Tally


def message_events(*pieces: str) -> list[bytes]:
    values: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "content": [], "usage": {"input_tokens": 123}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces
        ),
    ]
    return [f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values]


def chunk(text: str) -> bytes:
    value = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": text}}]}
    return f"data: {json.dumps(value)}\n\n".encode()


def counted(events: list[bytes], cuts: tuple[int, ...]) -> int:
    tally = Tally()
    for start, end in itertools.pairwise((0, *cuts, len(events))):
        tally.add(b"".join(events[start:end]))
    return tally.tokens()


def test_events_of_other_lengths_do_not_count_as_words_wherever_the_stream_is_cut() -> None:
    events = message_events("hel", "lo")
    inner = range(1, len(events))
    found = {counted(events, cuts) for n in range(len(events)) for cuts in itertools.combinations(inner, n)}
    assert min(found) >= 2  # two pieces were said
    assert max(found) <= 5  # and three events have no word


@pytest.mark.parametrize("seed", range(20))
def test_a_long_stream_is_never_estimated_below_its_events_nor_far_above_its_text(seed: int) -> None:
    rng = random.Random(seed)
    said = ["word" * rng.randint(1, 3) for _ in range(1000)]
    events = [chunk(""), *map(chunk, said)]
    cuts = tuple(sorted(rng.sample(range(1, len(events)), rng.randint(0, 500))))
    found = counted(events, cuts)
    assert max(len(said), sum(map(len, said)) // 3) <= found <= 1.05 * sum(map(len, said)) / 3 + 10


def test_a_stream_of_events_without_a_word_counts_each_as_one() -> None:
    tally = Tally()
    for _ in range(100):
        tally.add(b'data: {"odd": {"thing": "nobody knows"}}\n\n')
    assert tally.tokens() == pytest.approx(100, abs=2)
