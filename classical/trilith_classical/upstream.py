"""A predictor as an upstream: Open Inference Protocol calls in, replies out, no server in between."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from trilith.errors import APIStatusError, NotFoundError
from trilith.seams import Call
from trilith_classical.predictor import OnnxPredictor
from trilith_classical.tensor import refuse

_PATH = re.compile(
    r"^/v2/models/(?P<model>.+?)(?:/versions/(?P<version>[^/]+))?(?P<action>/infer|/ready)?$", re.DOTALL
)

_INLINE_BYTES = 8 * 1024
"""Bodies up to here are answered on the event loop: a hop to a thread would cost more than the work."""


class PredictorReply:
    """A whole answer."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": "application/json", **(headers or {})}
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, once."""
        yield self._body

    async def aclose(self) -> None:
        """Do nothing: the work is done."""


class PredictorUpstream:
    """Answers `/v2/models/{m}[/versions/{v}]`, and `/infer` and `/ready` below it.

    Every reply to an inference carries `x-trilith-rows`, the number of rows that were scored.

    Args:
        name: The model's name where a call names none; answers carry the name that the call's path has.
        predictor: The loaded model.
    """

    def __init__(self, name: str, predictor: OnnxPredictor) -> None:
        self._name = name
        self._predictor = predictor

    async def send(self, call: Call) -> PredictorReply:
        """Answer one call; what is wrong with it is the reply's body, `{"error": "..."}`."""
        if len(call.body) <= _INLINE_BYTES:
            return self._answer(call)
        return await asyncio.to_thread(self._answer, call)

    async def ready(self) -> bool:
        """Return True: a predictor is loaded and warmed up before it is an upstream."""
        return True

    async def aclose(self) -> None:
        """Do nothing; the model's memory goes with the object."""

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's description of the model."""
        return self._predictor.metadata(model_name=self._name)

    def _answer(self, call: Call) -> PredictorReply:
        try:
            return self._route(call)
        except APIStatusError as error:
            return PredictorReply(error.status_code, _dump({"error": error.message}))

    def _route(self, call: Call) -> PredictorReply:
        path = _PATH.match(call.path)
        if path is None:
            raise NotFoundError(f"{call.path!r} is not a path of the inference protocol", status_code=404)
        name, version = path["model"], self._predictor.model.version
        if path["version"] not in (None, version):
            raise NotFoundError(
                f"version {path['version']!r} of {name!r} is not served, version {version} is",
                status_code=404,
            )
        if path["action"] == "/ready":
            return PredictorReply(200, _dump({"name": name, "ready": True}))
        if path["action"] is None:
            return PredictorReply(200, _dump(self._predictor.metadata(model_name=name)))
        answer = self._predictor.infer(_read(call.body), model_name=name)
        rows = answer["outputs"][0]["shape"][0]
        return PredictorReply(200, _dump(answer), {"x-trilith-rows": str(rows)})


def _read(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        refuse("the body is not valid JSON")
    if not isinstance(request, dict):
        refuse("the body is not a JSON object")
    return request


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
