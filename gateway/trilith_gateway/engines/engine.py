"""What a platform asks of a local engine, whatever it is made of."""

from __future__ import annotations

from typing import Protocol


class Engine(Protocol):
    """An OpenAI-compatible server that the platform starts and keeps alive."""

    name: str
    """What it calls its model."""

    @property
    def base_url(self) -> str:
        """Where it answers, with `/v1`."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it can answer now."""
        ...

    async def start(self) -> None:
        """Begin to start it, or adopt one that runs; raises EngineError where that is impossible."""
        ...

    async def wait_ready(self) -> None:
        """Return when it answers; raises EngineError when it was given up."""
        ...

    async def stop(self) -> None:
        """Stop it and all that it started; nothing happens where it was not started here."""
        ...
