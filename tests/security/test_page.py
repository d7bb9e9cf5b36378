"""The OpenAPI page tells the truth: schemathesis finds nothing, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fuzz import aimed, schemathesis
from support.gateway import Gateway
from support.world import TARGETS, runs, stock, world

from trilith_gateway.store import sqlite

EXAMPLES = 6
"""Random requests to each operation, beside some fifty that cover each of its schema's corners."""
OPEN = {
    "/health",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/ping",
    "/v2/health/live",
    "/v2/health/ready",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with world(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="module")
def page(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{gateway.url}/openapi.json").json()
    return found


def revoked(gateway: Gateway) -> str:
    token = gateway.mint()
    with closing(sqlite.connect(sqlite.database(gateway.home))) as connection:
        connection.execute("update keys set revoked_at = 1 where id = ?", (token.split("_")[1],))
    gateway.platform.keys.reload()
    return token


def test_schemathesis_finds_nothing_with_a_key(
    gateway: Gateway, page: dict[str, Any], tmp_path: Path
) -> None:
    there = aimed(page, TARGETS | stock(gateway))
    code, said = schemathesis(gateway.url, there, tmp_path, key=gateway.token, examples=EXAMPLES)
    assert code == 0, said


def test_schemathesis_finds_nothing_with_an_admin_key(
    gateway: Gateway, page: dict[str, Any], tmp_path: Path
) -> None:
    token = gateway.mint(admin=True)
    there = aimed(page, TARGETS | runs(gateway, token))
    there["paths"] = {path: what for path, what in there["paths"].items() if path.startswith("/admin/")}
    code, said = schemathesis(gateway.url, there, tmp_path, key=token, examples=EXAMPLES)
    assert code == 0, said
    assert len(there["paths"]) == 5


@pytest.mark.parametrize("caller", ["a stranger", "a revoked key"])
def test_schemathesis_finds_nothing_without_one(
    gateway: Gateway, page: dict[str, Any], tmp_path: Path, caller: str
) -> None:
    key = None if caller == "a stranger" else revoked(gateway)
    there = aimed(page, TARGETS | stock(gateway))
    code, said = schemathesis(gateway.url, there, tmp_path, key=key, examples=2, phases="fuzzing")
    assert code == 0, said


def test_schemathesis_would_find_a_status_that_the_page_does_not_name(
    gateway: Gateway, page: dict[str, Any], tmp_path: Path
) -> None:
    lying = aimed(page, TARGETS)
    lying["paths"] = {"/v1/models": lying["paths"]["/v1/models"]}
    del lying["paths"]["/v1/models"]["get"]["responses"]["401"]
    code, said = schemathesis(gateway.url, lying, tmp_path, key=None, examples=1)
    assert code == 1
    assert "Undocumented" in said


def test_every_operation_says_who_may_ask_and_how_it_refuses(page: dict[str, Any]) -> None:
    schemes = page["components"]["securitySchemes"]
    for path, operations in page["paths"].items():
        for method, operation in operations.items():
            asked = operation.get("security", [])
            assert bool(asked) is (path not in OPEN), (method, path)
            assert all(name in schemes for one in asked for name in one)
            for status, response in operation["responses"].items():
                if status.isdecimal() and int(status) >= 400 and status != "503":
                    assert response["content"]["application/json"]["schema"], (method, path, status)


def test_every_reference_on_the_page_leads_somewhere(page: dict[str, Any]) -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            for name, value in part.items():
                yield from [value] if name == "$ref" else references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    for reference in set(references(page)):
        found: Any = page
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found
