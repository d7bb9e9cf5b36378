"""Takes up changed settings while requests run: built and checked first, then swapped in one step or not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trilith.errors import TrilithError
from trilith.seams import Upstream
from trilith.settings.model import RagModel, ReplicatedModel
from trilith.settings.schema import Settings
from trilith_gateway.opening import open_releases
from trilith_gateway.platform import Platform
from trilith_gateway.release import declared_digest

_log = logging.getLogger(__name__)

_POLL_S = 1.0
_AT_START = ("home", "gateway", "store", "telemetry", "engines")
"""Sections that are read once; a change in them waits for a restart."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where settings come from, and how they are read again."""

    path: Path | None
    """The file to watch; None: there is none."""
    read: Callable[[], Settings]
    """Raises SettingsError when they are wrong."""


class Reloader:
    """Follows the settings' source for one platform."""

    def __init__(self, platform: Platform, source: Source, engine_urls: Mapping[str, str]) -> None:
        self._platform = platform
        self._source = source
        self._engine_urls = dict(engine_urls)
        self._asked = asyncio.Event()
        self._seen = self._stamp()
        self._closing: set[asyncio.Task[None]] = set()

    def ask(self) -> None:
        """Reload now, whether or not the file has changed (what SIGHUP means)."""
        self._asked.set()

    async def follow(self) -> None:
        """Reload when the file changes or somebody asks, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _POLL_S)
            stamp = self._stamp()
            if stamp != self._seen or self._asked.is_set():
                self._seen = stamp
                self._asked.clear()
                try:
                    await self.reload()
                except TrilithError as error:
                    _log.error("the settings were changed and are wrong, the old ones stay: %s", error)
                except Exception:
                    _log.exception("the settings could not be reloaded, the old ones stay")

    async def reload(self) -> None:
        """Read the settings and take them up.

        Raises:
            SettingsError: they are wrong; nothing has changed then.
            OSError: the change cannot be written down; nothing has changed then either.
        """
        platform = self._platform
        old, new = platform.settings, await asyncio.to_thread(self._source.read)
        late = [name for name in _AT_START if getattr(old, name) != getattr(new, name)]
        if late:
            _log.warning("changes to %s are taken up at the next start", ", ".join(late))
        new = new.model_copy(update={name: getattr(old, name) for name in _AT_START})
        if new == old:
            return
        kept = {name: platform.releases.find(name) for name in new.models if _same(old, new, name)}
        given: dict[str, Upstream] = {name: found.upstream for name, found in kept.items() if found}
        urls = {name: f"http://127.0.0.1:{engine.port}/v1" for name, engine in new.engines.items()}
        table = open_releases(new, urls | self._engine_urls, platform.tracer, given=given)
        opened = [release.upstream for release in table if release.model not in given]
        try:
            await asyncio.gather(*(upstream.ready() for upstream in opened))
            self._note(old, new)
        except BaseException:
            await _close(opened)
            raise
        unused = [release.upstream for release in platform.releases if release.model not in given]
        # From here to the end of the block nothing waits: a request sees all of the old or all of the new.
        before = platform.front.turn()
        platform.protector.replace(new.policies)
        platform.releases.replace(table)
        platform.settings = new
        closing = asyncio.create_task(_close_when(before.drained(), unused))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _note(self, old: Settings, new: Settings) -> None:
        added, gone = sorted(set(new.models) - set(old.models)), sorted(set(old.models) - set(new.models))
        changed = sorted(n for n in set(new.models) & set(old.models) if new.models[n] != old.models[n])
        self._platform.store.append(
            {
                "t": "audit",
                "id": secrets.token_hex(12),
                "at": time.time(),
                "event": "settings.reloaded",
                "detail": {"models_added": added, "models_removed": gone, "models_changed": changed},
            }
        )
        _log.warning("settings reloaded: models added %s, removed %s, changed %s", added, gone, changed)

    def _stamp(self) -> tuple[int, int] | None:
        if self._source.path is None:
            return None
        with contextlib.suppress(OSError):
            found = self._source.path.stat()
            return found.st_mtime_ns, found.st_size
        return None


def _same(old: Settings, new: Settings, name: str) -> bool:
    """Say whether a model's upstream can go on serving: nothing that it is made from has changed."""
    before, after = old.models.get(name), new.models[name]
    if before is None or type(before) is not type(after):
        return False
    if declared_digest(old, name) != declared_digest(new, name):
        return False
    if isinstance(before, ReplicatedModel) and isinstance(after, ReplicatedModel):
        return (  # credentials too, which are no part of a digest
            before.upstream == after.upstream
            and before.replicas == after.replicas
            and before.routing == after.routing
        )
    if isinstance(before, RagModel) and isinstance(after, RagModel):
        same_index = old.indexes[before.index] == new.indexes[after.index]
        return same_index and _same(old, new, after.generator)
    return True


async def _close_when(drained: asyncio.Future[None], upstreams: list[Upstream]) -> None:
    await drained
    await _close(upstreams)


async def _close(upstreams: list[Upstream]) -> None:
    for upstream in upstreams:
        with contextlib.suppress(Exception):  # one that fails to close must not keep the others open
            await upstream.aclose()
