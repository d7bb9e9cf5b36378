"""A client's standing choices, and how a request is made from them and one operation."""

from __future__ import annotations

import functools
import json
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import propagate

from trilith.client.operation import Operation
from trilith.client.wire import Request
from trilith.errors import DataError, SettingsError


@dataclass(frozen=True, slots=True)
class Session:
    """What every call of a client shares."""

    api_key: str | None = field(repr=False)
    """None: calls carry no key."""
    timeout_s: float = 60.0
    max_retries: int = 2
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to every request; lower-case names."""

    def __post_init__(self) -> None:
        _seconds(self.timeout_s)
        if self.max_retries < 0:
            raise SettingsError(f"max_retries is {self.max_retries!r}, expected 0 or more")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            # Without the key itself: errors end up in logs.
            raise SettingsError("the api_key holds a line break or other odd characters; pass the key alone")

    def but(
        self, timeout_s: float | None, max_retries: int | None, headers: Mapping[str, str] | None
    ) -> Session:
        """Return a copy with other choices; None keeps the present one."""
        return replace(
            self,
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            max_retries=self.max_retries if max_retries is None else max_retries,
            headers={**self.headers, **lower(headers)},
        )

    def request(self, operation: Operation[Any]) -> Request:
        """Make the request that all tries of one call send."""
        options = operation.options
        headers = {"accept": "application/json", "user-agent": _user_agent()}
        if self.api_key is not None:
            headers["authorization"] = f"Bearer {self.api_key}"
        body = b""
        if operation.body is not None:
            headers["content-type"] = "application/json"
            body = dump({**operation.body, **(options.get("extra_body") or {})})
            if self.max_retries > 0:
                # A gateway that knows the key answers a second try with the first one's answer.
                headers["idempotency-key"] = f"trilith-{uuid.uuid4()}"
        timeout_s = options.get("timeout_s")
        timeout_s = self.timeout_s if timeout_s is None else _seconds(timeout_s)
        headers |= _deadline(timeout_s, streamed=(operation.body or {}).get("stream") is True)
        propagate.inject(headers)
        headers |= {**self.headers, **lower(options.get("extra_headers"))}
        if key := options.get("idempotency_key"):
            headers |= lower({"idempotency-key": key})
        return Request(operation.method, operation.path, headers, body, timeout_s)


def session(
    api_key: str | None, timeout_s: float, max_retries: int, headers: Mapping[str, str] | None
) -> Session:
    """Return a session; the key is TRILITH_API_KEY's when None."""
    key = os.environ.get("TRILITH_API_KEY") if api_key is None else api_key
    return Session(key or None, timeout_s, max_retries, lower(headers))


def origin(base_url: str | None) -> str:
    """Return the server's address without `/v1` and without a slash at its end.

    Raises:
        SettingsError: there is none, or it is no address.
    """
    given = base_url or os.environ.get("TRILITH_BASE_URL")
    if not given:
        raise SettingsError(
            "no base_url: pass base_url=..., or set TRILITH_BASE_URL, for example to http://127.0.0.1:8080"
        )
    try:
        parts = urlsplit(given)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        sound = False
    if "@" in given:
        # Without the address itself: errors end up in logs.
        raise SettingsError("base_url holds a user name or a password; pass the key as api_key instead")
    if not sound or not given.isprintable() or set(given) & set(" ?#"):
        raise SettingsError(f"base_url is {given!r}, expected an address like http://127.0.0.1:8080")
    return given.rstrip("/").removesuffix("/v1").rstrip("/")


def lower(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return headers with lower-case names.

    Raises:
        DataError: a name or a value cannot be sent.
    """
    for name, value in (headers or {}).items():
        if not (name and name.isascii() and value.isascii() and f"{name}{value}".isprintable()):
            raise DataError(f"header {name!r} cannot be sent, expected printable ASCII in one line")
    return {name.lower(): value for name, value in (headers or {}).items()}


def dump(value: object) -> bytes:
    """Return compact UTF-8 JSON.

    Raises:
        DataError: it holds something that JSON cannot carry.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:  # UnicodeEncodeError (a lone surrogate) is a ValueError
        raise DataError(f"the request cannot be written as JSON: {error}") from error


def _deadline(timeout_s: float, *, streamed: bool) -> dict[str, str]:
    """Tell the gateway how long we wait, so that nothing is worked at that nobody waits for.

    A stream may last as long as it likes while it says something; so what is told is the longest silence.
    """
    if streamed:
        return {"x-stainless-read-timeout": f"{timeout_s:g}"}
    return {"x-request-timeout-ms": str(max(1, round(timeout_s * 1000)))}


def _seconds(timeout_s: float) -> float:
    if not 0 < timeout_s < math.inf:
        raise SettingsError(f"timeout_s is {timeout_s!r}, expected a number of seconds above 0")
    return timeout_s


@functools.cache
def _user_agent() -> str:
    from importlib.metadata import version

    return f"trilith/{version('trilith')}"
