from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trilith_gateway.limit import RateLimiter


def test_a_burst_of_the_whole_minute_is_allowed_and_not_one_more() -> None:
    limiter = RateLimiter()
    assert [limiter.take("k", 3, now=0).allowed for _ in range(4)] == [True, True, True, False]


def test_the_wait_that_is_told_is_exactly_enough() -> None:
    limiter = RateLimiter()
    for _ in range(2):
        limiter.take("k", 2, now=0)
    wait = limiter.take("k", 2, now=0).retry_after_s
    assert wait == 30
    assert not limiter.take("k", 2, now=wait - 0.01).allowed
    assert limiter.take("k", 2, now=wait).allowed


def test_keys_do_not_share_a_limit() -> None:
    limiter = RateLimiter()
    limiter.take("a", 1, now=0)
    assert limiter.take("b", 1, now=0).allowed


def test_what_remains_counts_down() -> None:
    limiter = RateLimiter()
    assert [limiter.take("k", 3, now=0).remaining for _ in range(3)] == [2, 1, 0]


@given(rate=st.integers(1, 600), gaps=st.lists(st.floats(0, 30), max_size=200))
def test_over_any_time_no_more_pass_than_burst_and_rate_allow(rate: int, gaps: list[float]) -> None:
    limiter, now, passed = RateLimiter(), 0.0, 0
    for gap in gaps:
        now += gap
        passed += limiter.take("k", rate, now).allowed
    assert passed <= rate + now * rate / 60 + 1e-6
