"""Scorers over text agree with their reference implementations and with common sense."""

from __future__ import annotations

import pytest

from trilith_evals import Case, Output, State
from trilith_evals.scorers.text import (
    F1,
    Contains,
    Exact,
    Latency,
    Match,
    Number,
    Regex,
    last_number,
    word_f1,
)


def judged(scorer, text: str, *golds: str) -> float | None:  # type: ignore[no-untyped-def]
    return scorer(Case("1", "q", list(golds)), Output(text=text)).value  # type: ignore[no-any-return]


def test_exact_looks_at_every_character_but_the_blanks_around() -> None:
    assert judged(Exact(), " Paris\n", "Paris") == 1
    assert judged(Exact(), "paris", "Paris") == 0


def test_match_forgives_case_articles_and_punctuation() -> None:
    assert judged(Match(), "The Eiffel  tower!", "eiffel tower") == 1


def test_one_of_several_expected_answers_is_enough() -> None:
    assert judged(Contains(), "There are seven days.", "7", "seven") == 1


def test_a_number_word_inside_another_word_is_not_contained() -> None:
    assert judged(Contains(), "fourteen", "four") == 0
    assert judged(Contains(words=False), "fourteen", "four") == 1


def test_contained_text_is_not_read_as_a_pattern() -> None:
    assert judged(Contains(), "costs 3x50", "3.50") == 0
    assert judged(Contains(), "it is C++, of course", "C++") == 1


def test_a_pattern_that_is_none_is_refused_when_the_scorer_is_made() -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        Regex(pattern="(")


def test_the_last_number_counts_within_the_larger_tolerance() -> None:
    assert judged(Number(abs_tolerance=0.5), "between 3 and 1,234.4", "1234") == 1
    assert judged(Number(abs_tolerance=0.1), "between 3 and 1,234.4", "1234") == 0
    assert judged(Number(rel_tolerance=0.01), "about 101", "100") == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,234.5 in all", 1234.5), ("-2e3", -2000), ("it is 5.", 5), ("none", None), (".5", 0.5)],
)
def test_the_last_number_is_found(text: str, number: float | None) -> None:
    assert last_number(text) == number


def test_an_answer_without_a_number_is_wrong_and_a_gold_without_one_is_unscored() -> None:
    assert judged(Number(), "many", "12") == 0
    assert Number()(Case("1", "q", "many"), Output(text="12")).state is State.UNSCORED


@pytest.mark.parametrize("scorer", [Exact(), Match(), Contains(), F1(), Number()])
def test_a_case_without_an_expected_answer_is_unscored_and_never_zero(scorer) -> None:  # type: ignore[no-untyped-def]
    score = scorer(Case("1", "q"), Output(text="x"))
    assert score.state is State.UNSCORED
    assert score.value is None


@pytest.mark.parametrize(
    ("answer", "gold", "f1"),
    [
        ("the cat sat", "A cat", 2 / 3),  # shared: cat; precision 1/2, recall 1
        ("cat cat cat", "cat", 1 / 2),  # a word counts as often as the gold has it
        ("Denver Broncos, of course", "Denver Broncos", 2 / 3),  # 2 of 4, 2 of 2
        ("1905", "in 1905.", 2 / 3),
        ("the", "an", 1.0),  # nothing is left of either
        ("", "cat", 0.0),
        ("dog", "cat", 0.0),
    ],
)
def test_word_f1_follows_squads_definition(answer: str, gold: str, f1: float) -> None:
    assert word_f1(answer, gold) == pytest.approx(f1)


def test_latency_is_the_time_of_the_whole_answer() -> None:
    assert Latency()(Case("1", "q"), Output(latency_s=1.5)).value == 1.5


def test_a_unit_behind_a_number_scales_it() -> None:
    money = Number(units={"million": 1e6, "%": 0.01, "k": 1e3})
    assert judged(money, "It cost $1.2 million in all", "1200000") == 1
    assert judged(money, "12 %", "0.12") == 1
    assert judged(money, "5K", "5,000") == 1
    assert judged(money, "5 kilos", "5") == 1  # another word


def test_thousands_are_parted_by_blanks_and_apostrophes_too_and_the_decimal_mark_may_be_a_comma() -> None:
    assert judged(Number(), "about 1 234 567.5", "1234567.5") == 1
    assert judged(Number(), "Fr. 12'500", "12500") == 1
    assert judged(Number(decimal=","), "1.234,5 Euro", "1234,5") == 1
    assert (
        judged(Number(), "in 2024 100", "100") == 0
    )  # a year and a number stand apart only with words between


def test_a_pattern_that_would_take_ages_is_stopped() -> None:
    scorer = Regex(pattern="(.*?,){25}P", timeout_s=0.05)
    score = scorer(Case("1", "q"), Output(text="1," * 30))
    assert score.state is State.UNSCORED
    assert score.reason == "the pattern took too long on this answer"
