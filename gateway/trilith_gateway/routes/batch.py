"""OpenAI's batches, for the models behind this gateway."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from trilith.errors import ConflictError
from trilith_gateway import request as reading
from trilith_gateway.batch import table
from trilith_gateway.batch.drawer import Drawer
from trilith_gateway.batch.runner import BatchRunner
from trilith_gateway.batch.table import Batch
from trilith_gateway.batch.turn import ENDPOINTS
from trilith_gateway.exchange import too_large
from trilith_gateway.key import Key
from trilith_gateway.platform import Platform
from trilith_gateway.routes import listing, schema
from trilith_gateway.routes.access import Door, reply
from trilith_gateway.routes.file import elsewhere
from trilith_gateway.routes.listing import After
from trilith_gateway.routes.page import described
from trilith_gateway.wire import route

_MOST_BYTES = 64 * 1024
_MOST_METADATA = 16
_MOST_NAME = 64
_MOST_VALUE = 512
_STATUSES = (400, 401, 404, 408, 413, 431, 500, 503)


def router(platform: Platform, runner: BatchRunner) -> APIRouter:
    """Return the routes."""
    routes, door = APIRouter(tags=["batches"]), Door(platform)
    _changes(routes, door, runner)
    _lists(routes, door, runner)
    return routes


def _changes(routes: APIRouter, door: Door, runner: BatchRunner) -> None:
    @routes.post(
        "/v1/batches",
        summary="Answer a file of requests",
        **described(schema.BATCH, statuses=(*_STATUSES, 429)),
    )
    async def create(request: Request) -> Response:
        async def work(key: Key) -> Response:
            asked = _asked(await _body(request))
            made = await asyncio.to_thread(_made, runner, key, *asked)
            runner.wake()
            return reply(made.shown())

        return await door.answer_counted(request, work)

    @routes.post(
        "/v1/batches/{id}/cancel", summary="End a batch early", **described(statuses=(*_STATUSES, 409))
    )
    async def cancel(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            found = await asyncio.to_thread(runner.table.find, id, key.team)
            changed = await asyncio.to_thread(runner.table.cancel, id)
            found = await asyncio.to_thread(runner.table.find, id, key.team)
            if not changed and found.status != "cancelling":
                raise _over(found)
            runner.wake()
            return reply(found.shown())

        return await door.answer(request, work)


def _lists(routes: APIRouter, door: Door, runner: BatchRunner) -> None:
    @routes.get("/v1/batches", summary="List the team's batches", **described(statuses=_STATUSES))
    async def batches(
        request: Request, after: After = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> Response:
        async def work(key: Key) -> Response:
            def read() -> list[Batch]:
                return runner.table.listed(key.team, limit=limit, after=after)

            return listing.page(await asyncio.to_thread(read), limit)

        return await door.answer(request, work)

    @routes.get("/v1/batches/{id}", summary="Say how far a batch is", **described(statuses=_STATUSES))
    async def batch(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            return reply((await asyncio.to_thread(runner.table.find, id, key.team)).shown())

        return await door.answer(request, work)


def _made(
    runner: BatchRunner, key: Key, file_id: str, endpoint: str, metadata: dict[str, str] | None
) -> Batch:
    """Make a batch. Its input is its own before it is there, whatever becomes of the file."""
    shelf = runner.shelf
    found = shelf.find(file_id, key.team)
    if found.purpose != "batch":
        reading.refuse(f"{file_id} is no input of a batch.", "input_file_id")
    if found.place != shelf.place:
        raise elsewhere(found, shelf)
    drawer = Drawer(shelf.folder, id := table.new_id())
    try:
        drawer.keep(shelf.path(file_id))
    except FileNotFoundError:
        raise elsewhere(found, shelf) from None
    try:
        return runner.table.create(id, key, file_id, endpoint, metadata)
    except Exception:
        drawer.clear()
        raise


async def _body(request: Request) -> bytes:
    """Read a body, counted as it comes."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise too_large(_MOST_BYTES)
    return bytes(body)


def _asked(raw: bytes) -> tuple[str, str, dict[str, str] | None]:
    """Return the input file, the endpoint and the metadata of a new batch."""
    body = reading.decode(raw)
    file_id, endpoint = body.get("input_file_id"), body.get("endpoint")
    if type(file_id) is not str:
        reading.refuse("`input_file_id` is missing, expected a file's id.", "input_file_id")
    found = route.find(endpoint.encode()) if type(endpoint) is str else None
    if found is None or found[0] not in ENDPOINTS:
        reading.refuse(
            "`endpoint` is expected to be /v1/chat/completions, /v1/completions, /v1/embeddings, "
            "/v1/responses, /v1/moderations, /v1/rerank or /v2/models/NAME/infer.",
            "endpoint",
        )
    if body.get("completion_window") != "24h":
        reading.refuse("`completion_window` is expected to be '24h'.", "completion_window")
    if body.get("output_expires_after") is not None:
        reading.refuse(
            "`output_expires_after` is not offered here: what a batch writes is kept for the setting "
            "batches.keep_days. Leave it out, and delete the files when they are read.",
            "output_expires_after",
        )
    return file_id, str(endpoint), _metadata(body.get("metadata"))


def _metadata(given: Any) -> dict[str, str] | None:
    if given is None:
        return None
    if (
        type(given) is not dict
        or len(given) > _MOST_METADATA
        or not all(
            len(name) <= _MOST_NAME and type(value) is str and len(value) <= _MOST_VALUE
            for name, value in given.items()
        )
    ):
        reading.refuse(
            f"`metadata` is expected to hold at most {_MOST_METADATA} texts of at most {_MOST_VALUE} signs, "
            f"under names of at most {_MOST_NAME}.",
            "metadata",
        )
    return dict(given)


def _over(found: Batch) -> ConflictError:
    """Make the error for a batch with nothing left to cancel; the first words are OpenAI's."""
    error = ConflictError(
        f"Cannot cancel a batch with status '{found.status}'. Its files hold what was answered.",
        status_code=409,
        code="batch_not_cancellable",
        type="invalid_request_error",
    )
    error.retryable = False
    return error
