"""Between ASGI and the pipeline: reads the body with a limit, notices callers who leave, sends the answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.util.types import AttributeValue
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from trilith.errors import APIStatusError
from trilith.telemetry import fail, names
from trilith_gateway.exchange import Api, Exchange
from trilith_gateway.metric import Metrics
from trilith_gateway.pipeline import Pipeline

_log = logging.getLogger(__name__)


class ExchangeResponse(Response):
    """A response that runs the pipeline while it is being sent."""

    def __init__(
        self,
        request: Request,
        api: Api,
        *,
        pipeline: Pipeline,
        tracer: Tracer,
        metrics: Metrics,
        model: str | None = None,
    ) -> None:
        self.background = None
        self._pipeline = pipeline
        self._tracer = tracer
        self._metrics = metrics
        self._inbox = _Inbox(request.receive)
        self._exchange = Exchange(
            api=api,
            path=request.url.path,
            headers={name: value for name, value in request.headers.items()},
            receive_body=self._inbox.body,
            model_in_path=model,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the exchange; when the caller leaves first, cancel it, which aborts the upstream's work."""
        outlet = _Outlet(send)
        work = asyncio.ensure_future(self._run(outlet))
        gone = asyncio.ensure_future(self._inbox.gone())
        with self._metrics.open_requests.track_inprogress():
            try:
                await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # Also reached when the server cancels us. Cancelling a task that is done does nothing.
                gone.cancel()
                if not work.done():
                    work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work

    async def _run(self, outlet: _Outlet) -> None:
        exchange = self._exchange
        with self._tracer.start_as_current_span(
            f"{exchange.api} -",
            context=extract(exchange.headers),
            kind=SpanKind.SERVER,
            start_time=exchange.started_ns,
            attributes=_first_attributes(exchange.api),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            exchange.span = span
            try:
                await self._pipeline.run(exchange, outlet)
            except asyncio.CancelledError as error:
                fail(span, error)
                raise
            except Exception as error:
                fail(span, error)
                _log.exception("request %s could not be finished", exchange.id)


def _first_attributes(api: Api) -> Mapping[str, AttributeValue]:
    if api is Api.PREDICT:
        return {names.OPERATION_TRILITH: "predict", names.MODEL_NAME: "-"}
    return {names.OPERATION: api.value, names.PROVIDER: "trilith", names.REQUEST_MODEL: "-"}


class _Inbox:
    """What the caller sends: first the body, then perhaps a farewell."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read = asyncio.Event()
        self._left = False

    async def body(self, most_bytes: int) -> bytes:
        """Read the whole body.

        Raises:
            APIStatusError: 413, it is longer than `most_bytes`; counted as it comes, whatever was announced.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message: Message = await self._receive()
            if message["type"] == "http.disconnect":
                self._left = True
                self._read.set()
                await asyncio.Event().wait()  # `gone` returns now, and this task is cancelled
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most_bytes:
                raise APIStatusError(
                    f"The body is longer than {most_bytes:,} bytes (setting gateway.max_body_bytes).",
                    status_code=413,
                    code="request_too_large",
                    type="invalid_request_error",
                )
            if not message.get("more_body", False):
                self._read.set()
                return b"".join(parts)

    async def gone(self) -> None:
        """Return when the caller has left."""
        await self._read.wait()
        while not self._left:
            message = await self._receive()
            self._left = message["type"] == "http.disconnect"


class _Outlet:
    """Sends an answer through ASGI."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def start(self, status: int, headers: dict[str, str], *, length: int | None) -> None:
        if length is not None:
            headers = {**headers, "content-length": str(length)}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
