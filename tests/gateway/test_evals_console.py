"""Runs and findings that admin keys keep on the gateway, list, show and compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.eval_run import FINDING, told
from support.gateway import Gateway, StartGateway

from trilith.testing import MemoryUpstream
from trilith_evals.online.finding import Kind
from trilith_gateway.evaluation.finding import KINDS

RUNS, MONITORS = "/admin/v1/evals/runs", "/admin/v1/evals/monitors"


@pytest.fixture
def admin(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client(token=gateway.mint(admin=True)) as client:
        yield client


def kept(admin: httpx.Client, *wrong: int, **options: Any) -> dict[str, Any]:
    answered = admin.post(RUNS, json=told(wrong, **options))
    assert answered.status_code == 200, answered.text
    made: dict[str, Any] = answered.json()
    return made


def listed(admin: httpx.Client, **asked: Any) -> list[str]:
    return [run["id"] for run in admin.get(RUNS, params=asked).raise_for_status().json()["data"]]


def test_a_run_is_read_back_as_it_was_uploaded(admin: httpx.Client) -> None:
    run = told({1, 2})
    made = admin.post(RUNS, json=run).json()
    found = admin.get(f"{RUNS}/{made['id']}").json()
    assert found.pop("run") == run
    assert {**found, "new": True} == made
    (suite,) = found["suites"]
    assert (suite["name"], suite["model"], suite["outcome"]) == ("capitals", "support", "pass")
    assert suite["figures"][0]["value"] == pytest.approx(58 / 60)


def test_the_same_run_is_kept_once_however_its_fields_are_ordered(admin: httpx.Client) -> None:
    run = told({1})
    first = admin.post(RUNS, json=run).json()
    turned = json.dumps(dict(reversed(run.items())), indent=3)
    second = admin.post(RUNS, content=turned).json()
    assert (first.pop("new"), second.pop("new")) == (True, False)
    assert first == second
    assert listed(admin) == [first["id"]]


def test_runs_are_listed_newest_first_and_page_by_page(admin: httpx.Client) -> None:
    ids = [kept(admin, number)["id"] for number in range(5)][::-1]
    assert listed(admin) == ids
    first = admin.get(RUNS, params={"limit": 2}).json()
    assert first["has_more"]
    assert listed(admin, limit=2, after=first["last_id"]) == ids[2:4]
    rest = admin.get(RUNS, params={"limit": 2, "after": ids[3]}).json()
    assert ([run["id"] for run in rest["data"]], rest["has_more"]) == (ids[4:], False)
    assert admin.get(RUNS, params={"after": "evalrun_nobody"}).status_code == 400


def test_a_list_may_be_of_a_suite_a_model_a_release_and_an_outcome(admin: httpx.Client) -> None:
    bad = kept(admin, *range(60))["id"]
    other = kept(admin, suite="rivers", target="geo@0123456789ab version 2", releases=("0123456789ab",))["id"]
    assert listed(admin, suite="capitals") == [bad]
    assert listed(admin, model="geo") == [other]
    assert listed(admin, release="sha256:0123456789ab") == listed(admin, outcome="pass") == [other]
    assert listed(admin, outcome="fail") == [bad]
    assert listed(admin, suite="capitals", model="geo") == []
    assert admin.get(RUNS, params={"outcome": "splendid"}).status_code == 400


def test_a_run_with_several_suites_is_found_by_what_one_suite_has(admin: httpx.Client) -> None:
    run = told()
    run["suites"] += told(suite="rivers", target="geo")["suites"]
    admin.post(RUNS, json=run).raise_for_status()
    assert len(listed(admin, suite="rivers", model="geo")) == 1
    assert listed(admin, suite="capitals", model="geo") == []


def test_a_deleted_run_is_gone_and_may_come_again(admin: httpx.Client, gateway: Gateway) -> None:
    run = told()
    id = admin.post(RUNS, json=run).json()["id"]
    assert admin.delete(f"{RUNS}/{id}").json() == {"id": id, "object": "eval.run", "deleted": True}
    assert [admin.get(f"{RUNS}/{id}").status_code, admin.delete(f"{RUNS}/{id}").status_code] == [404, 404]
    assert listed(admin, suite="capitals") == []
    assert gateway.rows("select * from eval_suites") == []
    assert admin.post(RUNS, json=run).json()["new"]
    assert listed(admin, suite="capitals") == [id]


def test_the_audit_log_says_who_kept_and_deleted_a_run(admin: httpx.Client, gateway: Gateway) -> None:
    id = kept(admin)["id"]
    kept_again = admin.post(RUNS, json=admin.get(f"{RUNS}/{id}").json()["run"])
    assert not kept_again.json()["new"]
    admin.delete(f"{RUNS}/{id}")
    rows = gateway.rows("select event, detail from audit order by number")
    assert [row["event"] for row in rows] == ["evals.run.kept", "evals.run.deleted"]
    assert {json.loads(row["detail"])["run"] for row in rows} == {id}
    assert all(json.loads(row["detail"])["key_id"] for row in rows)


def test_the_report_is_a_page_that_no_browser_runs_anything_of(admin: httpx.Client) -> None:
    id = kept(admin, 1, word="<script>alert(1)</script>")["id"]
    page = admin.get(f"{RUNS}/{id}/report")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'", "sandbox"} <= set(policy)
    assert not any("script" in part for part in policy)
    assert (page.headers["x-content-type-options"], page.headers["cache-control"]) == ("nosniff", "no-store")
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "capitals" in page.text


def test_a_report_without_content_has_no_question_and_no_answer(admin: httpx.Client) -> None:
    id = kept(admin, 1, word="Wombat")["id"]
    page = admin.get(f"{RUNS}/{id}/report", params={"content": "false"}).text
    assert "capitals" in page
    assert "Wombat" not in page
    assert "capital 1?" not in page
    assert "Wombat" in admin.get(f"{RUNS}/{id}/report").text


def test_a_run_without_content_is_kept_shown_and_compared(admin: httpx.Client) -> None:
    before = kept(admin, content=False)["id"]
    after = kept(admin, *range(30), content=False)["id"]
    assert "capital 1?" not in admin.get(f"{RUNS}/{before}").text
    assert admin.get(f"{RUNS}/{before}/report").status_code == 200
    assert compared(admin, before, after)["outcome"] == "fail"


def compared(admin: httpx.Client, before: str, after: str, **asked: Any) -> dict[str, Any]:
    params = {"baseline": before, "candidate": after, **asked}
    found = admin.get("/admin/v1/evals/compare", params=params)
    assert found.status_code == 200, found.text
    made: dict[str, Any] = found.json()
    return made


def test_a_worse_run_fails_against_a_better_one_as_the_command_says(admin: httpx.Client) -> None:
    before, after = told({1}), told(range(25))
    ids = [admin.post(RUNS, json=run).json()["id"] for run in (before, after)]
    found = compared(admin, *ids)
    from trilith_evals import contest, recorded

    lines = contest.against(recorded.suites(before), recorded.suites(after))
    (whole,) = [line for line in found["lines"] if not line["slice"]]
    assert found["outcome"] == whole["check"]["outcome"] == "fail"
    assert [line["check"]["message"] for line in found["lines"]] == [line.check.message for line in lines]
    assert {line["slice"] for line in found["lines"]} == {"", "lang=de", "lang=en"}
    assert compared(admin, ids[0], ids[0])["outcome"] == "pass"


def test_a_margin_is_heeded(admin: httpx.Client) -> None:
    ids = [kept(admin, 1)["id"], kept(admin, 1, 2)["id"]]
    assert compared(admin, *ids)["outcome"] == "no evidence"
    assert compared(admin, *ids, margin=0.5)["outcome"] == "pass"
    assert compared(admin, *ids, margin=1.5)["outcome"] == "pass"  # in the metric's unit


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"baseline": "evalrun_none"}, 404),
        ({"margin": "-1"}, 400),
        ({"margin": "inf"}, 400),
        ({"margin": "nan"}, 400),
        ({"alpha": "0"}, 400),
        ({"alpha": "nan"}, 400),
        ({"candidate": None}, 400),
    ],
)
def test_what_cannot_be_compared_is_refused(
    admin: httpx.Client, asked: dict[str, str | None], status: int
) -> None:
    id = kept(admin)["id"]
    params = {name: value for name, value in ({"baseline": id, "candidate": id} | asked).items() if value}
    assert admin.get("/admin/v1/evals/compare", params=params).status_code == status


def test_runs_of_other_suites_cannot_be_compared_and_are_told_so(admin: httpx.Client) -> None:
    ids = [kept(admin)["id"], kept(admin, suite="rivers")["id"]]
    params = {"baseline": ids[0], "candidate": ids[1]}
    refused = admin.get("/admin/v1/evals/compare", params=params)
    assert refused.status_code == 400
    assert "no metric in common" in refused.json()["error"]["message"]


def without(field: str) -> Callable[[dict[str, Any]], None]:
    def change(run: dict[str, Any]) -> None:
        del run["suites"][0][field]

    return change


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no suites": lambda run: run.update(suites=[]),
    "suites that are none": lambda run: run.update(suites=[1]),
    "no start": lambda run: run.pop("started"),
    "no rows": without("rows"),
    "no figures": without("figures"),
    "no name": without("name"),
    "a name that no database keeps": lambda run: run["suites"][0].update(name="a\0b"),
    "a name without end": lambda run: run["suites"][0].update(name="x" * 1001),
    "a number as text": lambda run: run["suites"][0].update(cases="many"),
    "two suites of one name": lambda run: run.update(suites=run["suites"] * 2),
    "a case twice": lambda run: run["suites"][0]["rows"].append(run["suites"][0]["rows"][0]),
    "a row without its score": lambda run: run["suites"][0]["rows"][0].update(scores={}),
    "a score that is none": lambda run: run["suites"][0]["rows"][0]["scores"].update(contains=7),
    "an outcome that is none": lambda run: run["suites"][0]["checks"][0].update(outcome="splendid"),
    "an unknown use": lambda run: run["suites"][0]["rows"][0].update(usage={"candles": 3}),
    "a repeat of nothing": lambda run: run["suites"][0].update(repeated=[{"figures": [{"metric": "x"}]}]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_run_is_refused_and_not_kept(admin: httpx.Client, what: str) -> None:
    run = told({1})
    BROKEN[what](run)
    refused = admin.post(RUNS, json=run)
    assert refused.status_code == 400, refused.text
    assert "capital 1?" not in refused.text
    assert listed(admin) == []


def test_the_outcome_is_that_of_the_checks_and_not_what_the_upload_says(admin: httpx.Client) -> None:
    run = told(range(60))
    run["outcome"] = run["suites"][0]["outcome"] = "pass"
    assert admin.post(RUNS, json=run).json()["outcome"] == "fail"


def test_a_run_longer_than_the_setting_says_is_refused(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, gateway={"max_eval_run_bytes": 2000})
    with gateway.client(token=gateway.mint(admin=True)) as admin:
        for path in (RUNS, MONITORS):
            refused = admin.post(path, content=b" " * 2001)
            assert refused.status_code == 413
            assert "gateway.max_eval_run_bytes" in refused.json()["error"]["message"]


def test_a_larger_run_than_a_models_request_may_be_is_taken(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, gateway={"max_body_bytes": 2000})
    with gateway.client(token=gateway.mint(admin=True)) as admin:
        assert kept(admin)["bytes"] > 2000


def test_findings_of_a_monitor_are_kept_once_and_listed_newest_first(admin: httpx.Client) -> None:
    later = {**FINDING, "start": 2000.0, "end": 3000.0, "kind": "closed"}
    lines = "\n".join(json.dumps(line) for line in (FINDING, later)) + "\n"
    assert admin.post(MONITORS, content=lines).json() == {"object": "eval.findings", "received": 2, "new": 2}
    assert admin.post(MONITORS, content=lines).json()["new"] == 0
    found = admin.get(MONITORS).json()["data"]
    assert [{k: v for k, v in one.items() if k not in ("id", "object")} for one in found] == [later, FINDING]
    assert [one["kind"] for one in admin.get(MONITORS, params={"kind": "alarm"}).json()["data"]] == ["alarm"]
    assert admin.get(MONITORS, params={"monitor": "others"}).json()["data"] == []
    assert admin.get(MONITORS, params={"after": found[0]["id"]}).json()["data"] == found[1:]


def test_one_line_that_is_no_finding_keeps_all_out(admin: httpx.Client) -> None:
    for wrong in (b"", b"[]", b'{"monitor": "bikes"}', json.dumps({**FINDING, "text": "x"}).encode()):
        refused = admin.post(MONITORS, content=json.dumps(FINDING).encode() + b"\n" + wrong if wrong else b"")
        assert refused.status_code == 400
    assert admin.get(MONITORS).json()["data"] == []


def test_findings_are_of_the_kinds_that_monitors_know() -> None:
    assert list(KINDS) == [kind.value for kind in Kind]


def test_an_admin_key_calls_no_more_models_than_its_list_says(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"echo": MemoryUpstream(), "other": MemoryUpstream()})
    body = {"messages": [{"role": "user", "content": "x"}]}
    with gateway.client(token=gateway.mint(admin=True, models=frozenset({"other"}))) as client:
        answered = [client.post("/v1/chat/completions", json={"model": m, **body}) for m in ("echo", "other")]
        assert [one.status_code for one in answered] == [404, 200]
        assert client.get(RUNS).status_code == 200


def test_a_key_loses_and_gets_the_right_while_the_gateway_runs(gateway: Gateway, tmp_path: Path) -> None:
    from trilith.cli import main

    settings = tmp_path / "trilith.yaml"
    settings.write_text(json.dumps({"home": str(gateway.home)}), "utf-8")
    token = gateway.mint()
    id = token.split("_")[1]
    statuses = []
    with gateway.client(token=token) as client:
        for option in ("--admin", "--no-admin"):
            assert main(["keys", "set", id, option, "--settings", str(settings)]) == 0
            gateway.platform.keys.catch_up()
            statuses.append(client.get(RUNS).status_code)
    assert statuses == [200, 403]
