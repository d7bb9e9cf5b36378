"""What a run may use: money, time, retries, and the places where answers are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trilith.types import Json
from trilith_evals.cache import Cache
from trilith_evals.journal import Journal, digest
from trilith_evals.pace import Pace
from trilith_evals.provenance import provenance
from trilith_evals.purse import Purse
from trilith_evals.spend import Ledger
from trilith_evals.target import ModelTarget, Target

if TYPE_CHECKING:
    import asyncio

    from trilith_evals.report import Failure, Row
    from trilith_evals.runner import Progress, Suite


class Executor(Protocol):
    """Where the cases of a suite are asked and scored."""

    async def rows(
        self, suite: Suite, purse: Purse, progress: Progress | None, stop: asyncio.Event
    ) -> tuple[list[Row], Failure | None]:
        """Do what `trilith_evals.runner.asked` says, elsewhere; money and journal are the purse's."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """How a suite is run, as far as it does not change what an answer is."""

    max_cost_pico_usd: int | None = None
    """Most that target and judges may cost, earlier runs of the journal included; None: no cap."""
    max_call_cost_pico_usd: int | None = None
    """Most that one call can cost; None estimates it from the calls so far."""
    requests_per_minute: float | None = None
    """Calls that begin in a minute; None: no limit."""
    tokens_per_minute: float | None = None
    """Tokens, read and written, that calls may use in a minute; None: no limit."""
    max_retries: int = 2
    """Further attempts at one call, for causes that may pass."""
    attempt_timeout_s: float | None = None
    """Longest time for one attempt (seconds), after which another is made; None: a call's own limit alone."""
    run_timeout_s: float | None = None
    """Longest time for the whole suite (seconds); None: no limit."""
    journal: Path | None = None
    """File of finished answers; None keeps none."""
    folder: Path | None = None
    """Where a journal of the run's own lies when `journal` is None, until the run is complete."""
    fresh: bool = False
    """Whether to forget what the journal has."""
    cache: Path | None = None
    """Folder of answers by content; None keeps none."""
    executor: Executor | None = None
    """Where cases are run; None: in this process."""

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ValueError: one that nothing could be done under.
        """
        for name in _LIMITS:
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise ValueError(f"{name} is {given}, expected more than 0, or None for no limit")
        for name in ("max_cost_pico_usd", "max_retries"):  # where nothing is left, what is free may still run
            given = getattr(self, name)
            if given is not None and not given >= 0:
                raise ValueError(f"{name} is {given}, expected 0 or more")

    @property
    def passing(self) -> bool:
        """Whether the journal goes when the run is complete."""
        return self.journal is None

    def purse(self, run: str, concurrency: int, timeout_s: float, *, journal: Journal | None = None) -> Purse:
        """Open journal and cache for the run of this digest; an open journal may be given.

        Raises:
            DataError: the journal is another run's, or in use.
        """
        path = self.journal or (self.folder / f"{run[:16]}.jsonl" if self.folder else None)
        return Purse(
            Ledger(self.max_cost_pico_usd, self.max_call_cost_pico_usd),
            Pace(concurrency, self.requests_per_minute, self.tokens_per_minute),
            journal=Journal(path, run, fresh=self.fresh) if path else journal,
            cache=Cache(self.cache) if self.cache else None,
            max_retries=self.max_retries,
            timeout_s=timeout_s,
            attempt_timeout_s=self.attempt_timeout_s,
        )


_LIMITS = (
    "max_call_cost_pico_usd",
    "requests_per_minute",
    "tokens_per_minute",
    "attempt_timeout_s",
    "run_timeout_s",
)


def identity(target: Target) -> Json:
    """Return all but the case that a target's answers depend on, as far as it can be known."""
    return target.identity() if isinstance(target, ModelTarget) else {"target": target.name}


def run_digest(suite: Suite) -> str:
    """Return the digest of data, target and scorers: runs with one digest share their answers."""
    cases = [case.id for case in suite.data.cases]
    scorers = [suite.configuration, {name: provenance(one) for name, one in suite.scorers.items()}]
    return digest([suite.name, suite.data.digest, cases, suite.repeats, identity(suite.target), scorers])
