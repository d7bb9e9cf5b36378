"""What a caller who leaves in the middle of an answer is charged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from bench.money import Ear
from support.direct import direct
from support.told import DONE, TellingUpstream, event

from trilith_gateway.api import Api

IN, OUT = 1_000_000, 3_000_000  # pico-USD a token, as PRICE says


async def left(
    home: Path, pieces: list[bytes], body: dict[str, Any], hears: int, api: Api, **model: Any
) -> dict[str, Any]:
    """Leave a stream, of an engine if nothing else is said, after some blocks; returns the ledger's row."""
    telling = TellingUpstream([*pieces, DONE])
    described = model or {"upstream": {"engine": "e"}}
    built, exchange = direct(home, telling, {"stream": True, **body}, api=api, **described)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(built.front.run(exchange, Ear(hears)))
    await asyncio.to_thread(built.store.flush)
    with built.store.reading() as connection:
        (row,) = connection.execute("select * from ledger").fetchall()
    await built.aclose()
    return dict(row)


def so_far(index: int, prompt: int, said: int) -> bytes:
    """One chunk as vLLM writes it: the count is that of this choice, and of the prompt that it answers."""
    usage = {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
    choice = {"index": index, "delta": {"content": "x"}, "text": "x", "finish_reason": None}
    return event({"id": "a", "choices": [choice], "usage": usage})


@pytest.mark.parametrize("together", [False, True])
async def test_of_several_choices_what_each_has_said_is_charged(tmp_path: Path, together: bool) -> None:
    pieces = [so_far(0, 9, 1), so_far(1, 9, 2), so_far(0, 9, 3), so_far(2, 9, 1), so_far(1, 9, 5)]
    told = [b"".join(pieces)] if together else pieces
    row = await left(tmp_path, [*told, so_far(0, 9, 4)], {"n": 3}, len(told), Api.CHAT)
    assert (row["rule"], row["estimated"]) == ("aborted", 0)
    assert (row["input_tokens"], row["output_tokens"]) == (9, 3 + 5 + 1)
    assert row["amount_pico_usd"] == 9 * IN + 9 * OUT


async def test_of_several_prompts_each_is_charged_once(tmp_path: Path) -> None:
    pieces = [so_far(0, 4, 1), so_far(1, 4, 1), so_far(2, 7, 2), so_far(3, 7, 1), so_far(0, 4, 2)]
    body = {"prompt": ["a", "b"], "n": 2}
    row = await left(tmp_path, pieces, body, len(pieces), Api.COMPLETION)
    assert (row["input_tokens"], row["output_tokens"]) == (4 + 7, 2 + 1 + 2 + 1)


SPEECH = {"input": "h\u00e4y", "voice": "x"}


async def test_a_text_that_is_being_spoken_is_charged_whole(tmp_path: Path) -> None:
    voice = {"kind": "audio", "upstream": {"url": "http://127.0.0.1:9/v1"}, "price": {"usd_per_mchar": "15"}}
    row = await left(tmp_path, [b"so", b"und"], SPEECH, 1, Api.SPEECH, **voice)
    assert (row["rule"], row["estimated"]) == ("aborted", 0)
    assert (row["characters"], row["amount_pico_usd"]) == (3, 45_000_000)


async def test_images_that_are_being_made_are_charged_as_they_were_asked_for(tmp_path: Path) -> None:
    paint = {"kind": "image", "upstream": {"url": "http://127.0.0.1:9/v1"}, "price": {"usd_per_image": "1"}}
    partial = event({"type": "image_generation.partial_image", "b64_json": "aaaa"})
    row = await left(tmp_path, [partial] * 3, {"prompt": "a hat", "n": 2}, 1, Api.IMAGE, **paint)
    assert (row["rule"], row["images"], row["amount_pico_usd"]) == ("aborted", 2, 2 * 10**12)


async def test_a_response_that_an_engine_streams_is_estimated_by_what_had_come(tmp_path: Path) -> None:
    """It has no running count there, as chats have."""
    pieces = [
        event({"type": "response.output_text.delta", "item_id": "m", "delta": "a few words more "})
        for _ in range(12)
    ]
    row = await left(tmp_path, pieces, {"input": "x"}, 9, Api.RESPONSE)
    assert (row["rule"], row["estimated"]) == ("aborted", 1)
    assert 9 * len("a few words more ") // 6 < row["output_tokens"] < 9 * len("a few words more ")
    assert row["amount_pico_usd"] == row["input_tokens"] * IN + row["output_tokens"] * OUT


THEIRS: dict[str, Any] = {"upstream": {"url": "http://127.0.0.1:9/v1", "protocol": "anthropic"}}
START = {"type": "message_start", "message": {"usage": {"input_tokens": 40, "output_tokens": 1}}}
DELTA = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a few words more "}}
ENDED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 30}}


@pytest.mark.parametrize(("more", "estimated", "output"), [([], 1, (30, 90)), ([ENDED], 0, (30, 30))])
async def test_a_message_is_charged_for_what_had_been_said_beyond_its_first_report(
    tmp_path: Path, more: list[Any], estimated: int, output: tuple[int, int]
) -> None:
    told = [START, *[DELTA] * 9, *more]
    pieces = [event(one) for one in [*told, DELTA]]
    body = {"max_tokens": 900, "messages": [{"role": "user", "content": "x"}]}
    row = await left(tmp_path, pieces, body, len(told), Api.MESSAGE, **THEIRS)
    assert (row["rule"], row["estimated"], row["input_tokens"]) == ("aborted", estimated, 40)
    assert output[0] <= row["output_tokens"] <= output[1]


async def test_who_leaves_after_the_head_pays_for_what_was_read(tmp_path: Path) -> None:
    head = event({"id": "a", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    server = {"upstream": {"url": "http://127.0.0.1:9/v1"}}
    row = await left(tmp_path, [head, head], {}, 1, Api.CHAT, **server)
    assert (row["rule"], row["estimated"], row["output_tokens"]) == ("aborted", 1, 1)
    assert row["input_tokens"] > 10
