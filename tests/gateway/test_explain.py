"""`trilith explain`: one request, from all that was recorded."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.gateway import PRICE, StartGateway
from support.installed import until

from trilith.errors import DataError
from trilith.telemetry import names
from trilith.testing import MemoryUpstream
from trilith_gateway.commands import explain


def test_a_request_is_explained_from_ledger_and_audit(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, echo={"policy": "private", "price": PRICE})
    id = gateway.chat("Ada Lovelace writes").headers["x-request-id"]
    gateway.platform.store.flush()
    found = explain.explain(gateway.platform.settings, id)
    assert [charge["rule"] for charge in found["charges"]] == ["usage"]
    assert [entry["event"] for entry in found["audit"]] == ["pii.mask"]
    text = explain._text(found)
    assert f"release {found['charges'][0]['release']}" in text
    assert "1 PERSON" in text
    assert "Ada" not in text


def test_the_callers_own_request_id_is_used_when_it_is_a_sensible_one(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()})
    with gateway.client(headers={"x-request-id": "mine-1"}) as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        assert client.post("/v1/chat/completions", json=body).headers["x-request-id"] == "mine-1"
        odd = client.post("/v1/chat/completions", json=body, headers={"x-request-id": "a b\tc"})
    assert odd.headers["x-request-id"].startswith("req_")
    gateway.platform.store.flush()
    assert [
        charge["request_id"] for charge in explain.explain(gateway.platform.settings, "mine-1")["charges"]
    ] == ["mine-1"]


def test_a_request_that_nobody_knows_is_said_to_be_unknown(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()})
    with pytest.raises(DataError, match="nothing is known"):
        explain.explain(gateway.platform.settings, "req_unknown")


def test_decisions_on_the_way_are_explained(start_gateway: StartGateway, spans: InMemorySpanExporter) -> None:
    gateway = start_gateway(
        {"echo": MemoryUpstream(), "bad": MemoryUpstream(fail_with=[503]), "good": MemoryUpstream()},
        echo={"routes": [{"model": "bad"}]},
        bad={"fallbacks": ["good"]},
    )
    id = gateway.chat().headers["x-request-id"]
    until(lambda: any(names.DECISIONS in (span.attributes or {}) for span in spans.get_finished_spans()))
    (told,) = [
        dict[str, Any](s.attributes or {}) for s in spans.get_finished_spans() if s.name == "chat echo"
    ]
    assert list(told[names.DECISIONS]) == [
        "route 0 of echo: to bad",
        "fallback: bad answered with status 503",
    ]
    gateway.platform.store.flush()
    found = explain.explain(gateway.platform.settings, id)
    text = explain._text({**found, "steps": [{"name": "chat echo", "ms": 1.0, "attributes": told}]})
    assert "decided   route 0 of echo: to bad" in text
    assert "model     good (chat)" in text
    assert ", for echo" in text
