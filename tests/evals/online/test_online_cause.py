"""Where a loss sits, and what topics are called."""

from __future__ import annotations

import numpy as np
import pytest

from trilith_evals.online.cause import Topics, causes, slices
from trilith_evals.online.record import Record


def rows(generator: np.random.Generator, *, worse: float) -> list[tuple[Record, float]]:
    found = []
    for n in range(600):
        release, topic = ("b", 1.0) if n % 3 == 0 else ("a", 0.0)
        vector = [topic + float(generator.normal(0, 0.05)), 1 - topic]
        words = "refund invoice" if topic else "delivery parcel"
        record = Record(
            str(n),
            float(n),
            tenant=f"t{n % 4}",
            release=release,
            embedding=vector,
            text=f"{words} for ann{n}",
        )
        found.append((record, float(generator.random() < (0.1 + worse if release == "b" else 0.1))))
    return found


def test_the_release_that_lost_has_the_largest_share() -> None:
    generator = np.random.default_rng(1)
    before, now = rows(generator, worse=0.0), rows(generator, worse=0.5)
    found = causes(before, now, slices([record for record, _ in before]))
    assert (found[0]["field"], found[0]["value"]) == ("release", "b")
    assert found[0]["share_of_loss"] == pytest.approx(1.0, abs=0.2)


def test_nothing_has_a_cause_where_nothing_was_lost() -> None:
    generator = np.random.default_rng(2)
    before, now = rows(generator, worse=0.3), rows(generator, worse=0.0)
    assert causes(before, now, slices([record for record, _ in before])) == ()


def test_topics_have_numbers_unless_words_are_asked_for() -> None:
    records = [record for record, _ in rows(np.random.default_rng(3), worse=0.0)]
    assert sorted(Topics(records, 2).names) == ["topic 1", "topic 2"]


def test_the_words_of_a_topic_are_those_of_many_tenants_and_no_callers_name() -> None:
    records = [record for record, _ in rows(np.random.default_rng(4), worse=0.0)]
    records[0].text = " ".join(["confidential"] * 30)
    named = " ".join(Topics(records, 2, words=True).names)
    assert "refund" in named
    assert "parcel" in named
    assert "ann" not in named
    assert "confidential" not in named
