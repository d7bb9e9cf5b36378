"""What the OpenAPI page says of each operation: who may ask, what comes back, by which status and headers.

Every status that the gateway itself gives is named; `tests/security/test_page.py` holds it to that. Under
`default` stands what an upstream may add, whose errors are passed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

Schema = dict[str, Any]

_VERSION: Final = "1"
"""Of the API. Which release answers is for those with a key to know; the page is open."""
_TEXT: Final[Schema] = {"type": "string"}
_MAYBE_TEXT: Final[Schema] = {"type": ["string", "null"]}


def _shape(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


_COMPONENTS: Final[dict[str, Schema]] = {
    "OpenAIError": _shape(
        error=_shape(
            message=_TEXT, type=_TEXT, param=_MAYBE_TEXT, code={"type": ["string", "integer", "null"]}
        )
    ),
    "AnthropicError": _shape(type={"const": "error"}, error=_shape(type=_TEXT, message=_TEXT)),
    "InferenceError": _shape(error=_TEXT),
    "MlflowError": _shape(error_code=_TEXT, message=_TEXT),
}
"""The four ways in which an error is told."""

_ACCESS: Final[dict[str, Schema]] = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key of this gateway, `tl_...`"},
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same, Anthropic's way",
    },
}

_MEANINGS: Final[Mapping[int, str]] = {
    400: "The request cannot be understood; the body says where",
    401: "No key, or one that is unknown or revoked",
    403: "The key may not do this, or a policy refuses the content",
    404: "No such model for this key",
    408: "The request did not come in time",
    409: "It is in a state in which this cannot be done",
    413: "The body is too long",
    415: "The body is packed, or written, in a way that is not read here",
    422: "The `Idempotency-Key` was used for another request",
    429: "Too many requests (wait as `retry-after` says), or the budget is spent (`insufficient_quota`)",
    431: "The head is too long",
    500: "The gateway failed; its log has the reason",
    502: "The upstream did not answer, or broke off",
    503: "Not ready, or what it does cannot be recorded",
    504: "The upstream did not answer in time",
    507: "The gateway's disk is full",
}

_UNREAD: Final = (400, 408, 431)
"""What a request gets that never became one: its head cannot be read."""
EXCHANGE: Final = (400, 401, 403, 404, 408, 413, 415, 422, 429, 431, 500, 502, 503, 504)
"""What the nine stages may say."""
LISTING: Final = (400, 401, 408, 431, 500, 503)
"""What a question about the gateway itself may get."""
FORWARDED: Final = (400, 401, 404, 408, 413, 431, 500, 502, 503, 504)
"""The same for a question that an upstream answers."""

_NUMBER: Final[Schema] = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
_WHOLE: Final[Schema] = {"type": "string", "pattern": r"^\d+$"}


def _header(text: str, schema: Schema = _TEXT, *, required: bool = False) -> Schema:
    return {"description": text, "schema": schema} | ({"required": True} if required else {})


_ALWAYS: Final = {"x-request-id": _header("The request's id, as in ledger, log and traces", required=True)}
_TIMES: Final = {
    "openai-processing-ms": _header("Time until the answer's head (milliseconds)", _WHOLE, required=True),
    "x-trilith-overhead-ms": _header("Of that, the gateway's own (milliseconds)", _NUMBER, required=True),
}
_TOLD: Final = {
    "x-trilith-release": _header("Digest of the release that answered"),
    "x-trilith-fallback": _header("The model that answered in place of the one that was asked"),
    "x-trilith-cost-usd": _header("What was charged; a stream's cost is known only at its end", _NUMBER),
    "x-trilith-cache": _header("`hit`, `semantic`, `joined`, `miss` or `bypass`, where there is a cache"),
    "x-trilith-saved-usd": _header("What the answer cost when it was made", _NUMBER),
    "x-upstream-request-id": _header("The upstream's own id, where it gave another"),
    "x-ratelimit-limit-requests": _header("The key's requests per minute", _WHOLE),
    "x-ratelimit-remaining-requests": _header("How many could follow at once", _WHOLE),
    "x-ratelimit-reset-requests": _header("Until the full number is there again, such as `1.500s`"),
}
_RETRY: Final = {
    "retry-after": _header("When to try again (seconds)", _NUMBER),
    "x-should-retry": _header("`false`: trying again does not help"),
}


def _refer(*groups: Mapping[str, Schema]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for group in groups for name in group}


def described(
    body: Schema | None = None,
    *,
    answer: Schema | None = None,
    ok: int = 200,
    statuses: Iterable[int] = EXCHANGE,
    words: str = "OpenAIError",
    streams: bool = False,
    forwards: bool = False,
    form: bool = False,
    opaque: bool = False,
    written: str = "application/json",
) -> dict[str, Any]:
    """Return what a route's decorator is given.

    Args:
        body: JSON schema of the request's body.
        answer: JSON schema of the answer; any object without it.
        ok: The status of an answer.
        statuses: Every other status that the gateway may give.
        words: How errors are told, a name of the four.
        streams: Whether the answer may be a stream of server-sent events.
        forwards: Whether an upstream's own errors come through.
        form: Whether the body is a form, and not JSON.
        opaque: Whether the answer is bytes that nobody looks into, a sound for example.
        written: The media type of an answer that is neither JSON nor a stream.
    """
    exchanged = 415 in (statuses := tuple(statuses))
    error = {"application/json": {"schema": {"$ref": f"#/components/schemas/{words}"}}}
    media: dict[str, Any] = {"application/json": {"schema": answer or {"type": "object"}}}
    if written != "application/json":
        media = {written: {"schema": _TEXT}}
    if opaque:
        media["*/*"] = {}
    elif streams:
        media["text/event-stream"] = {}
    told = _refer(_ALWAYS, _TIMES, _TOLD) if exchanged else _refer(_ALWAYS)
    responses: dict[str, Any] = {str(ok): {"description": "The answer", "headers": told, "content": media}}
    for status in statuses:
        headers = told if status not in _UNREAD else _refer(_ALWAYS)
        if status in (429, 503):
            headers = headers | _refer(_RETRY)
        responses[str(status)] = {"description": _MEANINGS[status], "headers": headers, "content": error}
    if forwards:
        responses["default"] = {"description": "An upstream's error, as it came", "headers": _refer(_ALWAYS)}
    extra: dict[str, Any] = {}
    if body is not None:
        sent = "multipart/form-data" if form else "application/json"
        extra["requestBody"] = {"required": True, "content": {sent: {"schema": body}}}
    if 401 in statuses:
        extra["security"] = [{name: []} for name in _ACCESS]
    return _options(ok, responses, extra)


def open_route(answer: Schema | None = None, *, not_ready: bool = False) -> dict[str, Any]:
    """Return the same for a route that needs no key.

    Args:
        answer: JSON schema of the answer; None for plain text.
        not_ready: Whether 503 with the same body says that something is not ready.
    """
    media = {"application/json": {"schema": answer}} if answer else {"text/plain": {"schema": _TEXT}}
    responses: dict[str, Any] = {
        "200": {"description": "The answer", "headers": _refer(_ALWAYS), "content": media}
    }
    for status in (*_UNREAD, 500):
        responses[str(status)] = {
            "description": _MEANINGS[status],
            "headers": _refer(_ALWAYS),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}},
        }
    if not_ready:
        responses["503"] = {"description": "Not ready", "headers": _refer(_ALWAYS), "content": media}
    return _options(200, responses, {})


def _options(ok: int, responses: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "response_class": Response,
        "status_code": ok,
        "responses": responses,
        "openapi_extra": extra,
    }


def publish(app: FastAPI) -> None:
    """Make the page that `/openapi.json` gives."""
    made: dict[str, Any] = {}

    def page() -> dict[str, Any]:
        if not made:
            made.update(
                get_openapi(title=app.title, version=_VERSION, summary=app.summary, routes=app.routes)
            )
            for operations in made["paths"].values():
                for operation in operations.values():
                    said = operation[
                        "responses"
                    ]  # bodies are read by the pipeline, so FastAPI's 422 never comes
                    if "HTTPValidationError" in str(said.get("422")):
                        del said["422"]
            headers = {**_ALWAYS, **_TIMES, **_TOLD, **_RETRY}
            made["components"] = {"schemas": _COMPONENTS, "headers": headers, "securitySchemes": _ACCESS}
        return made

    app.openapi = page  # type: ignore[method-assign]  # FastAPI's own way to extend the page
