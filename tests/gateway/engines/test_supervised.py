"""Supervision on real processes: nothing stays down that can be restarted, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from support.fake_engine import FakeEngine, alive
from support.installed import until

from trilith.errors import EngineError


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def all_gone(pids: list[int]) -> bool:
    return not any(map(alive, pids))


async def test_a_started_engine_is_ready_and_says_where_it_answers(fake: FakeEngine) -> None:
    engine = await fake.up()
    assert engine.ready
    assert engine.base_url == f"http://127.0.0.1:{fake.port}/v1"
    assert not engine.adopted


async def test_a_dead_engine_is_started_again_and_what_it_left_behind_is_gone(fake: FakeEngine) -> None:
    engine = await fake.up()
    first = fake.family()
    fake.die()
    await asyncio.to_thread(until, (fake.folder / "pids").exists, seconds=20)
    await engine.wait_ready()
    assert engine.restarts == 1
    assert all_gone(first)
    assert all(map(alive, fake.family()))


async def test_an_engine_that_keeps_dying_is_given_up_with_its_reason(fake: FakeEngine) -> None:
    with pytest.raises(EngineError) as caught:
        await fake.up("--dies-at-start")
    message = str(caught.value)
    assert "ended 3 times in a row, the last with exit status 1" in message
    assert "ValueError: no room for the weights" in message
    assert "goodbye" not in message
    assert str(fake.log) in message


async def test_an_engine_that_dies_soon_after_each_start_is_given_up_as_well(fake: FakeEngine) -> None:
    engine = await fake.up(most_deaths=2)
    fake.die()
    await asyncio.to_thread(until, (fake.folder / "pids").exists, seconds=20)
    await engine.wait_ready()
    fake.die()
    await asyncio.to_thread(until, lambda: not engine.ready)
    with pytest.raises(EngineError, match="ended 2 times in a row, the last with exit status 9"):
        await asyncio.wait_for(engine.wait_ready(), 20)
    assert not engine.ready


async def test_an_engine_that_was_steady_starts_counting_anew(fake: FakeEngine) -> None:
    engine = await fake.up(most_deaths=2, steady_s=0)
    for count in (1, 2, 3):
        fake.die()
        await asyncio.to_thread(until, (fake.folder / "pids").exists, seconds=20)
        await engine.wait_ready()
        assert engine.restarts == count


async def test_a_log_that_cannot_be_written_is_said_instead_of_waited_for(fake: FakeEngine) -> None:
    fake.log.mkdir(parents=True)
    with pytest.raises(EngineError, match="engine 'tiny' could not be started: .*Is a directory"):
        await asyncio.wait_for(fake.up(), 20)


async def test_wrong_arguments_are_not_tried_twice(fake: FakeEngine) -> None:
    with pytest.raises(EngineError, match=r"ended 1 time in a row[\s\S]*unrecognized arguments: --nonsense"):
        await fake.up("--usage")


async def test_a_start_that_takes_too_long_is_stopped_and_says_so(fake: FakeEngine) -> None:
    engine = fake.engine(name="tiny", ready_timeout_s=3)
    engine.name = "another"  # the server answers, but never for this one
    await engine.start()
    with pytest.raises(EngineError, match="was not ready after 3 s"):
        await engine.wait_ready()
    assert all_gone(fake.family())


async def test_a_stopped_engine_leaves_no_process_not_even_in_another_session(fake: FakeEngine) -> None:
    engine = await fake.up()
    family = fake.family()
    await engine.stop()
    assert all_gone(family)
    assert not engine.ready


async def test_a_stopped_engine_leaves_its_port_to_the_next_and_no_file_behind(fake: FakeEngine) -> None:
    engine = await fake.up()
    await engine.stop()
    assert list((fake.folder / "data" / "run").iterdir()) == []
    assert not (await fake.up()).adopted


async def test_a_launcher_that_is_killed_takes_the_engine_with_it_and_is_replaced(fake: FakeEngine) -> None:
    engine = await fake.up()
    server, near, far = fake.family()
    launcher = parent(server)
    (fake.folder / "pids").unlink()
    os.kill(launcher, signal.SIGKILL)
    await asyncio.to_thread(until, (fake.folder / "pids").exists, seconds=20)
    await engine.wait_ready()
    assert all_gone([server, near])
    os.kill(far, signal.SIGKILL)  # it had left the group: only the launcher could have found it


async def test_a_platform_that_is_killed_leaves_no_process(fake: FakeEngine) -> None:
    platform = fake.platform()
    family = fake.family()
    platform.kill()
    platform.wait()
    await asyncio.to_thread(until, lambda: all_gone(family), seconds=10, what="the end of the engine")


async def test_a_platform_that_follows_a_killed_one_does_not_adopt_the_dying_engine(fake: FakeEngine) -> None:
    killed = fake.platform("--slow-to-end")
    first = fake.family()
    killed.kill()
    killed.wait()
    engine = await fake.up()
    assert not engine.adopted
    assert fake.family() != first
    assert all(map(alive, fake.family()))


async def test_a_second_platform_adopts_the_engine_of_the_first_and_leaves_it_running(
    fake: FakeEngine,
) -> None:
    fake.platform()
    engine = await fake.up()
    assert engine.adopted
    assert engine.ready
    await engine.stop()
    assert all(map(alive, fake.family()))


async def test_a_server_that_someone_started_by_hand_is_adopted_and_left_running(fake: FakeEngine) -> None:
    server = fake.by_hand()
    engine = await fake.up(model="/models/tiny")
    assert engine.adopted
    await engine.stop()
    assert server.poll() is None


async def test_a_server_of_another_name_is_not_adopted(fake: FakeEngine) -> None:
    fake.by_hand("other")
    with pytest.raises(EngineError, match=r"taken by a server of 'other' \(/models/tiny\), expected 'tiny'"):
        await fake.up()


async def test_a_server_of_another_model_under_the_same_name_is_not_adopted(fake: FakeEngine) -> None:
    fake.by_hand()
    with pytest.raises(EngineError, match=r"taken by a server of 'tiny' \(/models/tiny\), expected .*large"):
        await fake.up(model="/models/large")


async def test_a_port_that_something_else_has_is_refused_with_the_setting_to_change(fake: FakeEngine) -> None:
    stranger = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", fake.port)
    async with stranger:
        with pytest.raises(EngineError, match=rf"port {fake.port} is taken .*engines\.tiny\.port"):
            await fake.up()


async def test_a_stubborn_engine_is_killed(fake: FakeEngine) -> None:
    engine = await fake.up("--stubborn", grace_s=0.3)
    family = fake.family()
    await asyncio.wait_for(engine.stop(), 10)
    assert all_gone(family)
