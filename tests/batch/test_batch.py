"""Batches through OpenAI's own client, against a gateway with an in-memory model."""

from __future__ import annotations

import asyncio
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import openai
import pytest
from batch.conftest import OpenDesk
from openai.types import Batch
from support.desk import ENDPOINT, HALF, Desk, ask, jsonl
from support.gateway import Gateway, StartGateway
from support.installed import until

from trilith.testing import MemoryUpstream
from trilith_gateway.batch import runner, table
from trilith_gateway.batch.runner import BatchRunner, _Run
from trilith_gateway.store.home import instance
from trilith_gateway.terms import Terms

Spoil = Callable[[], tuple[Batch, Callable[[], object]]]


@contextmanager
def another_leads(gateway: Gateway) -> Iterator[None]:
    """Let batches wait, for a process that leads and does nothing."""
    name = f"batches {instance(gateway.home)}"
    with gateway.platform.store.reading() as connection:
        connection.execute("insert or replace into leaders values (?, 'another', 1e12)", (name,))
    yield
    with gateway.platform.store.reading() as connection:
        connection.execute("delete from leaders where name = ?", (name,))


class TestBatches:
    def test_every_line_is_answered_in_order_and_charged_at_the_batchs_price(
        self, desk: Desk, gateway: Gateway
    ) -> None:
        made = desk.hand_in([ask(n, f"number {n}") for n in range(20)], metadata={"for": "a test"})
        assert (made.status, made.metadata) == ("validating", {"for": "a test"})
        done = desk.wait(made)
        assert done.status == "completed"
        assert done.request_counts is not None
        assert (done.request_counts.total, done.request_counts.completed) == (20, 20)
        lines = desk.read(done.output_file_id)
        assert [line["custom_id"] for line in lines] == [f"line {n}" for n in range(20)]
        said = [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]
        assert said == [f"number {n}" for n in range(20)]
        assert done.error_file_id is None
        rows = gateway.ledger()
        assert len({row["request_id"] for row in rows}) == 20
        # Two words in at 1, two out at 3 microdollars a token, and half of that.
        assert {row["amount_pico_usd"] for row in rows} == {(2 * 10**6 + 2 * 3 * 10**6) // 2}

    def test_fields_that_the_gateway_does_not_know_reach_the_model_byte_for_byte(
        self, desk: Desk, upstream: MemoryUpstream
    ) -> None:
        body = b'{"model": "echo",  "messages": [{"role":"user","content":"a"}], "top_k": 1e2}'
        line = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":%b}' % body
        assert desk.wait(desk.hand_in([line])).status == "completed"
        assert upstream.calls[0].body.startswith(body[:-1])

    def test_lines_that_fail_go_to_the_error_file_and_cost_nothing(
        self, desk: Desk, gateway: Gateway
    ) -> None:
        done = desk.wait(desk.hand_in([ask(0), ask(1, model="nobody"), ask(2, max_tokens=-1)]))
        assert done.status == "completed"
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (1, 2)
        errors = desk.read(done.error_file_id)
        assert [line["custom_id"] for line in errors] == ["line 1", "line 2"]
        assert [line["response"]["status_code"] for line in errors] == [404, 400]
        assert errors[0]["response"]["body"]["error"]["code"] == "model_not_found"
        assert len(gateway.ledger()) == 1

    def test_a_model_that_is_overloaded_is_asked_again_and_charged_once(
        self, open_desk: OpenDesk, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(fail_with=[503, 429])})
        desk = open_desk(gateway)
        assert len(desk.read(desk.wait(desk.hand_in([ask(0)])).output_file_id)) == 1
        assert sorted(row["rule"] for row in gateway.ledger()) == ["failed", "failed", "usage"]

    def test_a_batch_stays_within_its_keys_budget(self, open_desk: OpenDesk, gateway: Gateway) -> None:
        token = gateway.mint(team="poor", budget_pico_usd=120_000_000)
        desk = open_desk(gateway, token)
        done = desk.wait(desk.hand_in([ask(n, max_tokens=2) for n in range(40)]))
        assert 0 < len(desk.read(done.output_file_id)) < 40
        errors = desk.read(done.error_file_id)
        assert {line["response"]["body"]["error"]["code"] for line in errors} == {"insufficient_quota"}
        assert sum(row["amount_pico_usd"] for row in gateway.ledger()) <= 120_000_000

    def test_a_line_that_comes_too_fast_for_its_key_waits_and_is_not_lost(
        self, open_desk: OpenDesk, gateway: Gateway
    ) -> None:
        desk = open_desk(gateway, gateway.mint(team="slow", requests_per_minute=60))
        done = desk.wait(desk.hand_in([ask(n) for n in range(62)]))
        assert len(desk.read(done.output_file_id)) == 62

    def test_a_line_that_its_keys_limit_will_never_let_in_is_refused_and_holds_up_no_other(
        self, gateway: Gateway, open_desk: OpenDesk
    ) -> None:
        desk = open_desk(gateway, gateway.mint(team="slow", terms=Terms(tokens_per_minute=5000)))
        done = desk.wait(desk.hand_in([*(ask(n, max_tokens=9000) for n in range(8)), ask(8, max_tokens=9)]))
        assert done.status == "completed"
        assert [line["custom_id"] for line in desk.read(done.output_file_id)] == ["line 8"]
        refused = desk.read(done.error_file_id)
        assert {line["response"]["status_code"] for line in refused} == {429}
        assert len(refused) == 8

    def test_a_team_with_many_batches_makes_room_for_one_that_has_none(
        self, start_gateway: StartGateway, open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "_MOST_BATCHES", 2)
        upstream = MemoryUpstream(delay_s=0.1)
        gateway = start_gateway({"echo": upstream})
        many, one = open_desk(gateway), open_desk(gateway, gateway.mint(team="others"))
        made = [many.hand_in([ask(n) for n in range(300)]) for _ in range(3)]
        until(lambda: len(upstream.calls) > 10, what="lines being asked for")
        done = one.wait(one.hand_in([ask(0)]))
        assert done.status == "completed"
        assert {many.openai.batches.retrieve(batch.id).status for batch in made} <= {
            "in_progress",
            "validating",
        }
        for batch in made:
            many.openai.batches.cancel(batch.id)
        answered = sum(len(many.read(many.wait(batch).output_file_id)) for batch in made)
        assert answered + 1 == len(upstream.calls)

    def test_a_revoked_keys_batch_is_not_answered_any_more(
        self, open_desk: OpenDesk, start_gateway: StartGateway
    ) -> None:
        upstream = MemoryUpstream(delay_s=0.05)
        gateway = start_gateway({"echo": upstream})
        token = gateway.mint(team="gone")
        desk = open_desk(gateway, token)
        made = desk.hand_in([ask(n) for n in range(200)])
        while not upstream.calls:
            time.sleep(0.01)
        keys = gateway.platform.keys
        with gateway.platform.store.reading() as connection:
            connection.execute("update keys set revoked_at = 1.0 where team = 'gone'")
        keys.reload()
        deadline = time.monotonic() + 30
        while (row := gateway.rows(f"select * from batches where id = '{made.id}'")[0])["ended_at"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert row["failed"] > 150
        assert row["completed"] + row["failed"] == 200

    def test_embeddings_responses_and_rows_of_other_models_are_refused_by_endpoint(self, desk: Desk) -> None:
        for endpoint in ("/v1/audio/speech", "/v1/nothing", "/v1/messages"):
            with pytest.raises(openai.BadRequestError) as caught:
                desk.hand_in([ask(0)], endpoint=endpoint)
            assert caught.value.param == "endpoint"


class TestMaking:
    @pytest.mark.parametrize(
        "metadata",
        [{str(n): "" for n in range(17)}, {"x" * 65: ""}, {"x": "y" * 513}, {"x": 1}, {"x": None}, []],
    )
    def test_metadata_beyond_openais_bounds_are_refused(self, desk: Desk, metadata: Any) -> None:
        file = desk.upload(jsonl([ask(0)]))
        with pytest.raises(openai.BadRequestError) as caught:
            desk.create(file, metadata=metadata)
        assert caught.value.param == "metadata"

    def test_metadata_within_them_come_back(self, desk: Desk) -> None:
        metadata = {f"{n:064}": "\0" * 512 for n in range(16)}
        made = desk.hand_in([ask(0)], metadata=metadata)
        assert made.metadata == desk.openai.batches.retrieve(made.id).metadata == metadata

    def test_what_is_not_offered_is_refused_by_name(self, desk: Desk) -> None:
        file = desk.upload(jsonl([ask(0)]))
        for more in (
            {"output_expires_after": {"anchor": "created_at", "seconds": 3600}},
            {"extra_body": {"completion_window": "48h"}},
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                desk.create(file, **more)
            assert caught.value.param in ("output_expires_after", "completion_window")

    def test_what_a_batch_wrote_is_no_input(self, desk: Desk) -> None:
        done = desk.wait(desk.hand_in([ask(0)]))
        with pytest.raises(openai.BadRequestError, match="no input of a batch"):
            desk.create(done.output_file_id or "")

    def test_batches_are_listed_page_by_page_newest_first(self, gateway: Gateway, desk: Desk) -> None:
        file = desk.upload(jsonl([ask(0)]))
        with another_leads(gateway):
            made = [desk.create(file).id for _ in range(5)]
            page = desk.openai.batches.list(limit=2)
            assert ([batch.id for batch in page.data], page.has_more) == (made[:-3:-1], True)
            assert [batch.id for batch in page] == made[::-1]
            with pytest.raises(openai.BadRequestError):
                desk.openai.batches.list(after="\0")


class TestValidation:
    @pytest.mark.parametrize(
        ("lines", "code"),
        [
            ([b"{"], "invalid_json_line"),
            ([b"[]"], "invalid_json_line"),
            ([ask(0), ask(0)], "duplicate_custom_id"),
            ([ask(0) | {"method": "GET"}], "invalid_method"),
            ([ask(0) | {"url": "/v1/embeddings"}], "mismatched_endpoint"),
            ([ask(0) | {"body": []}], "invalid_request"),
            ([ask(0, stream=True)], "invalid_request"),
            ([ask(0) | {"custom_id": 3}], "missing_required_parameter"),
            ([json.dumps(ask(0)).encode()[:-1] + b', "body": {}}'], "invalid_request"),
            ([b"", b" "], "empty_file"),
        ],
    )
    def test_a_file_that_is_wrong_fails_the_batch_and_says_where(
        self, desk: Desk, upstream: MemoryUpstream, lines: list[Any], code: str
    ) -> None:
        done = desk.wait(desk.hand_in(lines))
        assert done.status == "failed"
        assert done.errors is not None
        assert done.errors.data is not None
        assert [fault.code for fault in done.errors.data] == [code]
        assert not upstream.calls

    def test_a_line_longer_than_any_body_fails_the_batch_and_is_named(
        self, open_desk: OpenDesk, start_gateway: StartGateway
    ) -> None:
        upstream = MemoryUpstream()
        desk = open_desk(start_gateway({"echo": upstream}, gateway={"max_body_bytes": 2048}))
        done = desk.wait(desk.hand_in([ask(0), ask(1, "x" * 4096)]))
        assert done.status == "failed"
        assert done.errors is not None
        assert done.errors.data is not None
        assert [(fault.code, fault.line) for fault in done.errors.data] == [("line_too_long", 2)]
        assert not upstream.calls


class TestEnds:
    def test_a_cancelled_batch_keeps_what_was_answered_and_names_the_rest(
        self, open_desk: OpenDesk, start_gateway: StartGateway
    ) -> None:
        upstream = MemoryUpstream(delay_s=0.05)
        desk = open_desk(start_gateway({"echo": upstream}))
        made = desk.hand_in([ask(n) for n in range(300)])
        while len(upstream.calls) < 10:
            time.sleep(0.01)
        assert desk.openai.batches.cancel(made.id).status == "cancelling"
        done = desk.wait(made)
        answered, left = desk.read(done.output_file_id), desk.read(done.error_file_id)
        assert done.status == "cancelled"
        assert len(answered) + len(left) == 300
        assert {line["error"]["code"] for line in left} == {"batch_cancelled"}
        assert 10 <= len(answered) < 300
        with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'cancelled'") as no:
            desk.openai.batches.cancel(made.id)
        assert no.value.response.headers["x-should-retry"] == "false"

    def test_a_batch_whose_time_is_over_expires(
        self, open_desk: OpenDesk, start_gateway: StartGateway
    ) -> None:
        upstream = MemoryUpstream(delay_s=0.05)
        gateway = start_gateway({"echo": upstream})
        desk = open_desk(gateway)
        file = desk.openai.files.create(file=("in.jsonl", jsonl([ask(0), ask(1)])), purpose="batch")
        with gateway.platform.store.reading() as connection:
            connection.execute(
                "insert into batches (id, team, key_id, endpoint, input_file_id, metadata, status, at,"
                " expires_at, place) select ?, team, key_id, ?, id, 'null', 'validating', 1.0, 2.0, place"
                " from files",
                ("batch_" + "0" * 32, ENDPOINT),
            )
        (made,) = desk.openai.batches.list().data
        done = desk.wait(made)
        assert done.status == "expired"
        assert {line["error"]["code"] for line in desk.read(done.error_file_id)} == {"batch_expired"}
        assert desk.openai.files.retrieve(file.id).id == file.id
        assert not upstream.calls

    def test_a_batch_that_expires_midway_hands_out_what_was_answered(
        self, open_desk: OpenDesk, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(table, "WINDOW_S", 5.0)
        desk = open_desk(start_gateway({"echo": MemoryUpstream(delay_s=0.3)}))
        done = desk.wait(desk.hand_in([ask(n) for n in range(300)]))
        assert (done.status, done.expired_at is not None, done.completed_at) == ("expired", True, None)
        answered, left = desk.read(done.output_file_id), desk.read(done.error_file_id)
        assert len(answered) + len(left) == 300
        assert len(answered) > 0
        assert {line["error"]["code"] for line in left} == {"batch_expired"}

    def test_a_batch_whose_input_is_gone_is_not_made(self, gateway: Gateway, desk: Desk) -> None:
        file = desk.upload(jsonl([ask(0)]))
        (gateway.home / "files" / file).unlink()
        with pytest.raises(openai.NotFoundError, match="is gone"):
            desk.create(file)
        assert desk.openai.batches.list().data == []
        assert list((gateway.home / "files").iterdir()) == []

    def test_a_batch_has_its_input_from_the_moment_it_is_made(self, gateway: Gateway, desk: Desk) -> None:
        with another_leads(gateway):
            file = desk.upload(jsonl([ask(0)]))
            made = desk.create(file)
            assert desk.openai.files.delete(file).deleted
        assert desk.wait(made).status == "completed"
        assert gateway.rows("select id from files where purpose = 'kept'") == []

    def test_what_was_answered_is_handed_out_though_the_input_is_deleted_meanwhile(
        self, open_desk: OpenDesk, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(delay_s=0.2)}, echo=HALF)
        desk = open_desk(gateway)
        made = desk.hand_in([ask(number) for number in range(60)])
        deadline = time.monotonic() + 20
        while not len(gateway.ledger()):
            assert time.monotonic() < deadline
        assert desk.openai.files.delete(made.input_file_id).deleted
        desk.openai.batches.cancel(made.id)
        done = desk.wait(made)
        assert done.status == "cancelled"
        answered = desk.read(done.output_file_id)
        assert len(answered) == sum(row["rule"] == "usage" for row in gateway.ledger()) > 0
        assert len(answered) + len(desk.read(done.error_file_id)) == 60
        assert not list((gateway.home / "files").glob("*.input"))

    def test_a_batch_that_another_process_has_ended_is_left_alone(
        self, gateway: Gateway, desk: Desk, upstream: MemoryUpstream
    ) -> None:
        done = desk.wait(desk.hand_in([ask(0)]))
        runner = BatchRunner(gateway.platform)
        stale = replace(runner.table.find(done.id, "test"), status="in_progress", ended_at=None)
        asyncio.run(runner._guarded(_Run(stale, stale.status)))
        assert len(upstream.calls) == 1
        assert desk.openai.batches.retrieve(done.id) == done

    def test_a_batch_that_somebody_else_works_on_is_left_to_them(
        self, gateway: Gateway, desk: Desk, upstream: MemoryUpstream
    ) -> None:
        runner = BatchRunner(gateway.platform)
        file = desk.openai.files.create(file=("in.jsonl", jsonl([ask(0)])), purpose="batch")
        held = "batch_" + "0" * 32
        with (gateway.home / "files" / f"{held}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with gateway.platform.store.reading() as connection:
                connection.execute(
                    "insert into batches (id, team, key_id, endpoint, input_file_id, metadata, status, at,"
                    " expires_at, place) select ?, team, key_id, ?, id, 'null', 'validating', at, expires_at,"
                    " place from files where id = ?",
                    (held, ENDPOINT, file.id),
                )
            row = runner.table.find(held, "test")
            asyncio.run(runner._guarded(_Run(row, row.status)))
            assert not upstream.calls
        assert desk.wait(desk.openai.batches.retrieve(held)).status == "completed"
        assert len(upstream.calls) == 1

    def test_batches_wait_while_callers_keep_the_gateway_busy(
        self, open_desk: OpenDesk, start_gateway: StartGateway
    ) -> None:
        upstream = MemoryUpstream()
        gateway = start_gateway({"echo": upstream})
        gateway.platform.metrics.open += 100
        try:
            desk = open_desk(gateway)
            made = desk.hand_in([ask(0)])
            deadline = time.monotonic() + 20
            while desk.openai.batches.retrieve(made.id).status != "in_progress":
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert not upstream.calls
        finally:
            gateway.platform.metrics.open -= 100
        assert desk.wait(made).status == "completed"


class TestFaults:
    """Something goes wrong in the middle: the input cannot be read any more."""

    @pytest.fixture
    def upstream(self) -> MemoryUpstream:
        return MemoryUpstream(delay_s=0.05)

    @pytest.fixture
    def spoil(self, gateway: Gateway, desk: Desk, upstream: MemoryUpstream) -> Spoil:
        """Hand in a batch, and spoil the later half of its input when some lines are answered."""

        def spoiled() -> tuple[Batch, Callable[[], object]]:
            made = desk.hand_in([ask(number, "x" * 9000) for number in range(60)])
            path = gateway.home / "files" / f"{made.id}.input"
            until(lambda: len(upstream.calls) > 4, what="lines being asked for")
            whole = path.read_bytes()
            with path.open("r+b") as file:
                file.seek(len(whole) // 2)
                file.write(b"#" * (len(whole) // 2))
            return made, lambda: path.write_bytes(whole)

        return spoiled

    def test_a_batch_that_cannot_go_on_hands_out_what_was_answered(
        self, gateway: Gateway, desk: Desk, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "_REST_S", 0.001)
        made, _ = spoil()
        done = desk.wait(made)
        assert done.status == "failed"
        assert done.errors is not None
        assert done.errors.data is not None
        assert [fault.code for fault in done.errors.data] == ["internal_error"]
        answered = desk.read(done.output_file_id)
        assert [line["custom_id"] for line in answered] == [f"line {n}" for n in range(len(answered))]
        assert len(answered) == sum(row["rule"] == "usage" for row in gateway.ledger()) >= 20
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.total) == (len(answered), 60)
        assert not list((gateway.home / "files").glob("batch_*"))

    def test_what_passes_is_met_with_another_try_that_repeats_no_line(
        self, gateway: Gateway, desk: Desk, spoil: Spoil, upstream: MemoryUpstream, caplog: Any
    ) -> None:
        made, mend = spoil()
        until(lambda: f"{made.id} could not go on" in caplog.text, what="a failure")
        mend()
        done = desk.wait(made)
        assert done.status == "completed"
        assert len(desk.read(done.output_file_id)) == len(upstream.calls) == len(gateway.ledger()) == 60

    def test_a_batch_that_has_begun_is_held_to_no_limit_that_was_set_later(
        self, gateway: Gateway, desk: Desk, spoil: Spoil, caplog: Any
    ) -> None:
        made, mend = spoil()
        until(lambda: f"{made.id} could not go on" in caplog.text, what="a failure")
        old = gateway.platform.settings
        less = old.batches.model_copy(update={"max_lines": 1})
        gateway.platform.settings = old.model_copy(update={"batches": less})
        mend()
        assert desk.wait(made).status == "completed"


async def test_several_tasks_take_lines_from_one_file(tmp_path: Any) -> None:
    from trilith_gateway.batch.line import Results, answered

    path = tmp_path / "results"
    results = Results(path)
    for number in (3, 1, 2):
        results.add(number, answered("id", f"c{number}", 200 if number != 2 else 400, "r", b'{"a":\n1}'))
    results.close()
    with path.open("ab") as file:  # a kill in the middle of a write
        file.write(b'4 1 {"id": "' + b"x" * 500)
    again = await asyncio.to_thread(Results, path)
    assert (again.done, again.completed, again.failed) == ({1, 2, 3}, 2, 1)
    again.add(4, answered("id", "c4", 200, "r", b"not json"))
    again.write_files(tmp_path / "out", tmp_path / "err")
    again.close()
    out = [json.loads(line) for line in (tmp_path / "out").read_bytes().splitlines()]
    assert [line["custom_id"] for line in out] == ["c1", "c3", "c4"]
    assert out[2]["response"]["body"] == "not json"
    assert len((tmp_path / "err").read_bytes().splitlines()) == 1
