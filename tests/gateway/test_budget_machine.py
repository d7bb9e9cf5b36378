"""Budgets over three levels do what a plain model does, in one process and with several."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.purse import MemoryPurse

from trilith.errors import BudgetExceededError
from trilith_gateway.budget import Budgets, window
from trilith_gateway.group import Groups, Team
from trilith_gateway.key import Key, mint
from trilith_gateway.shared import LeasedBudgets
from trilith_gateway.terms import Budget, Terms

GROUPS = Groups(
    {
        "a": Team("a", "uni", terms=Terms(900, "week")),
        "b": Team("b", "uni"),
        "c": Team("c", terms=Terms(500, "day")),
    },
    {"uni": Terms(1200, "month")},
)
KEYS = [
    mint("k", team=team, terms=terms)[0].under(GROUPS)
    for team, terms in (
        ("a", Terms(600, "day")),
        ("a", Terms()),
        ("b", Terms(800, "total")),
        ("b", Terms()),
        ("c", Terms(2000, "total")),
        ("none", Terms()),
    )
]
WORKERS = 3


@dataclass
class Call:
    worker: int
    key: Key
    reserved: int
    at: float


class Machine(RuleBasedStateMachine):
    """Callers who reserve and settle, whatever the time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_790_000_000.0
        self.open: list[Call] = []
        self.charges: list[tuple[Key, int, float]] = []
        self.books = self.make_books()

    def make_books(self) -> list[Budgets] | list[LeasedBudgets]:
        return [Budgets(lambda account, since: 0)] * WORKERS

    def used(self, budget: Budget) -> int:
        """What is spent and reserved in the present window."""
        start, _ = window(budget.window, self.now)
        found = sum(
            amount for key, amount, at in self.charges if budget.account in key.accounts and at >= start
        )
        return found + sum(
            call.reserved for call in self.open if budget.account in call.key.accounts and call.at >= start
        )

    @rule(worker=st.integers(0, WORKERS - 1), which=st.integers(0, len(KEYS) - 1), amount=st.integers(0, 400))
    def reserve(self, worker: int, which: int, amount: int) -> None:
        key = KEYS[which]
        fits = all(self.used(budget) + amount <= budget.pico_usd for budget in key.budgets)
        try:
            self.books[worker].reserve(key, amount, self.now)
        except BudgetExceededError:
            self.refused(worker, key, amount, fits)
        else:
            assert fits
            self.open.append(Call(worker, key, amount, self.now))

    def refused(self, worker: int, key: Key, amount: int, fits: bool) -> None:
        assert not fits

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 999), share=st.integers(0, 100))
    def settle(self, which: int, share: int) -> None:
        call = self.open.pop(which % len(self.open))
        charged = call.reserved * share // 100
        self.books[call.worker].settle(call.key, call.reserved, charged, call.at)
        self.charges.append((call.key, charged, call.at))

    @rule(hours=st.sampled_from((1, 9, 24, 24 * 7, 24 * 31)))
    def time_passes(self, hours: int) -> None:
        self.now += hours * 3600

    @invariant()
    def no_budget_is_overshot(self) -> None:
        for key in KEYS:
            for budget in key.budgets:
                assert self.used(budget) <= budget.pico_usd


class LeasedMachine(Machine):
    """What one process holds, another may not have at once; after a sweep it may."""

    def make_books(self) -> list[LeasedBudgets]:
        self.purse = MemoryPurse()
        return [LeasedBudgets(self.purse) for _ in range(WORKERS)]

    def refused(self, worker: int, key: Key, amount: int, fits: bool) -> None:
        if fits:
            self.everybody_idles()
            self.books[worker].reserve(key, amount, self.now)
            self.books[worker].settle(key, amount, 0, self.now)

    @rule()
    def everybody_idles(self) -> None:
        for book in self.books * 2:
            assert isinstance(book, LeasedBudgets)
            for account, since, amount in book.idle():
                self.purse.give_back(account, since, amount)

    @invariant()
    def no_more_is_leased_than_there_is(self) -> None:
        limits = {budget.account: budget.pico_usd for key in KEYS for budget in key.budgets}
        for (account, _), taken in self.purse.taken.items():
            assert 0 <= taken <= limits[account]


STEPS = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_one_process_does_what_the_model_does() -> None:
    run_state_machine_as_test(Machine, settings=STEPS)


def test_several_processes_overshoot_nothing_and_refuse_nothing_for_long() -> None:
    run_state_machine_as_test(LeasedMachine, settings=STEPS)
