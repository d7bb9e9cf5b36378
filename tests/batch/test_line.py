"""The lines of a batch's input: bounded, checked, and read without holding up anybody else."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from trilith_gateway.batch import line as lines

ENDPOINT = "/v1/chat/completions"
BOUND = 4096


def ask(name: str, text: str = "hello") -> bytes:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}).encode()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "input"


def write(source: Path, data: bytes) -> None:
    source.write_bytes(data)


def checked(source: Path, most_lines: int = 100) -> tuple[int, list[dict[str, Any]]]:
    return lines.check(source, ENDPOINT, most_lines, BOUND)


def test_a_line_as_long_as_a_body_may_be_is_taken_and_a_longer_one_is_named(source: Path) -> None:
    fits = ask("b").ljust(BOUND)
    write(source, b"\n".join([ask("a"), fits, ask("c"), fits + b" ", ask("d"), b" " * 9 * BOUND]))
    count, faults = checked(source)
    assert count == 4
    assert [(fault["code"], fault["line"]) for fault in faults] == [
        ("line_too_long", 4),
        ("line_too_long", 6),
    ]
    assert f"{BOUND:,} bytes" in faults[0]["message"]
    assert "gateway.max_body_bytes" in faults[0]["message"]


def test_no_more_of_a_line_is_held_in_memory_than_it_may_have(source: Path) -> None:
    write(source, ask("a") + b" " * 64 * 1024 * 1024)
    tracemalloc.start()
    try:
        assert [fault["code"] for fault in checked(source)[1]] == ["line_too_long"]
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_empty_lines_count_too_so_that_a_file_of_them_is_soon_refused(source: Path) -> None:
    write(source, b"\n" * 1000 + ask("a"))
    assert [fault["code"] for fault in checked(source, most_lines=10)[1]] == ["too_many_lines"]


async def test_others_go_on_while_a_long_line_is_read(source: Path) -> None:
    write(source, ask("a", "[" * 4_000_000) + b"\n" + ask("b"))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    reader = lines.Reader(source, done=())
    found = []
    while (line := await reader.take()) is not None:
        found.append((line.custom_id, turns))
        turns = 0
    task.cancel()
    assert [name for name, _ in found] == ["a", "b"]
    assert found[0][1] > 0


async def test_several_tasks_share_the_lines_that_are_left(source: Path) -> None:
    write(source, b"\n".join(ask(f"c{number}") for number in range(1, 31)))
    reader = lines.Reader(source, done={2, 30})
    found: list[int] = []

    async def work() -> None:
        while (line := await reader.take()) is not None:
            found.append(line.number)

    await asyncio.gather(*(work() for _ in range(8)))
    assert sorted(found) == [number for number in range(1, 31) if number not in (2, 30)]


async def test_lines_that_are_done_are_not_even_parsed(source: Path) -> None:
    write(source, b"this was answered before\n" + ask("b"))
    reader = lines.Reader(source, done={1})
    assert (await reader.take()) == lines.Line(
        2, "b", ENDPOINT, json.dumps(json.loads(ask("b"))["body"]).encode()
    )
