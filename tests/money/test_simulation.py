"""Thousands of calls with faults: what is charged is what was invoiced, to the last unit."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.money import simulate


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_ledger_is_the_invoice_and_no_budget_is_overshot(tmp_path: Path, seed: int) -> None:
    found = await simulate(3000, seed, tmp_path)
    assert found["charged"] == found["invoiced"] > 0
    assert (found["doubled"], found["open"]) == (0, 0)
    assert found["overshoot"] <= 0
    assert found["statuses"][429] > 300  # most of them refused for want of money
    assert {"usage", "aborted", "broken", "failed"} <= set(found["rules"])
