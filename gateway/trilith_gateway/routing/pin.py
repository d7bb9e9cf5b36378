"""Lets a caller ask for one release of a model by its digest, before it has any traffic.

What may answer in a model's name is its own release, those of its `candidates`, and those that its routes
lead to. A key needs the right to call the candidate's own name as well, so that asking by digest opens no
door. Only what belongs to the release itself, its cascade, may answer for it: neither fallbacks nor routes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trilith.errors import NotFoundError, PermissionDeniedError
from trilith_gateway.exchange import Exchange
from trilith_gateway.release import Release

HEADER = "trilith-release"
"""Of a request: which release must answer, by digest. `x-trilith-release` of an answer says who did."""


def pinned(exchange: Exchange, release: Release, find: Callable[[str], Release | None]) -> Release:
    """Return the release whose digest the caller names; nothing else will answer in its place.

    Raises:
        NotFoundError: no release that may answer for the model has this digest.
        PermissionDeniedError: the key may not call the model that has it.
    """
    wanted = exchange.headers[HEADER].strip().removeprefix("sha256:")
    routes = [route.model for route in release.routes if route.model is not None]
    known = [release]
    for name in dict.fromkeys((*release.candidates, *routes)):
        other = find(name)
        if other is not None and other.kind in exchange.operation.kinds:
            known.append(other)
    found = next((one for one in known if one.digest == wanted), None)
    if found is None:
        raise _unknown(wanted, release.model, [one for one in known if exchange.caller.allows(one.model)])
    if not exchange.caller.allows(found.model):
        raise PermissionDeniedError(
            f"This key may not call the model {found.model!r}, whose release {wanted!r} it asks for.",
            status_code=403,
            code="release_denied",
            type="permission_error",
        )
    exchange.pinned = found.digest
    exchange.trail.append(("release", found.digest, found.model))
    return replace(found.priced(batched=exchange.batched), routes=(), fallbacks=())


def _unknown(wanted: str, model: str, known: list[Release]) -> NotFoundError:
    names = ", ".join(f"{one.digest} ({one.model})" for one in known)
    return NotFoundError(
        f"No release {wanted[:64]!r} may answer for the model {model!r}; expected one of {names}. "
        "The model's setting `candidates` names more.",
        status_code=404,
        code="release_not_found",
        type="invalid_request_error",
    )
