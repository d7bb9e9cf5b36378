"""OpenAI's files and batches, for the models behind this gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from trilith.errors import APIStatusError, InternalServerError, NotFoundError
from trilith_gateway import request as reading
from trilith_gateway.batch.runner import BatchRunner
from trilith_gateway.batch.shelf import StoredFile
from trilith_gateway.batch.table import Batch
from trilith_gateway.batch.turn import ENDPOINTS
from trilith_gateway.exchange import too_large
from trilith_gateway.key import Key
from trilith_gateway.platform import Platform
from trilith_gateway.routes import schema
from trilith_gateway.routes.access import caller, refusal, reply
from trilith_gateway.routes.page import described
from trilith_gateway.wire import route

_FORM_BYTES = 64 * 1024
"""What a form may hold beside its file."""
_MOST_BYTES = 64 * 1024
_WRITE_BYTES = 1024 * 1024
_MOST_METADATA = 16
_STATUSES = (400, 401, 404, 408, 413, 431, 500, 503)

After = Annotated[str | None, Query(max_length=128)]
Answer = Callable[[Key], Awaitable[Response]]
Item = TypeVar("Item", StoredFile, Batch)


def router(platform: Platform, runner: BatchRunner) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["batches"])

    async def answer(request: Request, work: Answer) -> Response:
        """Answer for a known key; errors come in OpenAI's shape."""
        try:
            return await work(await caller(platform, request))
        except APIStatusError as error:
            return refusal(error)

    _files(routes, platform, runner, answer)
    _batches(routes, runner, answer)
    return routes


def _files(
    routes: APIRouter,
    platform: Platform,
    runner: BatchRunner,
    answer: Callable[[Request, Answer], Awaitable[Response]],
) -> None:
    shelf = runner.shelf

    @routes.post(
        "/v1/files",
        summary="Upload the input of a batch",
        **described(schema.FILE_FORM, form=True, statuses=_STATUSES),
    )
    async def upload(request: Request) -> Response:
        async def work(key: Key) -> Response:
            limits = platform.settings.batches
            with shelf.upload() as (path, file):
                await _receive(request, file.write, limits.max_file_bytes + _FORM_BYTES)
                file.flush()
                made = await asyncio.to_thread(
                    shelf.take,
                    path,
                    request.headers.get("content-type", ""),
                    key,
                    most_bytes=limits.max_file_bytes,
                    team_bytes=limits.team_bytes,
                    keep_s=limits.keep_days * 86_400,
                )
            return reply(made.shown())

        return await answer(request, work)

    @routes.get("/v1/files", summary="List the team's files", **described(statuses=_STATUSES))
    async def files(
        request: Request,
        purpose: After = None,
        after: After = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    ) -> Response:
        async def work(key: Key) -> Response:
            found = _after(await asyncio.to_thread(shelf.listed, key.team), after)
            return _page([file for file in found if purpose in (None, file.purpose)], limit)

        return await answer(request, work)

    @routes.get("/v1/files/{id}", summary="Describe one file", **described(statuses=_STATUSES))
    async def file(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            return reply((await asyncio.to_thread(shelf.find, id, key.team)).shown())

        return await answer(request, work)

    @routes.delete("/v1/files/{id}", summary="Delete a file", **described(statuses=_STATUSES))
    async def delete(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            await asyncio.to_thread(shelf.delete, await asyncio.to_thread(shelf.find, id, key.team))
            return reply({"id": id, "object": "file", "deleted": True})

        return await answer(request, work)

    @routes.get(
        "/v1/files/{id}/content", summary="Download a file", **described(opaque=True, statuses=_STATUSES)
    )
    async def content(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            found = await asyncio.to_thread(shelf.find, id, key.team)
            path = shelf.path(found.id)
            if not path.exists():
                raise _elsewhere(found)
            return FileResponse(path, media_type="application/octet-stream")

        return await answer(request, work)


def _batches(
    routes: APIRouter, runner: BatchRunner, answer: Callable[[Request, Answer], Awaitable[Response]]
) -> None:
    table = runner.table

    @routes.post(
        "/v1/batches",
        summary="Answer a file of requests",
        **described(schema.BATCH, statuses=_STATUSES),
    )
    async def create(request: Request) -> Response:
        async def work(key: Key) -> Response:
            body = bytearray()
            await _receive(request, body.extend, _MOST_BYTES)
            file_id, endpoint, metadata = _asked(bytes(body))
            found = await asyncio.to_thread(runner.shelf.find, file_id, key.team)
            if found.purpose != "batch":
                reading.refuse(f"{file_id} is no input of a batch.", "input_file_id")
            if found.place != runner.shelf.place:
                raise _elsewhere(found)
            made = await asyncio.to_thread(table.create, key, file_id, endpoint, metadata)
            runner.wake()
            return reply(made.shown())

        return await answer(request, work)

    @routes.get("/v1/batches", summary="List the team's batches", **described(statuses=_STATUSES))
    async def batches(
        request: Request, after: After = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> Response:
        async def work(key: Key) -> Response:
            return _page(_after(await asyncio.to_thread(table.listed, key.team), after), limit)

        return await answer(request, work)

    @routes.get("/v1/batches/{id}", summary="Say how far a batch is", **described(statuses=_STATUSES))
    async def batch(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            return reply((await asyncio.to_thread(table.find, id, key.team)).shown())

        return await answer(request, work)

    @routes.post("/v1/batches/{id}/cancel", summary="End a batch early", **described(statuses=_STATUSES))
    async def cancel(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            found = await asyncio.to_thread(table.find, id, key.team)
            if not await asyncio.to_thread(table.cancel, id) and found.status != "cancelling":
                reading.refuse(f"The batch is {found.status}; there is nothing left to cancel.", None)
            runner.wake()
            return reply((await asyncio.to_thread(table.find, id, key.team)).shown())

        return await answer(request, work)


async def _receive(request: Request, write: Callable[[bytes], object], most_bytes: int) -> None:
    """Read a body, counted as it comes, and hand it on in large parts."""
    size, held = 0, bytearray()
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise too_large(most_bytes)
        held += part
        if len(held) >= _WRITE_BYTES:
            await asyncio.to_thread(write, bytes(held))
            held.clear()
    write(bytes(held))


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
    metadata = body.get("metadata")
    if metadata is not None and (
        type(metadata) is not dict
        or len(metadata) > _MOST_METADATA
        or not all(type(value) is str and len(value) <= 512 for value in metadata.values())
    ):
        reading.refuse(f"`metadata` is expected to hold at most {_MOST_METADATA} short texts.", "metadata")
    return file_id, str(endpoint), metadata


def _after(found: Sequence[Item], after: str | None) -> Sequence[Item]:
    """Return what comes after the item of the id `after`; everything without one."""
    if after is None:
        return found
    ids = [item.id for item in found]
    if after not in ids:
        reading.refuse(f"`after` is {after!r}, which is not in the list.", "after")
    return found[ids.index(after) + 1 :]


def _page(found: Sequence[StoredFile | Batch], limit: int) -> Response:
    """Return the first page of a list."""
    page = found[:limit]
    return reply(
        {
            "object": "list",
            "data": [item.shown() for item in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": limit < len(found),
        }
    )


def _elsewhere(found: StoredFile) -> APIStatusError:
    """Make the error for a file whose content is not in this home."""
    if found.place:
        return InternalServerError(
            f"The content of {found.id} lies on another machine of this gateway.",
            status_code=503,
            code="file_elsewhere",
            type="server_error",
        )
    return NotFoundError(f"The content of {found.id} is gone.", status_code=404, code="file_not_found")
