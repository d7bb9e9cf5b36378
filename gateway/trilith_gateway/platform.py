"""Everything that one gateway is made of, built once and passed in; closed in the opposite order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

import trilith_governance as governance
from trilith.errors import TrilithError
from trilith.seams import Upstream
from trilith.settings.cache import AnswerCacheSettings
from trilith.settings.schema import Settings
from trilith.telemetry import tracer as tracer_of
from trilith_gateway import key, tracing
from trilith_gateway.budget import Alert, Budgets
from trilith_gateway.caching import purge
from trilith_gateway.caching.flight import Flights
from trilith_gateway.caching.memory import MemoryCache
from trilith_gateway.caching.opening import open_cache, open_semantic
from trilith_gateway.caching.seam import Cache, Purge
from trilith_gateway.caching.semantic import SemanticCache
from trilith_gateway.enginecost import EngineCosts, accounts
from trilith_gateway.front import Front
from trilith_gateway.kept import KeptAnswers
from trilith_gateway.key import Key, KeyRing
from trilith_gateway.limits.keeper import LimitKeeper
from trilith_gateway.limits.memory import RateLimiter
from trilith_gateway.limits.seam import Limiter
from trilith_gateway.limits.shared import SharedRateLimiter
from trilith_gateway.metric import Metrics
from trilith_gateway.opening import open_releases, shared_embedder
from trilith_gateway.pipeline import Pipeline
from trilith_gateway.release import ReleaseTable
from trilith_gateway.shared import LeasedBudgets
from trilith_gateway.stages.admit import Admit
from trilith_gateway.stages.call import Call
from trilith_gateway.stages.cascade import Cascade
from trilith_gateway.stages.fallback import Fallback
from trilith_gateway.stages.identify import Identify
from trilith_gateway.stages.protect_in import ProtectIn
from trilith_gateway.stages.protect_out import ProtectOut
from trilith_gateway.stages.recall import Recall
from trilith_gateway.stages.record import Record
from trilith_gateway.stages.remember import Remember
from trilith_gateway.stages.resume import Resume
from trilith_gateway.stages.route import Route
from trilith_gateway.stages.settle import Settle
from trilith_gateway.stages.translate import Translate
from trilith_gateway.store.journalled import JournalledStore
from trilith_gateway.store.opening import open_store
from trilith_gateway.tracelog import TraceLog

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Platform:
    """The collaborators of one gateway process."""

    settings: Settings
    """As they are now; `reload` replaces them."""
    store: JournalledStore
    budgets: Budgets | LeasedBudgets
    limiter: Limiter
    keys: KeyRing
    releases: ReleaseTable
    protector: governance.Protector
    metrics: Metrics
    provider: TracerProvider
    tracer: Tracer
    pipeline: Pipeline
    front: Front
    kept: KeptAnswers
    cache: Cache
    semantic: SemanticCache
    traces: TraceLog | None
    warmed: threading.Event
    """Set when everything is loaded."""
    draining: bool = False
    """The process is about to stop: it answers still, and is not ready any more."""

    async def warm(self) -> None:
        """Load what the first request would otherwise wait for; `/readyz` says no until then."""
        try:
            await asyncio.to_thread(self.protector.warm)
        except TrilithError as error:  # requests that need it will be refused with the reason
            _log.warning("personal data cannot be looked for: %s", error)
        await asyncio.gather(*(release.upstream.ready() for release in self.releases))
        for release in self.releases:
            if isinstance(release.cache, AnswerCacheSettings) and release.cache.semantic is not None:
                await self.semantic.warm(release.cache.semantic)
        self.warmed.set()

    async def follow_keys(self) -> None:
        """Take up what other processes change in keys, teams and orgs, until cancelled."""
        while True:
            await asyncio.sleep(0.2)
            if self.store.keys_changed.is_set():
                self.store.keys_changed.clear()
                try:
                    await asyncio.to_thread(self.keys.reload)
                    if isinstance(self.budgets, Budgets):  # leases hold adjustments already
                        self.budgets.reread()
                    await self.follow_purges()
                except Exception as error:  # the database went away just now
                    self.store.keys_changed.set()
                    _log.error("keys cannot be read again, the old ones stay: %s", error)
                    await asyncio.sleep(1)

    async def follow_purges(self) -> None:
        """Forget answers that `trilith cache purge` names; Redis has been told by the command itself."""
        if isinstance(self.cache, MemoryCache):
            for wish in await asyncio.to_thread(_read_purges, self.store):
                await self.cache.purge(wish)

    async def housekeep(self) -> None:
        """Keep places, give idle money back, book the engines' time, tell other workers what was counted."""
        engine_costs = EngineCosts(self.store)
        while True:
            await asyncio.sleep(1)
            try:
                await self.limiter.renew()
                await asyncio.to_thread(self.metrics.share)
                await self._give_back()
                if found := accounts(self.settings):
                    await asyncio.to_thread(engine_costs.tick, found)
            except Exception as error:  # the disk or the database is away for a while; what is due stays due
                _log.error("the work of every second failed: %s", error)

    async def _give_back(self) -> None:
        if not isinstance(self.budgets, LeasedBudgets):
            return
        failure: Exception | None = None
        for account, since, amount in self.budgets.idle():
            try:
                await asyncio.to_thread(self.store.give_back, account, since, amount)
            except Exception as error:
                self.budgets.keep(account, since, amount)
                failure = error
        if failure is not None:
            raise failure

    async def aclose(self) -> None:
        """Close upstreams, send the last spans, write the last facts."""
        for release in self.releases:
            with contextlib.suppress(
                Exception
            ):  # one that fails to close must not keep the ledger from closing
                await release.upstream.aclose()
        with contextlib.suppress(Exception):  # else it is settled by the ledger at the next start
            await self._give_back()
            await self._give_back()
        await self.limiter.aclose()
        await self.semantic.aclose()
        await self.cache.aclose()
        if self.traces is not None:
            await asyncio.to_thread(self.traces.close)
        await asyncio.to_thread(self.provider.shutdown)
        await asyncio.to_thread(self.store.close)


def build(
    settings: Settings,
    engine_urls: Mapping[str, str] | None = None,
    *,
    given: Mapping[str, Upstream] | None = None,
    protector: governance.Protector | None = None,
    provider: TracerProvider | None = None,
    fixed_keys: tuple[Key, ...] = (),
    worker: str = "0",
    token: str | None = None,
) -> Platform:
    """Build a gateway's collaborators.

    Args:
        settings: The platform, with absolute paths.
        engine_urls: Where engines answer; those left out are expected on the port that they declare.
        given: Upstreams to use instead of the declared ones, by model name.
        protector: Governance to use instead of the one that the policies ask for.
        provider: Where spans go, instead of the one that the settings ask for.
        fixed_keys: Keys that live in memory only.
        worker: This process's name among the gateway's workers.
        token: Proof of belonging to a gateway of several workers; None for a gateway of one process.

    Raises:
        SettingsError: another gateway has the same home.
    """
    declared = {name: f"http://127.0.0.1:{engine.port}/v1" for name, engine in settings.engines.items()}
    protector = protector or governance.open_protector(settings.policies)
    store = open_store(settings, worker=worker, token=token)
    given_provider = provider is not None
    provider = provider or tracing.provider(settings.telemetry, settings.home)
    tracer = tracer_of(provider)
    embedder = shared_embedder()
    urls = {**declared, **(engine_urls or {})}
    releases = open_releases(settings, urls, tracer, given=given, embedder=embedder)
    traces = (
        TraceLog(provider, content=settings.telemetry.content)
        if tracing.wanted(settings.telemetry) or given_provider
        else None
    )
    keys = KeyRing(lambda: _read_keys(store, fixed_keys))
    budgets: Budgets | LeasedBudgets
    if token is None and settings.store.url is None:  # this process alone knows of all that is spent
        budgets = Budgets(lambda account, since: _spent(store, account, since), partial(_note, store))
    else:
        budgets = LeasedBudgets(store, partial(_note, store))
    limiter = open_limiter(settings, alone=token is None)
    limits = LimitKeeper(limiter)
    shared = settings.home / "run" / "metrics" if token is not None else None
    metrics, cache = Metrics(shared, worker), open_cache(settings)
    semantic = open_semantic(settings, cache, embedder, worker=worker)
    admit = Admit(releases, limits, budgets, store.hold, settings.gateway.max_body_bytes)
    route = Route(settings.gateway.request_timeout_s)
    kept = KeptAnswers(store)
    move = Fallback(admit, route, budgets).move
    pipeline = Pipeline(
        before=(
            Identify(keys),
            admit,
            ProtectIn(protector, tracer),
            Recall(cache, semantic),
            Resume(kept),
            route,
            Cascade(Call(releases, move, Flights()), releases, route, move),
        ),
        over=(Remember(cache, semantic), ProtectOut(), Translate()),
        closing=(Settle(budgets, limits, store.append), Record(store.append, metrics)),
    )
    return Platform(
        settings,
        store,
        budgets,
        limiter,
        keys,
        releases,
        protector,
        metrics,
        provider,
        tracer,
        pipeline,
        Front(pipeline, metrics, traces),
        kept,
        cache,
        semantic,
        traces,
        threading.Event(),
    )


def open_limiter(settings: Settings, *, alone: bool) -> Limiter:
    """Open what keeps rate limits: in this process, on this machine, or in Redis.

    Args:
        settings: The platform.
        alone: Whether no other process of this machine answers for the same gateway.
    """
    url = settings.store.redis_url
    local: Limiter = RateLimiter() if alone else SharedRateLimiter(settings.home / "run" / "rates")
    if url is None:
        return local
    from trilith_gateway.limits.redis import RedisLimiter

    return RedisLimiter(url.get_secret_value(), local, settings.store.redis_away)


def _read_keys(store: JournalledStore, fixed: tuple[Key, ...]) -> list[Key]:
    with store.reading() as connection:
        return key.load(connection, fixed=fixed)


def _read_purges(store: JournalledStore) -> list[Purge]:
    with store.reading() as connection:
        return purge.announced(connection)


def _spent(store: JournalledStore, account: str, since: float) -> int:
    store.flush()
    return store.charged(account, since)


def _note(store: JournalledStore, alert: Alert) -> None:
    """Put into the audit log that a budget's soft share was reached: once per window, whoever notices it."""
    budget = alert.budget
    fact = {
        "t": "audit",
        "id": f"soft {budget.account} {budget.window} {alert.window_start:.0f}",
        "at": time.time(),
        "event": "budget.soft",
        "detail": {
            "account": budget.account,
            "window": budget.window,
            "budget_pico_usd": budget.pico_usd,
            "spent_pico_usd": alert.spent,
            "soft_percent": budget.soft_percent,
        },
    }
    with contextlib.suppress(OSError):  # the journal's disk is full: the charge itself will say so
        store.append(fact)
    _log.warning("%s has spent %d %% of its budget or more", budget.account, budget.soft_percent)
