"""OpenAI's files: what batches read and write."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from trilith.errors import APIStatusError, InternalServerError, NotFoundError
from trilith_gateway.batch.shelf import Shelf, StoredFile
from trilith_gateway.batch.upload import Bounds, Upload
from trilith_gateway.key import Key
from trilith_gateway.platform import Platform
from trilith_gateway.routes import listing, schema
from trilith_gateway.routes.access import Door, reply
from trilith_gateway.routes.listing import After, Order
from trilith_gateway.routes.page import described

_WRITE_BYTES = 1024 * 1024
_STATUSES = (400, 401, 404, 408, 413, 431, 500, 503)


def router(platform: Platform, shelf: Shelf) -> APIRouter:
    """Return the routes."""
    routes, door = APIRouter(tags=["files"]), Door(platform)
    _uploads(routes, door, platform, shelf)
    _lists(routes, door, shelf)
    _contents(routes, door, shelf)
    return routes


def _uploads(routes: APIRouter, door: Door, platform: Platform, shelf: Shelf) -> None:
    @routes.post(
        "/v1/files",
        summary="Upload the input of a batch",
        **described(schema.FILE_FORM, form=True, statuses=(*_STATUSES, 429, 507)),
    )
    async def upload(request: Request) -> Response:
        async def work(key: Key) -> Response:
            limits = platform.settings.batches
            bounds = Bounds(limits.max_file_bytes, limits.team_bytes, limits.keep_days * 86_400)
            return reply((await _received(request, Upload(shelf, key, bounds))).shown())

        return await door.answer_counted(request, work)


async def _received(request: Request, upload: Upload) -> StoredFile:
    """Take a form in as it comes, in large parts; nothing of it stays when it is refused or breaks off."""
    declared = request.headers.get("content-length", "")
    held = bytearray()
    try:
        await asyncio.to_thread(upload.begin, int(declared) if declared.isdecimal() else 0)
        async for part in request.stream():
            held += part
            if len(held) >= _WRITE_BYTES:
                await asyncio.to_thread(upload.write, bytes(held))
                held.clear()
        await asyncio.to_thread(upload.write, bytes(held))
        return await asyncio.to_thread(upload.finish, request.headers.get("content-type", ""))
    finally:
        await asyncio.to_thread(upload.close)


def _lists(routes: APIRouter, door: Door, shelf: Shelf) -> None:
    @routes.get("/v1/files", summary="List the team's files", **described(statuses=_STATUSES))
    async def files(
        request: Request,
        purpose: After = None,
        after: After = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Order = "desc",
    ) -> Response:
        async def work(key: Key) -> Response:
            def read() -> list[StoredFile]:
                return shelf.listed(
                    key.team, limit=limit, after=after, oldest_first=order == "asc", purpose=purpose
                )

            return listing.page(await asyncio.to_thread(read), limit)

        return await door.answer(request, work)

    @routes.get("/v1/files/{id}", summary="Describe one file", **described(statuses=_STATUSES))
    async def file(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            return reply((await asyncio.to_thread(shelf.find, id, key.team)).shown())

        return await door.answer(request, work)


def _contents(routes: APIRouter, door: Door, shelf: Shelf) -> None:
    @routes.delete("/v1/files/{id}", summary="Delete a file", **described(statuses=_STATUSES))
    async def delete(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            await asyncio.to_thread(shelf.delete, await asyncio.to_thread(shelf.find, id, key.team))
            return reply({"id": id, "object": "file", "deleted": True})

        return await door.answer(request, work)

    @routes.get(
        "/v1/files/{id}/content", summary="Download a file", **described(opaque=True, statuses=_STATUSES)
    )
    async def content(request: Request, id: str) -> Response:
        async def work(key: Key) -> Response:
            found = await asyncio.to_thread(shelf.find, id, key.team)
            path = shelf.path(found.id)
            if not path.exists():
                raise elsewhere(found, shelf)
            return FileResponse(path, media_type="application/octet-stream")

        return await door.answer(request, work)


def elsewhere(found: StoredFile, shelf: Shelf) -> APIStatusError:
    """Make the error for a file whose content is not in this home."""
    if found.place != shelf.place:
        return InternalServerError(
            f"The content of {found.id} lies on another machine of this gateway.",
            status_code=503,
            code="file_elsewhere",
            type="server_error",
        )
    return NotFoundError(f"The content of {found.id} is gone.", status_code=404, code="file_not_found")
