from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilith.money import PICO_PER_USD, Price, cost, format_usd, pico_usd
from trilith.types import Usage

TOKENS = st.integers(min_value=0, max_value=10**9)


def test_a_price_per_million_tokens_becomes_whole_pico_dollars_per_token() -> None:
    assert pico_usd("0.15", per=1_000_000) == 150_000


@pytest.mark.parametrize("wrong", ["-1", "nan", "inf", "0.0000001"])
def test_a_price_that_is_not_whole_pico_dollars_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        pico_usd(wrong, per=1_000_000)


def test_cached_tokens_are_part_of_the_input_and_cost_their_own_rate() -> None:
    price = Price(input_token=10, output_token=40, cached_input_token=1)
    # 60 fresh * 10 + 40 cached * 1 + 5 out * 40
    assert cost(Usage(input_tokens=100, cached_input_tokens=40, output_tokens=5), price) == 840


def test_cached_tokens_cost_as_the_others_when_no_rate_is_named() -> None:
    assert cost(Usage(input_tokens=100, cached_input_tokens=40), Price(input_token=10)) == 1000


@given(a=TOKENS, b=TOKENS, rate=st.integers(0, 10**9))
def test_the_sum_of_two_charges_is_the_charge_of_the_sum(a: int, b: int, rate: int) -> None:
    price = Price(input_token=rate)
    one, two = Usage(input_tokens=a), Usage(input_tokens=b)
    assert cost(one, price) + cost(two, price) == cost(one + two, price)


@given(st.integers(min_value=0, max_value=10**18))
def test_formatted_money_reads_back_to_the_same_amount(pico: int) -> None:
    assert Decimal(format_usd(pico)) * PICO_PER_USD == pico


def test_cached_tokens_beyond_the_input_are_refused() -> None:
    with pytest.raises(ValueError, match="cached_input_tokens"):
        Usage(input_tokens=1, cached_input_tokens=2)
