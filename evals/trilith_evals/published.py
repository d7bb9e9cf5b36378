"""Runs that a gateway keeps: uploaded with an admin key, and read again by their id."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trilith.errors import DataError, NotFoundError, PermissionDeniedError, TrilithError
from trilith_evals import archive, recorded
from trilith_evals.recorded import RecordedSuite
from trilith_evals.report import Report

PREFIX = "gateway:"
"""How a run is named that lies on a gateway, and not in a file: `gateway:evalrun_...`."""
_RUNS = "/admin/v1/evals/runs"
_TIMEOUT_S = 120.0


def publish(report: Report, base_url: str | None, api_key: str | None) -> str:
    """Upload a run, with what `--json` would write; returns its id. The same run twice is one.

    What is no finite number goes as null, as JSON has no other way to say it.

    Raises:
        TrilithError: the gateway did not take it.
    """
    told = _call("POST", _RUNS, _plain(report.to_json()), base_url, api_key)
    return str(told.get("id"))


def fetch(named: str, base_url: str | None = None, api_key: str | None = None) -> Mapping[str, Any]:
    """Return the plain JSON values of a run that a gateway keeps.

    Args:
        named: `gateway:` and the run's id.
        base_url: The gateway; TRILITH_BASE_URL when None.
        api_key: An admin key; TRILITH_API_KEY when None.

    Raises:
        TrilithError: there is none, or the key may not read it.
    """
    told = _call("GET", f"{_RUNS}/{quote(named.removeprefix(PREFIX), safe='')}", None, base_url, api_key)
    run = told.get("run")
    if not isinstance(run, dict):
        raise DataError(f"{named}: the answer holds no run; check that base_url is a gateway's")
    return run


def report_of(named: str) -> Report:
    """Return a run by the name of its file, or by its id on the gateway.

    Raises:
        TrilithError: it cannot be read.
    """
    return archive.report(fetch(named), named) if named.startswith(PREFIX) else archive.read(Path(named))


def suites_of(
    named: str, base_url: str | None = None, api_key: str | None = None
) -> dict[str, RecordedSuite]:
    """Return a run's suites to compare them; arguments as of `report_of` and `fetch`."""
    if not named.startswith(PREFIX):
        return recorded.read(Path(named))
    return recorded.suites(fetch(named, base_url, api_key), named)


def _call(
    method: str, path: str, body: Mapping[str, Any] | None, base_url: str | None, api_key: str | None
) -> dict[str, Any]:
    from trilith.client.driver import Driver
    from trilith.client.http import HttpWire
    from trilith.client.operation import Operation
    from trilith.client.session import origin, session

    wire = HttpWire(origin(base_url))
    try:
        call = Operation(method, path, body, _object, {})
        return Driver(wire, session(api_key, _TIMEOUT_S, 2, None)).run(call)
    except PermissionDeniedError as error:
        raise TrilithError(error.message) from error
    except NotFoundError as error:
        hint = "" if error.code == "run_not_found" else " Is base_url that of a gateway that keeps runs?"
        raise TrilithError(error.message + hint) from error
    finally:
        wire.close()


def _object(value: Any, request_id: str | None) -> dict[str, Any]:
    return dict(value)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: what is no finite number is null, what has no form is a text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a model may answer with lone surrogates
    return value if isinstance(value, bool | int | float | None) else str(value)
