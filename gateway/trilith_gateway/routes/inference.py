"""The Open Inference Protocol, version 2, for predictors, and MLflow's way of asking the same."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from importlib.metadata import version
from typing import Any, cast

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from trilith.errors import APIError, APIStatusError
from trilith.seams import Call
from trilith.types import Kind
from trilith_gateway import fault, packing
from trilith_gateway import request as request_body
from trilith_gateway.api import Api
from trilith_gateway.exchange import model_not_found
from trilith_gateway.http import ExchangeResponse, _Outlet
from trilith_gateway.inference import mlflow, repository, sheet
from trilith_gateway.key import Key
from trilith_gateway.pipeline import Outlet
from trilith_gateway.platform import Platform
from trilith_gateway.release import Release
from trilith_gateway.routes import schema
from trilith_gateway.routes.access import caller, refusal, reply
from trilith_gateway.routes.page import FORWARDED, LISTING, described, open_route
from trilith_gateway.routes.readiness import Readiness

_MODEL = "/models/{name:path}"
_VERSION = _MODEL + "/versions/{version}"
_MOST_CONTROL_BYTES = 4096
_EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository"]
_STATE = {"type": "object", "required": ["ready"], "properties": {"ready": {"type": "boolean"}}}


def _asked(answer: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe a question about the server, or one that an upstream answers."""
    if answer is not None:
        return described(answer=answer, statuses=LISTING, words="InferenceError")
    return described(statuses=FORWARDED, words="InferenceError", forwards=True)


def _controlled() -> dict[str, Any]:
    """Describe what changes which models answer."""
    return described(statuses=(*FORWARDED, 403), words="InferenceError", forwards=True)


def router(platform: Platform, readiness: Readiness) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["inference"])
    _server(routes, platform, readiness)
    _inference(routes, platform)
    _models(routes, platform)
    _repository(routes, platform)
    return routes


def _server(routes: APIRouter, platform: Platform, readiness: Readiness) -> None:
    @routes.get("/v2", summary="Describe the server", **_asked(schema.SERVER))
    async def server(request: Request) -> Response:
        try:
            await caller(platform, request)
        except APIStatusError as error:
            return refusal(error, text=True)
        return reply({"name": "trilith", "version": version("trilith"), "extensions": _EXTENSIONS})

    @routes.get("/v2/health/live", summary="Say whether the server runs", **open_route({"type": "object"}))
    async def live() -> Response:
        return reply({"live": True})

    @routes.get(
        "/v2/health/ready",
        summary="Say whether every predictor can answer",
        **open_route(_STATE, not_ready=True),
    )
    async def ready() -> Response:
        states = await readiness.of(r for r in platform.releases if r.kind is Kind.PREDICTOR)
        state = all(states.values())
        return reply({"ready": state}, status=200 if state else 503)


def _inference(routes: APIRouter, platform: Platform) -> None:
    told = described(schema.INFERENCE, answer=schema.PREDICTED, words="InferenceError", forwards=True)

    @routes.post(f"/v2{_VERSION}/infer", summary="Predict with one version", **told)
    async def infer_version(request: Request, name: str, version: str) -> Response:
        return ExchangeResponse(request, Api.PREDICT, platform.front, model=name)

    @routes.post(f"/v2{_MODEL}/infer", summary="Predict", **told)
    async def infer(request: Request, name: str) -> Response:
        return ExchangeResponse(request, Api.PREDICT, platform.front, model=name)

    invoked = described(schema.INVOCATION, answer=schema.PREDICTIONS, words="MlflowError", forwards=True)

    @routes.post("/invocations", summary="Predict, in MLflow's words", **invoked)
    async def invocations(request: Request, model: str | None = None) -> Response:
        name = model or request.headers.get("x-trilith-model") or _only(platform)
        if name is None:
            try:
                await caller(platform, request)
            except APIStatusError as error:
                return reply(mlflow.error(error), status=error.status_code)
            message = (
                "no model is named; use /models/NAME/invocations, ?model=NAME or the header x-trilith-model"
            )
            return reply({"error_code": "BAD_REQUEST", "message": message}, status=400)
        return InvocationResponse(request, platform, name)

    @routes.post(
        f"{_MODEL}/invocations",
        summary="Predict with the named model, in MLflow's words",
        **invoked,
    )
    async def named_invocations(request: Request, name: str) -> Response:
        return InvocationResponse(request, platform, name)


def _models(routes: APIRouter, platform: Platform) -> None:
    async def ask(request: Request, name: str, below: str) -> Response:
        """Pass a question on to the model's upstream."""
        try:
            release = _predictor(platform, await caller(platform, request), name)
            return await repository.forward(
                release.upstream, Call(path=f"/v2/models/{name}{below}", body=b"")
            )
        except APIError as error:
            return _refused(error)

    @routes.get(f"/v2{_VERSION}/ready", summary="Say whether one version can answer", **_asked())
    async def version_ready(request: Request, name: str, version: str) -> Response:
        return await ask(request, name, f"/versions/{version}/ready")

    @routes.get(f"/v2{_MODEL}/ready", summary="Say whether a predictor can answer", **_asked())
    async def model_ready(request: Request, name: str) -> Response:
        try:
            state = await _predictor(platform, await caller(platform, request), name).upstream.ready()
        except APIStatusError as error:
            return refusal(error, text=True)
        return reply({"name": name, "ready": state}, status=200 if state else 503)

    async def configured(request: Request, name: str, below: str = "") -> Response:
        try:
            release = _predictor(platform, await caller(platform, request), name)
            return await repository.configured(release, below)
        except APIError as error:
            return _refused(error)

    @routes.get(f"/v2{_VERSION}/config", summary="Describe one version in Triton's words", **_asked())
    async def version_config(request: Request, name: str, version: str) -> Response:
        return await configured(request, name, f"/versions/{version}")

    @routes.get(f"/v2{_MODEL}/config", summary="Describe a predictor in Triton's words", **_asked())
    async def config(request: Request, name: str) -> Response:
        return await configured(request, name)

    @routes.get(f"/v2{_VERSION}", summary="Describe one version's inputs and outputs", **_asked())
    async def version_metadata(request: Request, name: str, version: str) -> Response:
        return await ask(request, name, f"/versions/{version}")

    @routes.get(f"/v2{_MODEL}", summary="Describe a predictor's inputs and outputs", **_asked())
    async def metadata(request: Request, name: str) -> Response:
        return await ask(request, name, "")


def _repository(routes: APIRouter, platform: Platform) -> None:
    @routes.post(
        "/v2/repository/index", summary="List the predictors and their versions", **_asked(schema.INDEX)
    )
    async def index(request: Request) -> Response:
        try:
            key = await caller(platform, request)
            only_ready = _only_ready(await _control_body(request))
        except APIStatusError as error:
            return refusal(error, text=True)
        mine = [r for r in platform.releases if r.kind is Kind.PREDICTOR and key.allows(r.model)]
        entries = [entry for release in mine for entry in await repository.entries(release)]
        return reply([entry for entry in entries if not only_ready or entry["state"] == "READY"])

    async def manage(request: Request, name: str, action: str) -> Response:
        try:
            release = _predictor(platform, await caller(platform, request), name)
            body = await _control_body(request)
            repository.check_load(body)
            return await repository.manage(release, action, body)
        except APIError as error:
            return _refused(error)

    @routes.post(
        f"/v2/repository{_MODEL}/load", summary="Load what the alias names, or one version", **_controlled()
    )
    async def load(request: Request, name: str) -> Response:
        return await manage(request, name, "load")

    @routes.post(f"/v2/repository{_MODEL}/unload", summary="Stop answering for a predictor", **_controlled())
    async def unload(request: Request, name: str) -> Response:
        return await manage(request, name, "unload")


class InvocationResponse(ExchangeResponse):
    """An exchange asked and answered in MLflow's words; in between it is an inference as any other."""

    def __init__(self, request: Request, platform: Platform, model: str) -> None:
        super().__init__(request, Api.PREDICT, platform.front, model=model)
        self._platform = platform
        self._model = model
        self._exchange.path = f"/v2/models/{model}/infer"
        self._read = self._exchange.read_body
        self._exchange.read_body = self._body

    async def _body(self, most_bytes: int) -> bytes:
        exchange = self._exchange
        table = mlflow.in_csv(exchange.headers)
        read = self._read(most_bytes)
        raw = await read if inspect.isawaitable(read) else read
        headers = dict(exchange.headers)
        encoding = headers.pop("content-encoding", "")
        exchange.headers = {**headers, "content-type": "application/json"}  # of what goes on
        raw = packing.unpacked(raw, encoding, most_bytes)
        if not table:
            return mlflow.to_inference(raw)
        release = _predictor(self._platform, exchange.caller, self._model)
        return mlflow.csv_to_inference(raw, sheet.described(await repository.described(release)))

    async def _run(self, outlet: Outlet) -> None:
        await super()._run(cast(_Outlet, _Translated(outlet)))


class _Translated:
    """Sends an inference answer on as MLflow's."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.start = outlet.start
        self.write = outlet.write
        self.finish = outlet.finish

    def send(self, status: int, headers: dict[str, str], body: bytes) -> Awaitable[None] | None:
        if status >= 400:
            return self._outlet.send(status, headers, mlflow.to_error(body, status))
        try:
            return self._outlet.send(status, headers, mlflow.to_predictions(body))
        except APIError as error:
            said = orjson.dumps(mlflow.error(error))
            return self._outlet.send(fault.status(error), headers, said)


def _only(platform: Platform) -> str | None:
    """Return the only predictor's name; None where there is none, or a choice."""
    names = [release.model for release in platform.releases if release.kind is Kind.PREDICTOR]
    return names[0] if len(names) == 1 else None


def _predictor(platform: Platform, key: Key, name: str) -> Release:
    release = platform.releases.find(name)
    if release is None or release.kind is not Kind.PREDICTOR or not key.allows(name):
        raise model_not_found(name, Api.PREDICT)
    return release


async def _control_body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_CONTROL_BYTES:
            raise APIStatusError(
                f"the body is longer than {_MOST_CONTROL_BYTES} bytes; models come from the registry alone",
                status_code=413,
            )
    return body


def _only_ready(body: bytes) -> bool:
    """Say whether the index is asked for models that can answer alone."""
    asked = request_body.decode(body).get("ready", False) if body.strip() else False
    if type(asked) is not bool:
        request_body.refuse("`ready` is not a boolean.", "ready")
    return asked


def _refused(error: APIError) -> Response:
    return reply({"error": error.message}, status=fault.status(error))
