"""Thousands of calls with faults: what is charged is what was invoiced, to the last unit."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import virtual
from bench.money import simulate


@pytest.mark.parametrize("seed", [1, 2])
def test_the_ledger_is_the_invoice_and_no_budget_is_overshot(tmp_path: Path, seed: int) -> None:
    found = virtual.run(simulate(3000, seed, tmp_path))
    assert found["charged"] == found["invoiced"] > 0
    assert (found["doubled"], found["open"], found["unpriced"]) == (0, 0, 0)
    assert found["overshoot"] <= 0
    assert found["statuses"][429] > 100  # most of them refused for want of money
    # What it is meant to exercise has happened:
    assert {"usage", "aborted", "broken", "failed", "cached"} == set(found["rules"])
    assert {"usage", "failed"} <= set(found["tries"]) <= {"usage", "failed", "broken"}
    assert {"flex", "priority"} == set(found["tiers"])
    assert found["rules"]["cached"] > 50
    assert found["fell_back"] > 0
    faults = {"stream broken", "answer cut", "connection failed", "refused", "error billed", "scored"}
    assert faults <= set(found["outcomes"])
