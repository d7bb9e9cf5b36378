from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilith.errors import BudgetExceededError
from trilith_gateway.budget import Budgets, window
from trilith_gateway.key import Key, Window, mint


def key(limit: int | None, kind: Window = "total") -> Key:
    return mint("k", budget_pico_usd=limit, budget_window=kind)[0]


def budgets(spent: int = 0) -> Budgets:
    return Budgets(lambda key_id, since: spent)


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


def test_what_was_spent_before_the_start_counts() -> None:
    with pytest.raises(BudgetExceededError) as caught:
        budgets(spent=90).reserve(key(100), 11, now=0)
    assert caught.value.code == "insufficient_quota"
    assert not caught.value.retryable


def test_open_reservations_count_until_they_are_settled() -> None:
    book, holder = budgets(), key(100)
    book.reserve(holder, 60, now=0)
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 60, now=0)
    book.settle(holder, 60, 10, now=0)
    book.reserve(holder, 60, now=0)


def test_a_refused_reservation_holds_nothing() -> None:
    book, holder = budgets(), key(100)
    with pytest.raises(BudgetExceededError):
        book.reserve(holder, 101, now=0)
    book.reserve(holder, 100, now=0)


def test_a_new_window_starts_with_nothing_spent() -> None:
    book, holder = budgets(), key(100, "day")
    book.settle(holder, 0, 100, now=at(2026, 1, 1, 23, 59))
    book.reserve(holder, 100, now=at(2026, 1, 2))


@pytest.mark.parametrize(
    ("kind", "now", "start", "end"),
    [
        ("day", (2026, 2, 28, 12), (2026, 2, 28), (2026, 3, 1)),
        ("month", (2026, 12, 31, 23), (2026, 12, 1), (2027, 1, 1)),
        ("month", (2028, 2, 29), (2028, 2, 1), (2028, 3, 1)),
    ],
)
def test_windows_follow_the_calendar_in_utc(
    kind: Window, now: tuple[int, ...], start: tuple[int, ...], end: tuple[int, ...]
) -> None:
    assert window(kind, at(*now)) == (at(*start), at(*end))


@given(
    limit=st.integers(0, 1000),
    calls=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 100)), max_size=60),
)
def test_whatever_callers_do_together_the_budget_is_never_overshot(
    limit: int, calls: list[tuple[int, int]]
) -> None:
    book, holder, open_calls, spent = budgets(), key(limit), [], 0
    for bound, share in calls:
        try:
            book.reserve(holder, bound, now=0)
            open_calls.append((bound, bound * share // 100))
        except BudgetExceededError:
            if open_calls:
                reserved, charged = open_calls.pop(0)
                book.settle(holder, reserved, charged, now=0)
                spent += charged
    for reserved, charged in open_calls:
        book.settle(holder, reserved, charged, now=0)
        spent += charged
    assert spent <= limit
    assert book.account(holder, 0).reserved == 0
    assert book.account(holder, 0).spent == spent
