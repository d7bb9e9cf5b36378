"""What a person or the world says later about one answer, joined by request id."""

from __future__ import annotations

import secrets
import time
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from trilith.errors import APIStatusError, BadRequestError, NotFoundError
from trilith_gateway.key import Key
from trilith_gateway.platform import Platform
from trilith_gateway.routes import page, schema
from trilith_gateway.routes.access import caller, refusal, reply

_MOST_BYTES = 64 * 1024
_TEXT = r"^[^\x00]*$"  # PostgreSQL keeps no NUL


class Feedback(BaseModel):
    """One opinion about one answer."""

    model_config = ConfigDict(extra="forbid")

    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
    score: float | None = Field(None, allow_inf_nan=False, strict=True)
    label: str | None = Field(None, max_length=200, pattern=_TEXT)
    comment: str | None = Field(None, max_length=4000, pattern=_TEXT)


def router(platform: Platform) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["feedback"])

    @routes.post(
        "/v1/feedback",
        summary="Say how good an answer was",
        **page.described(
            Feedback.model_json_schema(), answer=schema.GIVEN, ok=201, statuses=(*page.LISTING, 404, 413)
        ),
    )
    async def feedback(request: Request) -> Response:
        try:
            key = await caller(platform, request)
            given = _read(await _body(request))
            _known(platform, key, given.request_id)
        except APIStatusError as error:
            return refusal(error)
        row = {"t": "feedback", "id": secrets.token_hex(12), "key_id": key.id, "at": time.time()}
        platform.store.append(row | given.model_dump())
        return reply({"id": row["id"], "request_id": given.request_id}, status=201)

    return routes


async def _body(request: Request) -> bytes:
    """Read the body, counted as it comes: what is too long is refused before it fills the memory."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise APIStatusError(f"Feedback is limited to {_MOST_BYTES:,} bytes.", status_code=413)
    return body


def _read(body: bytes) -> Feedback:
    try:
        return Feedback.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise BadRequestError(f"{where}: {first['msg']}", status_code=400, param=where) from None


def _known(platform: Platform, key: Key, request_id: str) -> None:
    """Refuse feedback on answers that another team got, or nobody."""
    platform.store.flush()
    with platform.store.reading() as connection:
        row = connection.execute(
            "select 1 from ledger where request_id = ? and team = ?", (request_id, key.team)
        ).fetchone()
    if row is None:
        raise NotFoundError(f"No answer of this team has the request id {request_id!r}.", status_code=404)
