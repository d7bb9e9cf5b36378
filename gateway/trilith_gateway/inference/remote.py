"""A predictor behind another server of the Open Inference Protocol: Triton, MLServer, KServe, ourselves."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from trilith.errors import APIConnectionError
from trilith.seams import Call, Reply
from trilith_classical.serving import wire
from trilith_gateway import sse
from trilith_gateway.inference import request as requests
from trilith_gateway.upstream.http import HttpUpstream

_PATH = re.compile(
    r"/v2/(?P<where>models|repository/models)/(?P<model>.+?)(?:/versions/(?P<version>[^/]+))?"
    r"(?P<action>/infer|/ready|/load|/unload)?",
    re.DOTALL,
)
_READY_S = 5.0


class RemoteReply:
    """Another server's answer with the number of rows beside it."""

    def __init__(
        self, status: int, headers: Mapping[str, str], body: bytes, reply: Reply | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._reply = reply

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        if self._reply is None:
            yield self._body
            return
        async for part in self._reply.chunks():
            yield part

    async def aclose(self) -> None:
        """Give the answer up."""
        if self._reply is not None:
            await self._reply.aclose()


class RemotePredictor:
    """Sends a model's calls to another server, under the name that the model has there.

    Args:
        url: Base URL, with or without `/v2`.
        model: The server's own name of the model.
        public: The model's name here, which answers carry.
        api_key: The server's credential.
        control: Whether callers may load and unload the model there.
        http: The client, where it is not made from the URL.
    """

    def __init__(
        self,
        url: str,
        model: str,
        public: str,
        *,
        api_key: str | None = None,
        control: bool = False,
        http: HttpUpstream | None = None,
    ) -> None:
        self._control = control
        self.inner = self._http = http or HttpUpstream(url.rstrip("/").removesuffix("/v2"), api_key=api_key)
        self._model = model
        self._public = public

    async def send(self, call: Call) -> Reply:
        """Send one call.

        Raises:
            APIConnectionError: nothing answered, or nothing that the protocol knows.
            PermissionDeniedError: the model would be loaded or unloaded, and callers may not do that.
        """
        path, action, name = self._path(call.path)
        if action in ("", "/ready"):
            status, body = await self._http.fetch(path, timeout_s=call.timeout_s)
            return RemoteReply(status, {"content-type": "application/json"}, self._named(body, status, name))
        if action in ("/load", "/unload") and not self._control:
            raise wire.uncontrolled(self._public)
        headers = {**call.headers, "content-type": "application/json"}
        if requests.HEADER in headers:
            headers["content-type"] = "application/octet-stream"
        reply = await self._http.send(Call(path, call.body, headers, timeout_s=call.timeout_s))
        if action != "/infer" or reply.status >= 400:
            return reply
        given = {**reply.headers, "x-trilith-rows": str(_rows(call))}
        if self._model == name:
            return RemoteReply(reply.status, given, b"", reply)
        whole = b"".join([part async for part in reply.chunks()])
        told = given.get(requests.HEADER, "")
        length = int(told) if told.isdecimal() else len(whole)
        head = self._named(whole[:length], reply.status, name)
        if requests.HEADER in given:
            given[requests.HEADER] = str(len(head))
        given.pop("content-length", None)
        return RemoteReply(reply.status, given, head + whole[length:])

    async def ready(self) -> bool:
        """Say whether the server says that the model is ready."""
        path, *_ = self._path(f"/v2/models/{self._public}/ready")
        try:
            status, _ = await self._http.fetch(path, timeout_s=_READY_S)
        except APIConnectionError:
            return False
        return status == 200

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _path(self, path: str) -> tuple[str, str, str]:
        """Return the server's own path, what it asks for, and the name that the answer shall carry."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise ValueError(f"{path!r} is not a path of the inference protocol")
        version, action = found["version"], found["action"] or ""
        place = f"/v2/{found['where']}/{quote(self._model, safe='')}"
        below = f"/versions/{quote(version, safe='')}" if version else ""
        return f"{place}{below}{action}", action, found["model"]

    def _named(self, head: bytes, status: int, name: str) -> bytes:
        """Return a JSON object that carries the model's name here instead of the server's."""
        if status >= 400 or self._model == name:
            return head
        body = _object(head)
        for field in ("name", "model_name"):
            if body.get(field) == self._model:
                body[field] = name
        return sse.dump(body)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if type(body) is not dict:
        raise APIConnectionError("the server's answer is not a JSON object, as the protocol says")
    return body


def _rows(call: Call) -> int:
    body: Mapping[str, Any] = call.json or requests.parse(call.body, call.headers)
    return int(body["inputs"][0]["shape"][0])
