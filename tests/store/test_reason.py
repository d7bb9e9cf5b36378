"""Why a request was answered as it was, and who keeps its answer: the same from both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from store.test_contract import charge

from trilith.settings.schema import Settings
from trilith_gateway import decision, kept, key
from trilith_gateway.commands import explain
from trilith_gateway.kept import Kept, KeptAnswers

WHY: list[Any] = [("replica", "http://b", "weighted", 1, (("http://a", "ejected"),)), ("cache", "miss")]


def told(number: int, **fields: Any) -> dict[str, Any]:
    return charge(number) | {"upstream": "http://b", "decided": decision.written(WHY)} | fields


def test_a_row_s_reasons_are_explained(opened: Any, url: str | None, home: Path) -> None:
    store = opened()
    store.append(charge(1))
    store.append(told(2))
    store.flush()
    settings = Settings.model_validate({"home": home, "store": {"url": url}})
    (plain,) = explain.explain(settings, "c1")["charges"]
    assert (plain["upstream"], plain["decided"]) == ("", [])
    found = explain.explain(settings, "c2")
    assert [one["fact"][0] for one in found["charges"][0]["decided"]] == ["replica", "cache"]
    assert "http://b, the only one that may be asked; not asked: http://a (ejected)" in explain._text(found)


async def test_a_kept_answer_is_found_by_its_team_alone_and_the_newest_counts(opened: Any) -> None:
    store = opened()
    named = {"kept_as": kept.digest("resp_1"), "team": "lab"}
    store.append(told(1, **named, upstream="http://old"))
    store.append(told(2, **named, at=2.0, model="m", asked="n"))
    store.flush()
    found = KeptAnswers(store)
    assert await found.find(key.mint("k", team="lab")[0], "resp_1") == Kept("m", "n", "http://b")
    assert await found.find(key.mint("k", team="lab", models=frozenset({"m"}))[0], "resp_1") is None
    assert await found.find(key.mint("k", team="shop")[0], "resp_1") is None
    assert await found.find(key.mint("k", team="lab")[0], 7) is None
