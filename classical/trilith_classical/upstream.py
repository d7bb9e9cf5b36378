"""A predictor as an upstream: Open Inference Protocol calls in, replies out, no server in between."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from trilith.errors import (
    APIStatusError,
    DataError,
    InternalServerError,
    NotFoundError,
    TrilithError,
)
from trilith.seams import Call
from trilith_classical.manifest import InputColumn
from trilith_classical.predictor import OnnxPredictor
from trilith_classical.serving import answer as answers
from trilith_classical.serving import wire
from trilith_classical.serving.batch import Scored, Tensors
from trilith_classical.serving.feature import FeatureSource
from trilith_classical.serving.host import Loaded, ModelHost

_log = logging.getLogger(__name__)

_PATH = re.compile(
    r"/v2/models/(?P<model>.+?)(?:/versions/(?P<version>[^/]+))?(?P<action>/infer|/ready)?", re.DOTALL
)
_REPOSITORY = re.compile(r"/v2/repository/models/(?P<model>.+)/(?P<action>load|unload)", re.DOTALL)

_INLINE_BYTES = 32 * 1024
"""Bodies up to here are read on the event loop: a hop to a thread would cost more than the work."""
_INLINE_ROWS = 1024
"""Answers up to here are written on the event loop."""
_PATHS_KEPT = 256

ROWS = "x-trilith-rows"
"""Header of a reply: how many rows were scored."""
CPU_NS = "x-trilith-cpu-ns"
"""Header of a reply: CPU time (nanoseconds) of reading, scoring, writing; of a joined run its exact share."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Where columns come from that a call does not send."""

    source: FeatureSource
    """Features by entity."""
    entity: str = "entity"
    """The input that names each row's entity."""


class PredictorReply:
    """A whole answer."""

    __slots__ = ("_body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers: Mapping[str, str] = _JSON if headers is None else headers
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, once."""
        yield self._body

    async def aclose(self) -> None:
        """Do nothing: the work is done."""


_JSON = {"content-type": "application/json"}


class PredictorUpstream:
    """Answers `/v2/models/{m}[/versions/{v}]`, and `/infer` and `/ready` below it.

    Every reply to an inference carries the headers `ROWS` and `CPU_NS`.

    Args:
        name: The model's name where a call names none; answers carry the name that the call's path has.
        host: The versions in memory, or the only one.
        lookup: Where columns come from that a call does not send; None: every call sends all.
        control: Whether callers may load and unload the model (`/v2/repository/models/{m}/load`).
    """

    def __init__(
        self,
        name: str,
        host: ModelHost | OnnxPredictor,
        *,
        lookup: Lookup | None = None,
        control: bool = False,
    ) -> None:
        self.host = host if isinstance(host, ModelHost) else ModelHost(host)
        self._name = name
        self._lookup = lookup
        self._control = control
        self._paths: dict[str, tuple[str, str | None, str | None]] = {}

    async def send(self, call: Call) -> PredictorReply:
        """Answer one call; what is wrong with it is the reply's body, `{"error": "..."}`."""
        self.host.follow()
        try:
            name, version, action = self._paths.get(call.path) or self._parse(call.path)
            if action == "/infer":
                loaded = self.host.find(version)
                loaded.open += 1
                try:
                    return await self._infer(call, loaded, name)
                finally:
                    self.host.leave(loaded)
            if action in ("load", "unload"):
                return await self._manage(call, name, action)
            return self._describe(name, version, action)
        except APIStatusError as error:
            return PredictorReply(error.status_code, orjson.dumps({"error": error.message}))

    async def ready(self) -> bool:
        """Say whether the model may be called: it is loaded and warmed up before it is an upstream."""
        self.host.follow()
        return self.host.loaded

    def version(self) -> str | None:
        """Name the version that the alias has; None where answers depend on features, which change alone."""
        self.host.follow()
        return None if self._lookup is not None else self.host.present.version

    async def aclose(self) -> None:
        """Stop watching the alias; the model's memory goes with the object."""
        self.host.close()
        if self._lookup is not None:
            self._lookup.source.close()

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's description of the model."""
        return self.host.present.predictor.metadata(model_name=self._name, versions=self.host.versions)

    def _parse(self, path: str) -> tuple[str, str | None, str | None]:
        found = _PATH.fullmatch(path)
        if found is not None:
            parsed = (found["model"], found["version"], found["action"])
        elif (found := _REPOSITORY.fullmatch(path)) is not None:
            parsed = (found["model"], None, found["action"])
        else:
            raise NotFoundError(f"{path[:200]!r} is not a path of the inference protocol", status_code=404)
        if len(self._paths) < _PATHS_KEPT:  # versions are the caller's words, so there is no end to them
            self._paths[path] = parsed
        return parsed

    def _describe(self, name: str, version: str | None, action: str | None) -> PredictorReply:
        if action == "/ready" and not self.host.loaded:
            return PredictorReply(503, orjson.dumps({"name": name, "ready": False}))
        loaded = self.host.find(version)
        if action == "/ready":
            return PredictorReply(200, orjson.dumps({"name": name, "ready": True}))
        versions = self.host.versions if version is None else [version]
        described = loaded.predictor.metadata(model_name=name, versions=versions)
        if self._lookup is not None:
            described["parameters"] = {"entity": self._lookup.entity}
        return PredictorReply(200, orjson.dumps(described))

    async def _manage(self, call: Call, name: str, action: str) -> PredictorReply:
        if not self._control:
            raise wire.uncontrolled(name)
        if action == "unload":
            self.host.loaded = False
            return PredictorReply(200, b"{}")
        parameters = (_request(call) if call.body else {}).get("parameters")
        version = parameters.get("version") if isinstance(parameters, dict) else None
        try:
            if version is not None:
                await self.host.add(str(version))
            await self.host.refresh()
        except TrilithError as error:
            if isinstance(error, APIStatusError):
                raise
            _log.warning("%s was not loaded: %s", name, error)
            raise NotFoundError(f"{name!r} cannot be loaded in that version", status_code=404) from error
        self.host.loaded = True
        return PredictorReply(200, b"{}")

    async def _infer(self, call: Call, loaded: Loaded, name: str) -> PredictorReply:
        predictor = loaded.predictor
        started = time.thread_time_ns()
        request = _request(call)
        wanted = answers.wanted(request, predictor.manifest.outputs)
        if len(call.body) <= _INLINE_BYTES:
            tensors = self._read(loaded, request)
            cpu_ns = time.thread_time_ns() - started
        else:
            cpu_ns = time.thread_time_ns() - started
            loop = asyncio.get_running_loop()
            tensors, took = await loop.run_in_executor(self.host.pool(), self._timed, loaded, request)
            cpu_ns += took
        rows = len(next(iter(tensors.values())))
        scored = await _score(loaded, tensors, rows)
        started = time.thread_time_ns()
        arguments = (request, wanted, scored.arrays)
        if rows <= _INLINE_ROWS:
            answer, headers = wire.write(*predictor.answer(*arguments, model_name=name))
        else:
            answer, headers = await asyncio.get_running_loop().run_in_executor(
                self.host.pool(), lambda: wire.write(*predictor.answer(*arguments, model_name=name))
            )
        cpu_ns += scored.cpu_ns + time.thread_time_ns() - started
        headers[ROWS] = str(rows)
        headers[CPU_NS] = str(cpu_ns)
        return PredictorReply(200, answer, headers)

    def _timed(self, loaded: Loaded, request: Mapping[str, Any]) -> tuple[Tensors, int]:
        started = time.thread_time_ns()
        tensors = self._read(loaded, request)
        return tensors, time.thread_time_ns() - started

    def _read(self, loaded: Loaded, request: Mapping[str, Any]) -> Tensors:
        if self._lookup is not None:
            request = looked_up(self._lookup, request, loaded.predictor.manifest.inputs)
        return loaded.predictor.reader.read(request)


async def _score(loaded: Loaded, tensors: Tensors, rows: int) -> Scored:
    try:
        given = loaded.batcher.submit(tensors, rows)
        return given if type(given) is Scored else await given  # type: ignore[misc]
    except APIStatusError:
        raise
    except Exception as error:  # onnxruntime's own; its words may hold the caller's values
        _log.warning("version %s failed: %s", loaded.version, type(error).__name__)
        raise InternalServerError("the model could not score this request", status_code=500) from error


def _request(call: Call) -> Mapping[str, Any]:
    return call.json if call.json is not None else wire.read(call.body, call.headers)


def looked_up(
    lookup: Lookup, request: Mapping[str, Any], columns: tuple[InputColumn, ...]
) -> Mapping[str, Any]:
    """Return the request with the columns that its entities have and it does not send itself.

    Raises:
        BadRequestError: an entity is unknown, or its features do not fit the model.
        InternalServerError: 503, the features cannot be read.
    """
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(tensor, dict) for tensor in inputs):
        return request  # whoever reads it next says what is wrong
    entities = next((tensor for tensor in inputs if tensor.get("name") == lookup.entity), None)
    if entities is None:
        return request
    sent = [tensor for tensor in inputs if tensor is not entities]
    names = {name for tensor in sent if isinstance(name := tensor.get("name"), str)}
    ids = entities.get("data")
    if (
        entities.get("datatype") != "BYTES"
        or not isinstance(ids, list)
        or not all(type(i) is str for i in ids)
    ):
        wire.refuse(f"input {lookup.entity!r}: expected a flat list of texts (BYTES), which name entities")
    if entities.get("shape") not in ([len(ids)], [len(ids), 1]):  # it is what a caller's rows are counted by
        wire.refuse(f"input {lookup.entity!r}: `shape` is not that of its {len(ids)} entities")
    try:
        found = lookup.source.fetch(ids)
    except DataError as error:
        _log.warning("features cannot be looked up: %s", error)
        message = "the features of these entities cannot be looked up now"
        raise InternalServerError(message, status_code=503, code="features_unavailable") from error
    rows = []
    for row, features in enumerate(found):
        if features is None:
            wire.refuse(f"input {lookup.entity!r}: row {row} (from 0) names an entity that has no features")
        rows.append(features)
    for column in columns:
        if column.name not in names:
            data = [features.get(column.name) for features in rows]
            sent.append(
                {"name": column.name, "shape": [len(ids)], "datatype": _STORED[column.datatype], "data": data}
            )
    return {**request, "inputs": sent}


_STORED = {"FP32": "FP64", "INT64": "INT64", "BOOL": "BOOL", "BYTES": "BYTES"}
"""As what stored features are read, for a column's datatype."""
