"""The price book: the recorded file, its source's numbers, and nothing priced that it does not know."""

from __future__ import annotations

import importlib.util
import json
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tools.prices import convert

from trilith import cli, prices
from trilith.errors import DataError
from trilith.money import Price, UnpricedUsage, cost
from trilith.prices import BOOK, load
from trilith.prices.pin import SHA256, VERSION
from trilith.settings.price import PriceSettings
from trilith.types import Particulars, Usage
from trilith_gateway.release import price_id


def source() -> dict[str, Any]:
    found = importlib.util.find_spec("litellm")
    if found is None or found.origin is None or f"litellm-{version('litellm')}" != VERSION:
        pytest.skip("the installed litellm is not the edition of the book")
    name = "model_prices_and_context_window_backup.json"
    models: dict[str, Any] = json.loads((Path(found.origin).parent / name).read_text("utf-8"))
    return models


def test_the_book_is_the_recorded_file_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    book = load()
    assert len(book.entries) > 3000
    changed = tmp_path / "book.json"
    changed.write_bytes(BOOK.read_bytes().replace(b'"input":2500000', b'"input":250000', 1))
    with pytest.raises(DataError, match="was changed"):
        prices.load(changed, SHA256, VERSION)


def test_every_rate_of_the_book_is_its_sources_to_the_last_digit() -> None:
    names = {
        "input_cost_per_token": "input",
        "output_cost_per_token": "output",
        "cache_read_input_token_cost": "cached",
        "cache_creation_input_token_cost": "write",
        "output_cost_per_reasoning_token": "reasoning",
        "input_cost_per_audio_token": "audio_in",
    }
    compared, book = 0, load().entries
    for name, fields in source().items():
        provider = fields.get("litellm_provider")
        entry = book.get(name if name.startswith(f"{provider}/") else f"{provider}/{name}")
        for theirs, ours in names.items():
            if entry is not None and ours in entry and isinstance(fields.get(theirs), float):
                assert Decimal(entry[ours]) == Decimal(str(fields[theirs])) * 10**12, (name, theirs)
                compared += 1
    assert compared > 8000


def test_the_tool_makes_the_same_book_again() -> None:
    assert convert(source()) == load().entries


def entry(**fields: Any) -> Price:
    made = convert({"m": {"litellm_provider": "p", "input_cost_per_token": 1e-06, **fields}})
    return prices.Book("x", made).price("p/m")


@pytest.mark.parametrize(
    ("field", "used"),
    [
        ("input_cost_per_audio_per_second", Particulars(audio_input_tokens=1)),
        ("output_cost_per_image", Particulars(image_output_tokens=1)),
        ("input_cost_per_image", Particulars(image_input_tokens=1)),
        ("google_maps_grounding_cost_per_query", Particulars(searches=1)),
    ],
)
def test_a_cost_that_we_do_not_read_makes_the_calls_unpriced_to_which_it_applies(
    field: str, used: Particulars
) -> None:
    price = entry(**{field: 0.01})
    assert cost(Usage(10), price) == 10_000_000
    with pytest.raises(UnpricedUsage):
        cost(Usage(10, 10, particulars=used), price)


def test_a_cost_of_an_unheard_of_kind_makes_every_call_unpriced() -> None:
    with pytest.raises(UnpricedUsage, match="input_tokens"):
        cost(Usage(10), entry(lunar_cost_per_phase=0.01))


def test_a_tier_that_lacks_a_rate_does_not_borrow_the_standard_one() -> None:
    price = entry(output_cost_per_token=2e-06, input_cost_per_token_flex=5e-07)
    flex = Particulars(tier="flex")
    assert cost(Usage(10, particulars=flex), price) == 5_000_000
    with pytest.raises(UnpricedUsage, match="output_tokens"):
        cost(Usage(10, 1, particulars=flex), price)
    with pytest.raises(UnpricedUsage, match="the tier batch"):
        cost(Usage(10, particulars=Particulars(tier="batch")), price)


def test_what_is_no_whole_number_of_pico_usd_is_unknown_and_what_costs_nothing_is_left_out() -> None:
    with pytest.raises(UnpricedUsage):
        cost(Usage(1), entry(input_cost_per_token=1.5e-13, output_cost_per_token=1e-06))
    assert convert({"m": {"litellm_provider": "p", "input_cost_per_token": 0}}) == {}


def test_thresholds_count_all_input_and_hold_for_the_whole_call() -> None:
    price = entry(
        input_cost_per_token_above_128k_tokens=2e-06,
        input_cost_per_token_above_200k_tokens=4e-06,
        cache_read_input_token_cost=1e-07,
    )
    for tokens, rate in ((128_000, 1), (128_001, 2), (200_000, 2), (200_001, 4)):
        assert cost(Usage(tokens), price) == tokens * rate * 1_000_000
    assert cost(Usage(200_001, cached_input_tokens=200_000), price) == 4_000_000 + 200_000 * 100_000


COUNT = st.integers(0, 300_000)


@given(
    name=st.sampled_from(sorted(load().entries)[::37]),
    counts=st.tuples(*[COUNT] * 9),
    tier=st.sampled_from(("", "flex", "priority", "batch")),
)
def test_no_call_costs_more_than_what_is_reserved_for_it(
    name: str, counts: tuple[int, ...], tier: str
) -> None:
    fresh, cached, write, hour, output, thought, heard, spoken, seen = counts
    particulars = Particulars(write, hour, min(fresh, heard), min(output, spoken), tier=tier)
    whole = fresh + cached + write + hour
    used = Usage(whole, output, cached, min(output - particulars.audio_output_tokens, thought))
    price = load().price(name)
    try:
        amount = cost(Usage(whole, output, cached, used.reasoning_tokens, particulars=particulars), price)
    except UnpricedUsage:
        return
    assert 0 <= amount <= cost(Usage(whole, output), price.dearest())


def test_a_model_names_its_price_in_the_book_and_may_replace_rates() -> None:
    plain = PriceSettings.model_validate({"book": "openai/gpt-5.4"}).exact()
    assert plain == load().price("openai/gpt-5.4")
    assert price_id(plain).startswith(f"book {VERSION} ")
    own = PriceSettings.model_validate({"book": "openai/gpt-5.4", "output_usd_per_mtok": "1"}).exact()
    assert own.output_token == own.tiers["flex"].output_token == own.steps[0][1].output_token == 1_000_000
    assert own.input_token == plain.input_token
    assert price_id(own) != price_id(plain)


def test_a_name_that_the_book_does_not_have_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(ValidationError, match=r"openai/gpt-5\.4"):
        PriceSettings.model_validate({"book": "openai/gpt5.4"})


def test_the_book_is_listed_shown_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prices", "verify"]) == 0
    assert SHA256 in capsys.readouterr().out
    assert cli.main(["prices", "list", "claude-sonnet-4-5"]) == 0
    listed = capsys.readouterr().out
    assert "anthropic/claude-sonnet-4-5" in listed
    assert cli.main(["prices", "show", "anthropic/claude-sonnet-4-5"]) == 0
    shown = capsys.readouterr().out
    assert "3.75" in shown
    assert "batch" in shown
    assert cli.main(["prices", "show", "nobody/nothing"]) == 2
