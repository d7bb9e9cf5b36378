from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from support.purse import MemoryPurse

from trilith.errors import BudgetExceededError
from trilith_gateway.budget import Alert, Budgets, window
from trilith_gateway.group import Groups, Team
from trilith_gateway.key import Key, mint
from trilith_gateway.shared import LeasedBudgets
from trilith_gateway.terms import Terms, Window

Book = Budgets | LeasedBudgets
Open = Callable[..., Book]


def key(limit: int | None, kind: Window = "total", **terms: Any) -> Key:
    return mint("k", terms=Terms(limit, kind, **terms))[0]


def in_team(team: Terms, org: Terms | None = None, own: Terms | None = None) -> Key:
    groups = Groups({"lab": Team("lab", "uni", terms=team)}, {"uni": org or Terms()})
    return mint("k", team="lab", terms=own or Terms())[0].under(groups)


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


def spending(book: Book, holder: Key, amount: int, now: float = 0) -> None:
    book.reserve(holder, amount, now)
    book.settle(holder, amount, amount, now)


@pytest.fixture(params=["alone", "leased"])
def open_book(request: pytest.FixtureRequest) -> Open:
    """Open the book of one process, or of one among several."""

    def open_book(spent: int = 0, alert: Callable[[Alert], None] = lambda _: None) -> Book:
        if request.param == "alone":
            return Budgets(lambda account, since: spent, alert)
        return LeasedBudgets(MemoryPurse(spent), alert)

    return open_book


def test_what_was_spent_before_the_start_counts(open_book: Open) -> None:
    with pytest.raises(BudgetExceededError) as caught:
        open_book(spent=90).reserve(key(100), 11, now=0)
    assert caught.value.code == "insufficient_quota"
    assert not caught.value.retryable


def test_open_reservations_count_until_they_are_settled(open_book: Open) -> None:
    book, holder = open_book(), key(100)
    book.reserve(holder, 60, now=0)
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 60, now=0)
    book.settle(holder, 60, 10, at=0)
    book.reserve(holder, 60, now=0)


def test_a_refused_reservation_holds_nothing(open_book: Open) -> None:
    book, holder = open_book(), key(100)
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 101, now=0)
    book.reserve(holder, 100, now=0)


def test_a_team_that_refuses_leaves_the_keys_own_budget_whole(open_book: Open) -> None:
    book = open_book()
    both = in_team(Terms(100, "total"), own=Terms(150, "total"))
    other = in_team(Terms(100, "total"))
    book.reserve(other, 60, now=0)
    with pytest.raises(BudgetExceededError, match="of the team's budget"):
        book.reserve(both, 50, now=0)
    book.settle(other, 60, 0, at=0)
    book.reserve(both, 100, now=0)


def test_keys_of_one_org_share_its_budget_whatever_their_teams(open_book: Open) -> None:
    book, org = open_book(), {"uni": Terms(100, "total")}
    groups = Groups({"a": Team("a", "uni"), "b": Team("b", "uni")}, org)
    one, two = (mint("k", team=name)[0].under(groups) for name in ("a", "b"))
    spending(book, one, 70)
    with pytest.raises(BudgetExceededError, match="of the org's budget"):
        book.reserve(two, 31, now=0)
    spending(book, two, 30)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("day", (2026, 1, 1, 23, 59, 59), (2026, 1, 2)),
        ("week", (2026, 1, 4, 23, 59, 59), (2026, 1, 5)),
        ("month", (2026, 1, 31, 23, 59, 59), (2026, 2, 1)),
    ],
)
def test_a_call_counts_in_the_window_in_which_it_was_reserved(
    open_book: Open, kind: Window, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    book, holder = open_book(), key(100, kind)
    spending(book, holder, 40, at(*before))
    for amount in (20, 40):
        book.reserve(holder, amount, at(*before))
    with pytest.raises(BudgetExceededError) as caught:
        book.reserve(holder, 1, at(*before))
    assert caught.value.retry_after_s == 1
    assert f"{datetime(*after, tzinfo=UTC):%Y-%m-%dT%H:%M:%SZ}" in caught.value.message  # type: ignore[misc,arg-type]
    book.reserve(holder, 70, at(*after))
    book.settle(holder, 20, 20, at(*before))
    book.settle(holder, 40, 0, at(*before))
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 31, at(*after))
    book.settle(holder, 70, 0, at(*after))
    book.reserve(holder, 100, at(*after))


def test_a_total_budget_is_never_there_again(open_book: Open) -> None:
    with pytest.raises(BudgetExceededError) as caught:
        open_book().reserve(key(1), 2, now=at(2026, 1, 1))
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize(
    ("kind", "now", "start", "end"),
    [
        ("day", (2026, 2, 28, 12), (2026, 2, 28), (2026, 3, 1)),
        ("week", (2026, 1, 1), (2025, 12, 29), (2026, 1, 5)),
        ("week", (2026, 1, 5), (2026, 1, 5), (2026, 1, 12)),
        ("month", (2026, 12, 31, 23), (2026, 12, 1), (2027, 1, 1)),
        ("month", (2028, 2, 29), (2028, 2, 1), (2028, 3, 1)),
    ],
)
def test_windows_follow_the_calendar_in_utc(
    kind: Window, now: tuple[int, ...], start: tuple[int, ...], end: tuple[int, ...]
) -> None:
    assert window(kind, at(*now)) == (at(*start), at(*end))


def test_a_soft_share_is_told_once_per_window_and_level_and_said_to_each_caller(open_book: Open) -> None:
    heard: list[Alert] = []
    book = open_book(alert=heard.append)
    holder = in_team(Terms(1000, "day", soft_percent=50), own=Terms(500, "day", soft_percent=80))
    spending(book, holder, 399, now=0)
    assert (heard, book.soft(holder, 0)) == ([], None)
    spending(book, holder, 1, now=0)
    spending(book, holder, 10, now=0)
    assert [(alert.budget.account, alert.spent) for alert in heard] == [(f"key:{holder.id}", 400)]
    spending(book, holder, 90, now=0)
    assert [alert.budget.level for alert in heard] == ["key", "team"]
    told = book.soft(holder, 0)
    assert told is not None
    assert told.level == "key"
    assert book.soft(holder, at(1970, 1, 2)) is None
    spending(book, holder, 450, now=at(1970, 1, 2))
    assert len(heard) == 3


def test_a_call_that_would_go_beyond_the_degrade_share_is_known_before_it_is_reserved(
    open_book: Open,
) -> None:
    book = open_book()
    holder = in_team(Terms(100, "total", degrade_percent=60, degrade_to="small"))
    assert book.degrades(holder, 60, 0) is None
    budget = book.degrades(holder, 61, 0)
    assert budget is not None
    assert (budget.account, budget.degrade_to) == ("team:lab", "small")
    book.reserve(holder, 50, 0)
    assert book.degrades(holder, 11, 0) is not None
    book.settle(holder, 50, 0, 0)
    assert book.degrades(holder, 11, 0) is None


def test_idle_money_that_nobody_took_back_is_held_again() -> None:
    purse = MemoryPurse()
    book, holder = LeasedBudgets(purse), key(10_000, soft_percent=1)
    spending(book, holder, 10)
    book.idle()
    for idle in book.idle():
        assert idle.amount == 90
        book.keep_idle(idle)
    spending(book, holder, 90)
    assert sum(purse.taken.values()) == 100
    assert book.soft(holder, 0) is not None


def test_a_process_that_was_silent_spends_and_gives_back_nothing_that_others_may_have_taken() -> None:
    purse = MemoryPurse()
    book, holder = LeasedBudgets(purse), key(10_000, soft_percent=1)
    spending(book, holder, 10)
    leased = sum(purse.taken.values())
    assert leased > 20
    purse.heard = False
    spending(book, holder, 10)  # asks anew, though enough lies here
    assert sum(purse.taken.values()) > leased
    book.idle()
    assert book.idle() == []
    purse.heard = True
    assert book.idle() != []


def test_a_budget_made_while_a_call_is_under_way_hears_of_its_charge(open_book: Open) -> None:
    book, before = open_book(), mint("k", team="lab")[0]
    after = before.under(Groups({"lab": Team("lab", terms=Terms(100, "total"))}))
    book.reserve(before, 50, 0)
    book.reserve(after, 1, 0)
    book.settle(before, 50, 50, 0)
    with pytest.raises(BudgetExceededError):
        book.reserve(after, 50, 0)


def test_a_budget_whose_window_is_changed_is_counted_anew(open_book: Open) -> None:
    book, day = open_book(), in_team(Terms(100, "day"))
    book.reserve(day, 60, 0)
    total = day.under(Groups({"lab": Team("lab", terms=Terms(100, "total"))}))
    with pytest.raises(BudgetExceededError):
        book.reserve(total, 41, 0)
    book.settle(day, 60, 0, 0)


def three_levels() -> Key:
    return in_team(Terms(1000, "total"), Terms(1000, "total"), own=Terms(1000, "total"))


@pytest.mark.parametrize("level", ["key", "team", "org"])
def test_a_level_that_cannot_be_asked_keeps_no_other_level_from_its_charge(level: str) -> None:
    purse = MemoryPurse()
    book, holder = LeasedBudgets(purse), three_levels()
    book.reserve(holder, 50, 0)
    away = next(account for account in holder.accounts if account.startswith(level))
    purse.away = {away}
    book.settle(holder, 50, 200, 0)  # costlier than was leased
    assert {name: taken for (name, _), taken in purse.taken.items()} == {
        account: 50 if account == away else 200 for account in holder.accounts
    }
    purse.away = set()
    pay(purse, book)
    assert set(purse.taken.values()) == {200}
    book.reserve(holder, 800, 0)


def pay(purse: MemoryPurse, book: LeasedBudgets) -> None:
    for debt in book.debts():
        try:
            purse.pay(*debt)
        except OSError:
            book.keep_debt(debt)


def test_a_debt_that_nobody_could_write_is_paid_once_and_no_reservation_forgets_it() -> None:
    purse = MemoryPurse()
    book, holder = LeasedBudgets(purse), key(1000, soft_percent=90)
    book.reserve(holder, 50, 0)
    purse.away = set(holder.accounts)
    book.settle(holder, 50, 200, 0)
    pay(purse, book)
    pay(purse, book)
    purse.away = set()
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 801, 0)
    pay(purse, book)
    pay(purse, book)
    assert sum(purse.taken.values()) == 200
    book.reserve(holder, 800, 0)
    book.settle(holder, 800, 700, 0)
    assert book.soft(holder, 0) is not None


def test_a_reservation_whose_budgets_cannot_be_asked_holds_nothing() -> None:
    purse = MemoryPurse()
    book, holder = LeasedBudgets(purse), three_levels()
    purse.away = {holder.accounts[2]}
    with pytest.raises(OSError, match="away"):
        book.reserve(holder, 600, 0)
    purse.away = set()
    book.reserve(holder, 1000, 0)


def test_what_others_settled_for_a_process_that_was_silent_is_counted_once() -> None:
    purse = MemoryPurse()
    book, holder = LeasedBudgets(purse), key(1000)
    (account,) = (budget.account for budget in holder.budgets)
    for _ in range(2):
        book.reserve(holder, 100, 0)
    purse.ledger[account, 0.0] = 70  # written, then booked
    purse.die()
    book.settle(holder, 100, 70, 0)
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 831, 0)  # 70 are charged, 100 still reserved
    book.reserve(holder, 830, 0)
    assert sum(purse.taken.values()) == 1000


def test_idle_money_is_not_held_again_once_others_have_settled_it() -> None:
    purse = MemoryPurse()
    book, holder = LeasedBudgets(purse), key(10_000)
    spending(book, holder, 10)
    purse.ledger[holder.budgets[0].account, 0.0] = 10
    book.idle()
    let_go = book.idle()
    purse.die()
    spending(book, holder, 1)
    for idle in let_go:
        purse.give_back(*idle)
        book.keep_idle(idle)
    purse.ledger[holder.budgets[0].account, 0.0] = 11
    book.idle()
    for idle in book.idle():
        purse.give_back(*idle)
    assert sum(purse.taken.values()) == 11


def test_a_budget_that_is_made_again_counts_what_was_charged_while_there_was_none() -> None:
    purse, holder = MemoryPurse(), key(100)
    spending(LeasedBudgets(purse), holder, 10)
    purse.ledger[holder.budgets[0].account, 0.0] = 90  # the rest under no budget, and in no lease
    book = LeasedBudgets(purse)
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 11, 0)
    spending(book, holder, 10)


def test_a_share_that_a_budget_gets_later_is_reached_by_what_was_spent_before() -> None:
    book, holder = LeasedBudgets(MemoryPurse(spent=900)), key(10_000)
    spending(book, holder, 50)
    later = mint("k", terms=Terms(10_000, "total", soft_percent=9))[0]
    shares = replace(
        later,
        accounts=holder.accounts,
        budgets=(replace(later.budgets[0], account=holder.budgets[0].account),),
    )
    assert book.soft(shares, 0) is not None


def test_a_call_that_is_reread_meanwhile_forgets_nothing_that_no_row_tells() -> None:
    ledger = 0
    book, holder = Budgets(lambda account, since: ledger), key(1000)
    book.reserve(holder, 400, 0)
    book.settle(holder, 400, 400, 0, unpriced=400)
    book.reserve(holder, 100, 0)
    book.reread()
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 501, 0)
    book.settle(holder, 100, 100, 0)
    ledger = 100
    book.reread()
    book.reserve(holder, 500, 0)


def test_a_budget_that_cannot_be_read_again_goes_by_what_it_knows() -> None:
    away = False

    def spent(account: str, since: float) -> int:
        if away:
            raise OSError("the database is away")
        return 10

    book, holder = Budgets(spent), key(100)
    book.reserve(holder, 50, 0)
    book.settle(holder, 50, 50, 0)
    away = True
    book.reread()
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 41, 0)
    book.reserve(holder, 40, 0)
    with pytest.raises(OSError, match="away"):
        book.reserve(key(100), 1, 0)
