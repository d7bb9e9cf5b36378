"""Workers of one machine share the places at a model, and their parts add up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trilith.settings.schema import Settings
from trilith_gateway.release import declared_digest
from trilith_gateway.worker import share


def platform(places: int | None, queue: int) -> Settings:
    model = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}, "queue_length": queue}
    return Settings.model_validate({"models": {"echo": model | {"max_concurrency": places}}})


@given(places=st.integers(1, 200), queue=st.integers(0, 200), count=st.integers(1, 64))
def test_the_parts_are_equal_and_add_up_but_for_one_place_that_each_needs(
    places: int, queue: int, count: int
) -> None:
    whole = platform(places, queue)
    parts = [share(whole, number, count).models["echo"] for number in range(count)]
    shares = [part.max_concurrency or 0 for part in parts]
    assert sum(shares) == max(places, count)
    assert max(shares) - min(shares) <= 1
    assert sum(part.queue_length for part in parts) == (max(queue, count) if queue else 0)
    assert declared_digest(share(whole, 0, count), "echo") == declared_digest(whole, "echo")


def test_a_model_without_a_limit_has_none_in_any_worker() -> None:
    whole = platform(None, 64)
    assert share(whole, 1, 3) == whole
