"""`trilith teams`, `orgs` and `keys`: what they write, and what they refuse."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import yaml

from trilith.cli import main
from trilith_gateway import key
from trilith_gateway.key import Key
from trilith_gateway.store import sqlite
from trilith_gateway.terms import Budget, Rates, Terms


@pytest.fixture(autouse=True)
def _platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}}
    models = {"big": place, "small": place | {"price": {"usd_per_request": "0.01"}}}
    text = yaml.safe_dump({"home": "home", "models": models})
    (tmp_path / "trilith.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def trilith(line: str) -> int:
    return main(line.split())


def keys() -> list[Key]:
    with closing(sqlite.connect(sqlite.database(Path("home")))) as connection:
        return key.load(connection)


def test_a_key_stands_under_the_team_and_org_that_were_made() -> None:
    assert trilith("orgs create uni --budget-usd 10") == 0
    assert trilith("teams create lab --org uni --weight 3 --tokens-per-minute 5000") == 0
    options = "--budget-usd 2 --budget-window week --soft-percent 80 --degrade-percent 90 --degrade-to small"
    limits = "--requests-per-minute 60 --max-concurrency 4 --priority batch"
    assert trilith(f"keys create me --team lab {options} {limits}") == 0
    (made,) = keys()
    dollar = 10**12
    assert made.budgets == (
        Budget(f"key:{made.id}", 2 * dollar, "week", 80, 90, "small"),
        Budget("org:uni", 10 * dollar, "month"),
    )
    own = Rates(f"key:{made.id}", 60, None, 4)
    assert made.request_rates == (own,)
    assert made.work_rates == (own, Rates("team:lab", None, 5000, None))
    assert (made.org, made.weight, made.priority) == ("uni", 3, "batch")


def test_set_changes_what_is_given_and_leaves_the_rest() -> None:
    trilith("orgs create uni")
    trilith("teams create lab --org uni --budget-usd 5 --budget-window day --soft-percent 50")
    trilith("keys create me --team lab --requests-per-minute 9")
    (made,) = keys()
    assert trilith("teams set lab --budget-usd 7 --org none") == 0
    assert trilith(f"keys set {made.id} --requests-per-minute none --max-concurrency 2") == 0
    (changed,) = keys()
    assert changed.terms == Terms(max_concurrency=2)
    assert (changed.org, changed.budgets) == ("", (Budget("team:lab", 7 * 10**12, "day", 50),))


def test_lists_show_what_was_agreed_and_what_is_spent(capsys: pytest.CaptureFixture[str]) -> None:
    trilith("orgs create uni --budget-usd 10 --budget-window total")
    trilith("teams create lab --org uni --budget-usd 5 --degrade-percent 90 --degrade-to small")
    trilith("keys create me --team lab --tokens-per-minute 100 --priority batch")
    capsys.readouterr()
    for word in ("orgs", "teams", "keys"):
        assert trilith(f"{word} list") == 0
    orgs, teams, listed = capsys.readouterr().out.split("NAME")[1:4]
    assert "10.00 USD " in orgs
    assert "5.00 USD/month" in teams
    assert "small from 90 %" in teams
    assert "100 tokens" in listed
    assert "batch" in listed


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("teams create lab", "exists; `set` changes it"),
        ("teams set nobody --weight 2", "there is no team 'nobody'"),
        ("teams set lab", "nothing to change"),
        ("teams create new --org nowhere", "there is no org 'nowhere'"),
        ("teams create new --soft-percent 50", "shares of a budget"),
        ("teams create new --budget-usd 1 --degrade-percent 50", "belong together"),
        ("teams create new --budget-usd 1 --degrade-percent 50 --degrade-to big", "with a price: small"),
        ("keys set 0123456789ab --priority batch", "no valid key has the id"),
    ],
)
def test_what_contradicts_itself_is_refused(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    trilith("teams create lab")
    assert trilith(line) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["--budget-usd -1", "--budget-usd 99999999999", "--soft-percent 101", "--weight 0"]
)
def test_numbers_out_of_range_are_refused_by_the_command_line(option: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        trilith(f"teams create lab {option}")
