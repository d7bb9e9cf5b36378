"""The repository's part of the protocol: what there is of a model, and loading it, over all of its replicas.

A call may be answered by any replica; what changes or lists what they serve is for every one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.responses import Response

from trilith.errors import APIError
from trilith.seams import Call, Upstream
from trilith_gateway import fault, request
from trilith_gateway.release import Release
from trilith_gateway.routing.routed import RoutedUpstream


async def forward(upstream: Upstream, call: Call) -> Response:
    """Send a call and return its answer, whole.

    Raises:
        APIError: there is none.
    """
    given = await upstream.send(call)
    try:
        body = b"".join([part async for part in given.chunks()])
    finally:
        await given.aclose()
    return Response(body, status_code=given.status, media_type="application/json")


async def described(release: Release) -> dict[str, Any]:
    """Return what a model's upstream says of it; nothing where it does not.

    Raises:
        APIError: it does not answer.
    """
    answer = await forward(release.upstream, Call(path=f"/v2/models/{release.model}", body=b""))
    return _object(answer) if answer.status_code < 400 else {}


async def configured(release: Release, below: str) -> Response:
    """Return a model's configuration; `below` names a version (`/versions/3`), or nothing.

    Raises:
        APIError: the upstream does not answer.
    """
    answer = await forward(release.upstream, Call(path=f"/v2/models/{release.model}{below}", body=b""))
    if answer.status_code >= 400:
        return answer
    return Response(orjson.dumps(configuration(_object(answer))), media_type="application/json")


def configuration(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a model's description in the words of Triton's model configuration.

    Shapes are whole, so `max_batch_size` is 0: that is how Triton says that rows are a dimension like others.
    """
    return {
        "name": metadata.get("name", ""),
        "platform": metadata.get("platform", ""),
        "max_batch_size": 0,
        "input": [_configured(one) for one in metadata.get("inputs", ())],
        "output": [_configured(one) for one in metadata.get("outputs", ())],
    }


def check_load(body: bytes) -> None:
    """Refuse what would make another model of one: a configuration, or files.

    Raises:
        BadRequestError: so it is, or the body is not JSON.
    """
    parameters = (request.decode(body) if body.strip() else {}).get("parameters") or {}
    if not isinstance(parameters, dict) or not parameters.keys() <= _LOADED:
        request.refuse(
            f"`parameters` may hold {' and '.join(sorted(_LOADED))}; models come from the registry alone.",
            "parameters",
        )


_LOADED = {"version", "unload_dependents"}


def _configured(tensor: dict[str, Any]) -> dict[str, Any]:
    datatype = str(tensor.get("datatype", ""))
    name = "STRING" if datatype == "BYTES" else datatype
    return {"name": tensor.get("name", ""), "data_type": f"TYPE_{name}", "dims": tensor.get("shape", [])}


async def manage(release: Release, action: str, body: bytes) -> Response:
    """Load or unload a model, at every replica; where one does not, the answer is its error.

    Raises:
        APIError: the only upstream does not answer, or the settings do not let callers do so.
    """
    places = _places(release)
    call = Call(path=f"/v2/repository/models/{release.model}/{action}", body=body)
    if len(places) == 1:
        return await forward(places[0], call)
    answers = await asyncio.gather(*(_told(place, call) for place in places))
    failed = [at for at, (status, _) in enumerate(answers) if status >= 400]
    if not failed:
        return Response(b"{}", media_type="application/json")
    status, said = max((answers[at] for at in failed), key=lambda answer: answer[0])
    done = len(places) - len(failed)
    message = f"{action} was done at {done} of {len(places)} replicas; another says: {said or status}"
    return Response(
        orjson.dumps({"error": message if done else said}),
        status_code=status,
        media_type="application/json",
    )


async def entries(release: Release) -> list[dict[str, str]]:
    """Return a model's part of the index; a version that only some replicas have says at how many."""
    call = Call(path=f"/v2/models/{release.model}", body=b"")
    found = await asyncio.gather(*(_versions(place, call) for place in _places(release)))
    counted: dict[str, int] = {}
    for versions, _ in found:
        for version in versions:
            counted[version] = counted.get(version, 0) + 1
    if not counted:
        return [_entry(release, "", "UNAVAILABLE", found[0][1])]
    listed = []
    for version, times in counted.items():
        reason = "" if times == len(found) else f"at {times} of {len(found)} replicas"
        listed.append(_entry(release, version, "READY", reason))
    return listed


def _entry(release: Release, version: str, state: str, reason: str) -> dict[str, str]:
    return {"name": release.model, "version": version, "state": state, "reason": reason}


def _places(release: Release) -> Sequence[Upstream]:
    upstream = release.upstream
    if isinstance(upstream, RoutedUpstream):
        return [endpoint.upstream for endpoint in upstream.endpoints]
    return [upstream]


async def _told(place: Upstream, call: Call) -> tuple[int, str]:
    """Return an answer's status, and its error's text."""
    try:
        answer = await forward(place, call)
    except APIError as error:
        return fault.status(error), error.message
    return answer.status_code, str(_object(answer).get("error", "")) if answer.status_code >= 400 else ""


async def _versions(place: Upstream, call: Call) -> tuple[list[str], str]:
    """Return which versions a replica has, or else why it has none."""
    try:
        answer = await forward(place, call)
    except APIError as error:
        return [], error.message
    told = _object(answer)
    if answer.status_code >= 400:
        return [], str(told.get("error", "")) or f"status {answer.status_code}"
    versions = told.get("versions")
    if not told:
        return [], "no valid answer"
    return [str(version) for version in versions] if isinstance(versions, list) and versions else [""], ""


def _object(answer: Response) -> dict[str, Any]:
    try:
        said = orjson.loads(bytes(answer.body))
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
