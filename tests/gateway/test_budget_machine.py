"""Budgets over three levels do what a plain model does, in one process and with several."""

from __future__ import annotations

import contextlib
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
    owed: int = 0
    """What earlier tries of the call cost."""


@dataclass
class Charge:
    key: Key
    amount: int
    at: float
    priced: bool


class Machine(RuleBasedStateMachine):
    """Callers who reserve, fall back and settle, whatever the time, while the ledger changes under them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_790_000_000.0
        self.open: list[Call] = []
        self.charges: list[Charge] = []
        self.exact = True
        """Nothing has happened yet that no budget can prevent."""
        self.books = self.make_books()

    def make_books(self) -> list[Budgets] | list[LeasedBudgets]:
        raise NotImplementedError

    def charged(self, account: str, since: float, *, priced: bool = False) -> int:
        found = [charge for charge in self.charges if account in charge.key.accounts and charge.at >= since]
        return sum(charge.amount for charge in found if charge.priced or not priced)

    def used(self, budget: Budget) -> int:
        """What is spent and reserved in the present window."""
        start, _ = window(budget.window, self.now)
        return self.charged(budget.account, start) + sum(
            call.reserved for call in self.open if budget.account in call.key.accounts and call.at >= start
        )

    def fits(self, key: Key, amount: int) -> bool:
        return all(self.used(budget) + amount <= budget.pico_usd for budget in key.budgets)

    @rule(worker=st.integers(0, WORKERS - 1), which=st.integers(0, len(KEYS) - 1), amount=st.integers(0, 400))
    def reserve(self, worker: int, which: int, amount: int) -> None:
        key = KEYS[which]
        fits = self.fits(key, amount)
        try:
            self.books[worker].reserve(key, amount, self.now)
        except BudgetExceededError:
            self.refused(worker, key, amount, fits)
        except OSError:
            assert not self.reachable(worker)
        else:
            assert fits or not self.exact
            self.open.append(Call(worker, key, amount, self.now))

    def refused(self, worker: int, key: Key, amount: int, fits: bool) -> None:
        assert not fits

    def reachable(self, worker: int) -> bool:
        return True

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 999), share=st.integers(0, 100), amount=st.integers(0, 400))
    def move(self, which: int, share: int, amount: int) -> None:
        """Another model shall answer; what the first one cost is owed."""
        call = self.open.pop(which % len(self.open))
        book = self.books[call.worker]
        owed = call.owed + (call.reserved - call.owed) * share // 100
        book.settle(call.key, call.reserved, 0, call.at)
        fits = self.fits(call.key, owed + amount)
        reserved = owed + amount
        try:
            book.reserve(call.key, reserved, self.now)
        except (BudgetExceededError, OSError) as error:
            if isinstance(error, BudgetExceededError):
                assert not fits or isinstance(book, LeasedBudgets)
            self.exact = self.exact and self.fits(call.key, owed)  # owed in another window than reserved
            book.hold(call.key, owed, self.now)
            reserved = owed
        else:
            assert fits or not self.exact
        self.open.append(Call(call.worker, call.key, reserved, self.now, owed))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 999), share=st.integers(0, 120), priced=st.booleans())
    def settle(self, which: int, share: int, priced: bool) -> None:
        call = self.open.pop(which % len(self.open))
        rest = (call.reserved - call.owed) * share // 100
        self.exact = self.exact and share <= 100
        self.record(call, call.owed, True)
        self.record(call, rest, priced)
        unpriced = 0 if priced else rest
        book = self.books[call.worker]
        book.settle(call.key, call.reserved, call.owed + rest, call.at, unpriced=unpriced)

    def record(self, call: Call, amount: int, priced: bool) -> None:
        self.charges.append(Charge(call.key, amount, call.at, priced))

    @rule(hours=st.sampled_from((1, 9, 24, 24 * 7, 24 * 31)))
    def time_passes(self, hours: int) -> None:
        self.now += hours * 3600

    @invariant()
    def no_budget_is_overshot(self) -> None:
        for key in KEYS if self.exact else ():
            for budget in key.budgets:
                assert self.used(budget) <= budget.pico_usd

    def teardown(self) -> None:
        while self.open:
            self.settle(0, 50, True)
        self.nothing_is_lost()

    def nothing_is_lost(self) -> None:
        raise NotImplementedError


class AloneMachine(Machine):
    """All callers are in one process; the ledger changes by others' hands."""

    def make_books(self) -> list[Budgets]:
        return [Budgets(lambda account, since: self.charged(account, since, priced=True))] * WORKERS

    @rule()
    def others_change_the_ledger(self) -> None:
        for charge in self.charges[:1]:
            self.charges.append(Charge(charge.key, -charge.amount // 2, charge.at, True))
        for book in self.books:
            assert isinstance(book, Budgets)
            book.reread()

    def nothing_is_lost(self) -> None:
        book = self.books[0]
        assert isinstance(book, Budgets)
        for key in KEYS:
            for budget in key.budgets:
                account = book.account(budget, self.now)
                assert account.reserved == 0
                assert account.spent == self.charged(budget.account, account.window_start)


class LeasedMachine(Machine):
    """What one process holds, another may not have at once; after a sweep it may.

    The database is away for some, and processes are taken for dead.
    """

    def make_books(self) -> list[LeasedBudgets]:
        first = MemoryPurse()
        self.purses = [first, *(first.sibling() for _ in range(WORKERS - 1))]
        return [LeasedBudgets(purse) for purse in self.purses]

    def reachable(self, worker: int) -> bool:
        return not self.purses[worker].away

    def record(self, call: Call, amount: int, priced: bool) -> None:
        super().record(call, amount, priced)
        for budget in call.key.budgets if priced else ():
            row = budget.account, window(budget.window, call.at)[0]
            self.purses[call.worker].ledger[row] += amount

    def refused(self, worker: int, key: Key, amount: int, fits: bool) -> None:
        if fits and self.exact and not any(purse.away for purse in self.purses):
            self.everybody_idles()
            self.books[worker].reserve(key, amount, self.now)
            self.books[worker].settle(key, amount, 0, self.now)

    @rule()
    def everybody_idles(self) -> None:
        for book, purse in list(zip(self.books, self.purses, strict=True)) * 2:
            assert isinstance(book, LeasedBudgets)
            for debt in book.debts():
                try:
                    purse.pay(*debt)
                except OSError:
                    book.keep_debt(debt)
            for idle in book.idle():
                try:
                    purse.give_back(*idle)
                except OSError:
                    book.keep_idle(idle)

    @rule(worker=st.integers(0, WORKERS - 1), which=st.integers(0, len(KEYS) - 1), away=st.booleans())
    def the_database_comes_and_goes(self, worker: int, which: int, away: bool) -> None:
        self.purses[worker].away = set(KEYS[which].accounts[:2]) if away else set()

    @rule(worker=st.integers(0, WORKERS - 1))
    def one_is_taken_for_dead(self, worker: int) -> None:
        """What it had under way is covered by nothing until it hears of it."""
        self.exact = self.exact and not any(call.worker == worker for call in self.open)
        self.purses[worker].die()

    @invariant()
    def no_more_is_leased_than_there_is(self) -> None:
        limits = {budget.account: budget.pico_usd for key in KEYS for budget in key.budgets}
        for (account, _), taken in self.purses[0].taken.items() if self.exact else ():
            assert 0 <= taken <= limits[account]

    def nothing_is_lost(self) -> None:
        for purse in self.purses:
            purse.away = set()
        for book in self.books:
            for key in KEYS:
                with contextlib.suppress(BudgetExceededError):
                    book.reserve(key, 0, self.now)
                    book.settle(key, 0, 0, self.now)
        self.everybody_idles()
        taken = self.purses[0].taken
        for key in KEYS:
            for budget in key.budgets:
                start, _ = window(budget.window, self.now)
                assert taken.get((budget.account, start), 0) == self.charged(budget.account, start)


STEPS = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_one_process_does_what_the_model_does() -> None:
    run_state_machine_as_test(AloneMachine, settings=STEPS)


def test_several_processes_overshoot_nothing_and_refuse_nothing_for_long() -> None:
    run_state_machine_as_test(LeasedMachine, settings=STEPS)
