"""What evals found, for admin keys: runs, their pages, comparisons, and what monitors say."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from trilith.errors import InternalServerError, MissingExtra
from trilith_gateway import request as reading
from trilith_gateway.evaluation import run as runs
from trilith_gateway.evaluation.finding import Findings
from trilith_gateway.evaluation.run import Runs, Wanted
from trilith_gateway.exchange import too_large
from trilith_gateway.key import Key
from trilith_gateway.platform import Platform
from trilith_gateway.routes import listing, schema
from trilith_gateway.routes.access import Door, administrator, reply
from trilith_gateway.routes.listing import After
from trilith_gateway.routes.page import described

_STATUSES = (400, 401, 403, 408, 431, 500, 503)
_ONE = (*_STATUSES, 404)
_COSTLY = (*_ONE, 429)
_TAKEN = (*_STATUSES, 413, 429)
_HEADERS = {
    # The page has no script and asks for nothing; whatever a run's texts hold, no browser runs or sends it.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_Text = Annotated[str, Query(max_length=1000, pattern=r"^[^\x00]*$")]
_Limit = Annotated[int, Query(ge=1, le=100)]
_Outcome = Literal["", "pass", "fail", "no evidence", "could not run"]
_Kind = Literal["", "quiet", "notice", "alarm", "open", "closed", "no evidence"]
_Run = Annotated[str, Query(max_length=128)]
_Margin = Annotated[float, Query(ge=0, allow_inf_nan=False)]
_Alpha = Annotated[float, Query(gt=0, lt=1)]
_T = TypeVar("_T")


def router(platform: Platform) -> APIRouter:
    """Return the routes."""
    routes, door, bench = APIRouter(tags=["evals"]), Door(platform), _Bench(platform)
    _uploads(routes, door, bench)
    _lists(routes, door, bench)
    _looks(routes, door, bench)
    return routes


class _Bench:
    """What the routes share: the tables, and a turn for work that would keep the process busy."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.runs, self.findings = Runs(platform.store), Findings(platform.store)
        self._turn = asyncio.Lock()

    async def do(self, work: Callable[..., _T], *given: Any, **options: Any) -> _T:
        """Do blocking work in a thread.

        Raises:
            InternalServerError: the database is away, or the part that knows evals is not installed.
        """
        try:
            return await asyncio.to_thread(work, *given, **options)
        except OSError:
            raise InternalServerError(
                "The database does not answer at the moment. Try again.",
                status_code=503,
                code="store_unavailable",
                type="server_error",
                retry_after_s=1,
            ) from None
        except MissingExtra as error:
            raise InternalServerError(
                str(error), status_code=503, code="extra_missing", type="server_error"
            ) from None

    async def do_in_turn(self, work: Callable[..., _T], *given: Any, **options: Any) -> _T:
        """Do the same, one at a time in this process: it is work for the CPU that models' callers need."""
        async with self._turn:
            return await self.do(work, *given, **options)

    async def body(self, request: Request) -> bytes:
        """Read a body, counted as it comes."""
        most = self.platform.settings.gateway.max_eval_run_bytes
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > most:
                raise too_large(most, "gateway.max_eval_run_bytes")
        return bytes(body)

    async def note(self, event: str, key: Key, **detail: object) -> None:
        """Put into the audit log who changed what."""
        fact = {"t": "audit", "id": secrets.token_hex(12), "at": time.time(), "event": event}
        await self.do(self.platform.store.append, {**fact, "detail": {"key_id": key.id, **detail}})


def _uploads(routes: APIRouter, door: Door, bench: _Bench) -> None:
    @routes.post(
        "/admin/v1/evals/runs",
        summary="Keep a run of suites, as `trilith eval run --json` writes it",
        **described(schema.EVAL_RUN, answer=schema.KEPT_RUN, statuses=_TAKEN),
    )
    async def keep(request: Request) -> Response:
        async def work(key: Key) -> Response:
            made, new = await bench.do_in_turn(bench.runs.keep, await bench.body(request), key.id)
            if new:
                await bench.note("evals.run.kept", key, run=made.id)
            return reply({**made.shown(), "new": new})

        return await door.answer_counted(request, administrator(work))

    @routes.delete("/admin/v1/evals/runs/{id}", summary="Delete a run", **described(statuses=_ONE))
    async def delete(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            await bench.do(bench.runs.delete, id)
            await bench.note("evals.run.deleted", key, run=id)
            return reply({"id": id, "object": "eval.run", "deleted": True})

        return await door.answer(request, administrator(work))

    @routes.post(
        "/admin/v1/evals/monitors",
        summary="Keep findings, the JSON lines that `trilith eval monitor` writes",
        **described(schema.EVAL_FINDING, answer=schema.KEPT_FINDINGS, statuses=_TAKEN),
    )
    async def findings(request: Request) -> Response:
        async def work(key: Key) -> Response:
            lines, new = await bench.do(bench.findings.keep, await bench.body(request), key.id)
            return reply({"object": "eval.findings", "received": lines, "new": new})

        return await door.answer_counted(request, administrator(work))


def _lists(routes: APIRouter, door: Door, bench: _Bench) -> None:
    @routes.get(
        "/admin/v1/evals/runs", summary="List runs, the newest first", **described(statuses=_STATUSES)
    )
    async def listed(
        request: Request,
        suite: _Text = "",
        model: _Text = "",
        release: _Text = "",
        outcome: _Outcome = "",
        after: After = None,
        limit: _Limit = 20,
    ) -> Response:
        async def work(key: Key) -> Response:
            wanted = Wanted(suite, model, release, outcome)
            found = await bench.do(bench.runs.listed, wanted, limit=limit, after=after)
            return listing.page(found, limit)

        return await door.answer(request, administrator(work))

    @routes.get(
        "/admin/v1/evals/runs/{id}", summary="Read a run with all that was kept", **described(statuses=_ONE)
    )
    async def one(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            found, run = await bench.do(bench.runs.whole, id)
            head = bytes(reply(found.shown()).body)
            return Response(head[:-1] + b',"run":' + run + b"}", media_type="application/json")

        return await door.answer(request, administrator(work))

    @routes.get(
        "/admin/v1/evals/monitors",
        summary="List what monitors found, the newest windows first",
        **described(statuses=_STATUSES),
    )
    async def watched(
        request: Request, monitor: _Text = "", kind: _Kind = "", after: After = None, limit: _Limit = 20
    ) -> Response:
        async def work(key: Key) -> Response:
            found = await bench.do(bench.findings.listed, monitor, kind, limit=limit, after=after)
            return listing.page(found, limit)

        return await door.answer(request, administrator(work))


def _looks(routes: APIRouter, door: Door, bench: _Bench) -> None:
    @routes.get(
        "/admin/v1/evals/runs/{id}/report",
        summary="Show a run as an HTML page; without inputs and answers if `content` is false",
        **described(written="text/html", statuses=_COSTLY),
    )
    async def report(request: Request, id: str, content: bool = True) -> Response:
        async def work(key: Key) -> Response:
            _, run = await bench.do(bench.runs.whole, id)
            made = await bench.do_in_turn(runs.paged, run, content=content)
            # A model may answer with lone surrogates, which UTF-8 cannot hold.
            return Response(
                made.encode("utf-8", "replace"), media_type="text/html; charset=utf-8", headers=_HEADERS
            )

        return await door.answer_counted(request, administrator(work))

    @routes.get(
        "/admin/v1/evals/compare",
        summary="Hold one run against another: every metric of both, with a verdict",
        **described(answer=schema.EVAL_COMPARISON, statuses=_COSTLY),
    )
    async def compare(
        request: Request,
        baseline: _Run = "",
        candidate: _Run = "",
        margin: _Margin = 0.0,
        alpha: _Alpha = 0.05,
    ) -> Response:
        async def work(key: Key) -> Response:
            for name, run in (("baseline", baseline), ("candidate", candidate)):
                if not run:  # not FastAPI's to say: strangers are told that they are, and nothing else
                    reading.refuse(f"`{name}` is missing, expected a run's id.", name)
            _, before = await bench.do(bench.runs.whole, baseline)
            _, after = await bench.do(bench.runs.whole, candidate)
            lines, outcome = await bench.do_in_turn(runs.contested, before, after, margin=margin, alpha=alpha)
            told = {"object": "eval.comparison", "baseline": baseline, "candidate": candidate}
            return reply({**told, "margin": margin, "alpha": alpha, "outcome": outcome, "lines": lines})

        return await door.answer_counted(request, administrator(work))
