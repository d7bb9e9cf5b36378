"""A judge through a real gateway: priced by its ledger, its price on the score, and one trace."""

from __future__ import annotations

import json
from typing import Any

from gateway.conftest import start_gateway
from support.gateway import StartGateway

from trilith import AsyncClient
from trilith.testing import MemoryUpstream
from trilith_evals import Case, Output
from trilith_evals.judging.scorer import JudgeScorer

__all__ = ["start_gateway"]


async def test_a_judgement_costs_what_the_ledger_says(start_gateway: StartGateway) -> None:
    def judge(request: dict[str, Any]) -> str:
        again = len(request["messages"]) > 2
        return json.dumps({"reasons": "it is", "verdict": "yes"}) if again else "Surely."

    gateway = start_gateway({"big": MemoryUpstream(judge)})
    async with AsyncClient(gateway.url, gateway.token) as client:
        scorer = JudgeScorer("big", "The answer is right.", client=client)
        score = await scorer(Case("c", "Capital of France?", "Paris"), Output(text="Paris"))
    charged = gateway.ledger()
    assert score.value == 1
    assert len(charged) == 2  # the first reply was no verdict, and was paid too
    assert score.cost_pico_usd == sum(row["amount_pico_usd"] for row in charged) > 0
