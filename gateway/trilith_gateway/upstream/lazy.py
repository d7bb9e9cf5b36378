"""An upstream that is opened when it is first needed, and says why it cannot be."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from trilith.errors import InternalServerError, TrilithError
from trilith.seams import Call, Reply, Upstream, Versioned

_log = logging.getLogger(__name__)

_RETRY_S = 2.0


class LazyUpstream:
    """Opens the real upstream in a thread: an index may not be built yet, a model not trained yet.

    Until it opens, calls are refused with its reason; it is tried again with later calls, so that
    `trilith ingest` or `trilith train` cure a running gateway.
    """

    def __init__(self, name: str, open: Callable[[], Upstream]) -> None:
        """Take the opener; its errors say how to make it succeed."""
        self._name = name
        self._open = open
        self._upstream: Upstream | None = None
        self._reason = "it is closed"
        self._tried_at = float("-inf")
        self._opening: asyncio.Task[None] | None = None
        self._closed = False

    async def send(self, call: Call) -> Reply:
        """Send through the real upstream.

        Raises:
            InternalServerError: 503, it cannot be opened.
        """
        return await (await self._opened()).send(call)

    async def ready(self) -> bool:
        """Say whether the real upstream is open and ready."""
        try:
            return await (await self._opened()).ready()
        except InternalServerError:
            return False

    def version(self) -> str | None:
        """Name what the real upstream answers from, once it is open."""
        if isinstance(self._upstream, Versioned):
            return self._upstream.version()
        return None if self._upstream is None else ""

    async def aclose(self) -> None:
        """Close the real upstream if it is open, or as soon as it is."""
        self._closed = True
        if self._opening is not None:
            await asyncio.shield(self._opening)
        if self._upstream is not None:
            await self._upstream.aclose()

    async def _opened(self) -> Upstream:
        if self._upstream is not None:
            return self._upstream
        if self._opening is None and not self._closed and time.monotonic() - self._tried_at >= _RETRY_S:
            # A task of its own, for whoever comes: a caller who leaves must not undo it for the others.
            self._opening = asyncio.create_task(self._try())
        if self._opening is not None:
            await asyncio.shield(self._opening)
        if self._upstream is None:
            raise InternalServerError(
                f"The model {self._name!r} is not ready: {self._reason}.",
                status_code=503,
                code="model_not_ready",
                type="server_error",
                retry_after_s=_RETRY_S,
            )
        return self._upstream

    async def _try(self) -> None:
        try:
            self._upstream = await asyncio.to_thread(self._open)
        except TrilithError as error:
            self._reason = str(error)
            _log.warning("%s is not ready: %s", self._name, error)
        except Exception as error:  # a damaged file or library; the other models answer on
            self._reason = f"it could not be opened ({type(error).__name__}); the log has the reason"
            _log.exception("%s could not be opened", self._name)
        finally:
            self._tried_at = time.monotonic()
            self._opening = None
