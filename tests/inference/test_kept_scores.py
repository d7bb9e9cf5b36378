"""Scores are kept like any other answer, and a new champion is never answered for by the old one's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.gateway import Gateway
from support.installed import until

from trilith_classical.registry import MlflowRegistry


def test_a_kept_score_does_not_outlive_its_version(
    serve: Callable[..., Gateway], home: Path, inputs: Any
) -> None:
    gateway = serve(cache={}, alias_poll_s=0.05)

    def infer() -> tuple[str | None, str]:
        with gateway.client() as client:
            response = client.post("/v2/models/bike/infer", json={"inputs": inputs(2)})
        assert response.status_code == 200
        return response.headers.get("x-trilith-cache"), response.json()["model_version"]

    until(lambda: infer() == ("hit", "1"), what="a kept score")
    MlflowRegistry(home).set_alias("bike-demand", "champion", "2")
    until(lambda: infer()[1] == "2", what="the new champion")
    until(lambda: infer() == ("hit", "2"), what="its score being kept")
    saved = [row["saved_pico_usd"] for row in gateway.ledger() if row["rule"] == "cached"]
    assert set(saved) == {2 * 1_000_000_000}
