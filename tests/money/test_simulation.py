"""Thousands of calls with faults: what is charged is what was invoiced, to the last unit."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import virtual
from bench.gateway import money
from bench.money import right, simulate


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


def test_the_benchmark_s_table_has_a_row_of_it(tmp_path: Path) -> None:
    head, _, row = money.run(tmp_path, 300, seed=1).splitlines()[-3:]
    told = dict(zip(*(map(str.strip, line.strip("|").split("|")) for line in (head, row)), strict=True))
    assert told["target"] == "trilith full, network simulated"
    assert (told["calls"], told["error, pico-USD"], told["doubled"]) == ("300", "0", "0")
    assert told["invoiced, USD"] == told["charged, USD"] != "0"
    assert int(told["faults of upstreams"]) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_book_that_is_off_by_one_is_not_right_and_its_row_says_so(tmp_path: Path) -> None:
    found = virtual.run(simulate(300, 1, tmp_path))
    assert right(found)
    for wrong in ({"charged": found["charged"] + 1}, {"open": 1}, {"doubled": 1}, {"overshoot": 1}):
        assert not right(found | wrong)
        assert money.row(300, found | wrong, 1.0)[0].endswith("WRONG")
