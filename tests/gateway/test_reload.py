"""Settings that change while requests run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from trilith.errors import SettingsError
from trilith.settings import load_settings
from trilith.testing import MemoryUpstream
from trilith_gateway import platform as platforms
from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange
from trilith_gateway.platform import Platform
from trilith_gateway.reload import Reloader, Source
from trilith_gateway.routing.gate import Gate, Ticket


class Kept(MemoryUpstream):
    """Notes that it was closed."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True


def write(path: Path, *, gateway: dict[str, object] | None = None, **models: dict[str, object]) -> None:
    tree = {"home": "home", "gateway": gateway or {}, "models": models}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")


def chat(port: int = 1, **more: object) -> dict[str, object]:
    return {"kind": "chat", "upstream": {"url": f"http://127.0.0.1:{port}/v1"}, **more}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "trilith.yaml", a=chat(), b=chat())
    return tmp_path / "trilith.yaml"


@pytest.fixture
def upstreams() -> dict[str, Kept]:
    return {"a": Kept(), "b": Kept()}


@pytest.fixture
async def platform(path: Path, upstreams: dict[str, Kept]) -> AsyncIterator[Platform]:
    built = platforms.build(load_settings(path).settings, given=upstreams)
    yield built
    await built.aclose()


@pytest.fixture
def reloader(platform: Platform, path: Path) -> Reloader:
    return Reloader(platform, Source(path, lambda: load_settings(path).settings), {})


async def test_a_model_that_did_not_change_keeps_its_upstream(
    platform: Platform, path: Path, reloader: Reloader, upstreams: dict[str, Kept]
) -> None:
    write(path, a=chat(max_output_tokens=7), b=chat(price={"input_usd_per_mtok": "2"}), c=chat())
    await reloader.reload()
    await asyncio.sleep(0)
    found = {release.model: release for release in platform.releases}
    assert sorted(found) == ["a", "b", "c"]
    assert found["a"].max_output_tokens == 7
    assert found["b"].upstream is upstreams["b"]
    assert found["b"].price is not None
    assert upstreams["a"].closed
    assert not upstreams["b"].closed


async def test_a_queue_goes_on_with_its_new_width(platform: Platform, path: Path, reloader: Reloader) -> None:
    def gate() -> Gate:
        release = platform.releases.find("a")
        assert release is not None
        assert release.gate is not None
        return release.gate

    write(path, a=chat(max_concurrency=1), b=chat())
    await reloader.reload()
    before = gate()
    assert isinstance(before.enter("t", 1, batch=False), Ticket)
    write(path, a=chat(max_concurrency=2, queue_length=7), b=chat())
    await reloader.reload()
    assert gate() is before
    assert (before.open, before.places, before.queue) == (1, 2, 7)


@pytest.mark.parametrize(
    "changed",
    [
        {"upstream": {"url": "http://127.0.0.1:1", "api_key": "new"}},
        {"replicas": [{"url": "http://127.0.0.1:2"}]},
        {"routing": {"attempts": 3}},
    ],
)
async def test_a_predictor_elsewhere_is_asked_as_its_new_settings_say(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    path = tmp_path / "trilith.yaml"
    far: dict[str, object] = {
        "kind": "predictor",
        "upstream": {"url": "http://127.0.0.1:1", "api_key": "old"},
    }
    write(path, p=far)
    kept = Kept()
    built = platforms.build(load_settings(path).settings, given={"p": kept})
    write(path, p={**far, **changed})
    await Reloader(built, Source(path, lambda: load_settings(path).settings), {}).reload()
    await asyncio.sleep(0)
    assert kept.closed
    await built.aclose()


async def test_wrong_settings_change_nothing(platform: Platform, path: Path, reloader: Reloader) -> None:
    before = platform.releases.find("a")
    write(path, a={"kind": "chat"})
    with pytest.raises(SettingsError):
        await reloader.reload()
    assert platform.releases.find("a") is before


async def test_an_upstream_is_closed_only_when_the_last_request_that_may_use_it_has_ended(
    platform: Platform, path: Path, reloader: Reloader, upstreams: dict[str, Kept]
) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    class Outlet:
        def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            assert status == 401

        start = write = finish = None

    async def slow(most_bytes: int) -> bytes:
        raise AssertionError

    async def hold(exchange: Exchange) -> None:
        began.set()
        await may_end.wait()

    object.__setattr__(platform.pipeline, "before", (hold, *platform.pipeline.before))
    work = asyncio.create_task(
        platform.front.run(Exchange(Api.CHAT, "/v1/chat/completions", {}, slow), Outlet())  # type: ignore[arg-type]
    )
    await began.wait()
    write(path, b=chat())
    await reloader.reload()
    await asyncio.sleep(0.01)
    assert not upstreams["a"].closed
    may_end.set()
    await work
    await asyncio.sleep(0.01)
    assert upstreams["a"].closed


async def test_the_file_is_watched(platform: Platform, path: Path, reloader: Reloader) -> None:
    following = asyncio.create_task(reloader.follow())
    write(path, z=chat())
    os.utime(path, ns=(1, 1))
    async with asyncio.timeout(30):
        while platform.releases.find("z") is None:  # noqa: ASYNC110  # nobody tells but the table
            await asyncio.sleep(0.05)
    following.cancel()


async def test_what_is_read_only_at_the_start_is_told(
    platform: Platform, path: Path, reloader: Reloader, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, gateway={"port": 9})
    await reloader.reload()
    assert "gateway" in caplog.text
    assert platform.settings.gateway.port == 8080


async def test_a_change_that_cannot_be_written_down_does_not_happen(
    platform: Platform,
    path: Path,
    reloader: Reloader,
    upstreams: dict[str, Kept],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = (platform.settings, *platform.releases)

    def refuse(_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(platform.store), "append", lambda _, record: refuse(record))
        write(path, b=chat(max_output_tokens=7))
        with pytest.raises(OSError, match="no space"):
            await reloader.reload()
    assert (platform.settings, *platform.releases) == before
    await reloader.reload()
    await asyncio.sleep(0)
    assert [release.model for release in platform.releases] == ["b"]
    assert upstreams["a"].closed
