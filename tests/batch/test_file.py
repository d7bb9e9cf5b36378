"""Files through OpenAI's own client: whose they are, how large they may be, how long they stay."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

import openai
import pytest
from batch.conftest import OpenDesk
from support.desk import ENDPOINT, Desk, ask, jsonl
from support.gateway import Gateway, StartGateway
from support.installed import until

from trilith.testing import MemoryUpstream
from trilith_gateway.app import assemble
from trilith_gateway.terms import Terms


@contextmanager
def half_an_upload(gateway: Gateway, token: str, declared: int = 10_000) -> Iterator[socket.socket]:
    """Send the head of an upload and no more of it."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as sent:
        sent.sendall(
            f"POST /v1/files HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n"
            f"content-type: multipart/form-data; boundary=mark\r\ncontent-length: {declared}\r\n\r\n".encode()
        )
        yield sent


class TestFiles:
    def test_files_are_listed_described_read_and_deleted(self, desk: Desk) -> None:
        files = desk.openai.files
        made = [files.create(file=(f"{n}.jsonl", jsonl([ask(n)])), purpose="batch") for n in range(3)]
        assert {file.filename for file in files.list()} == {"0.jsonl", "1.jsonl", "2.jsonl"}
        page = files.list(limit=2)
        assert (len(page.data), page.has_more) == (2, True)
        assert [file.id for file in files.list(limit=1, purpose="batch")] == [f.id for f in reversed(made)]
        assert files.content(made[0].id).content == jsonl([ask(0)])
        assert files.retrieve(made[0].id).bytes == len(jsonl([ask(0)]))
        assert files.delete(made[0].id).deleted
        with pytest.raises(openai.NotFoundError):
            files.content(made[0].id)

    def test_another_team_sees_neither_files_nor_batches(
        self, open_desk: OpenDesk, gateway: Gateway, desk: Desk
    ) -> None:
        batch = desk.wait(desk.hand_in([ask(0)]))
        other = open_desk(gateway, gateway.mint(team="others")).openai
        assert (other.files.list().data, other.batches.list().data) == ([], [])
        for id in (batch.input_file_id, batch.output_file_id or ""):
            for call in (other.files.retrieve, other.files.content, other.files.delete):
                with pytest.raises(openai.NotFoundError):
                    call(id)
        for work in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                work(batch.id)
        with pytest.raises(openai.NotFoundError):
            other.batches.create(
                input_file_id=batch.input_file_id, endpoint=ENDPOINT, completion_window="24h"
            )

    @pytest.mark.parametrize("id", ["..%2f..%2ftrilith.db", "file-x", "%00", "file-" + "0" * 24])
    def test_an_id_that_is_none_leads_nowhere(self, gateway: Gateway, id: str) -> None:
        with gateway.client() as http:
            for path in (f"/v1/files/{id}", f"/v1/files/{id}/content", f"/v1/batches/{id}"):
                assert http.get(path).status_code == 404, path

    def test_files_are_bounded_each_and_together(
        self, open_desk: OpenDesk, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway({"echo": MemoryUpstream()})
        limits = gateway.platform.settings.batches.model_copy(
            update={"max_file_bytes": 2000, "team_bytes": 3000}
        )
        gateway.platform.settings = gateway.platform.settings.model_copy(update={"batches": limits})
        files = open_desk(gateway).openai.files
        files.create(file=("a", b"x" * 2000), purpose="batch")
        for size in (2001, 1001, 100_000):
            with pytest.raises(openai.APIStatusError) as caught:
                files.create(file=("a", b"x" * size), purpose="batch")
            assert caught.value.status_code == 413
        assert not list((gateway.home / "files").glob("upload-*"))

    def test_a_file_may_be_larger_than_any_other_body(self, gateway: Gateway, desk: Desk) -> None:
        data = b"x" * (gateway.platform.settings.gateway.max_body_bytes + 1)
        file = desk.openai.files.create(file=("a", data), purpose="batch")
        assert file.bytes == len(data)
        assert (gateway.home / "files" / file.id).read_bytes() == data

    def test_a_file_that_has_expired_is_gone(self, gateway: Gateway, desk: Desk) -> None:
        file = desk.openai.files.create(
            file=("a", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert file.expires_at == file.created_at + 3600
        with gateway.platform.store.reading() as connection:
            connection.execute("update files set expires_at = 1.0")
        assert desk.openai.files.list().data == []
        with pytest.raises(openai.NotFoundError):
            desk.openai.files.retrieve(file.id)

    @pytest.mark.parametrize("purpose", ["fine-tune", "assistants"])
    def test_other_purposes_are_refused(self, desk: Desk, purpose: Any) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            desk.openai.files.create(file=("a", b"x"), purpose=purpose)
        assert caught.value.param == "purpose"

    @pytest.mark.parametrize("seconds", [0, 3599, 2_592_001, "1e9", "9" * 30])
    def test_a_time_to_live_that_openai_would_refuse_is_refused(self, desk: Desk, seconds: Any) -> None:
        with pytest.raises(openai.BadRequestError, match="3600 to 2592000") as caught:
            desk.upload(b"x", expires_after={"anchor": "created_at", "seconds": seconds})
        assert caught.value.param == "expires_after"

    def test_lists_are_read_page_by_page_in_either_order(self, desk: Desk) -> None:
        made = [desk.upload(b"x") for _ in range(5)]
        for order, whole in (("asc", made), ("desc", made[::-1])):
            asked: Any = {"order": order, "limit": 2}
            assert [file.id for file in desk.openai.files.list(**asked)] == whole
            page = desk.openai.files.list(after=whole[2], **asked)
            assert ([file.id for file in page.data], page.has_more) == (whole[3:], False)
        with pytest.raises(openai.BadRequestError):
            desk.openai.files.list(order="sideways")  # type: ignore[arg-type]

    def test_what_is_declared_too_long_is_refused_before_it_comes(self, gateway: Gateway) -> None:
        with half_an_upload(gateway, gateway.token, 1 << 40) as sent:
            answer = HTTPResponse(sent)
            answer.begin()
            assert answer.status == 413
            error = json.loads(answer.read())["error"]
            answer.close()
        assert error["code"] == "file_too_large"
        assert "batches.max_file_bytes" in error["message"]

    def test_an_upload_that_breaks_off_leaves_nothing(self, gateway: Gateway) -> None:
        with half_an_upload(gateway, gateway.token) as sent:
            sent.sendall(b"--mark\r\n")
            until(lambda: gateway.rows("select * from files"), what="room being taken")
        until(lambda: not gateway.rows("select * from files"), what="room being given back")
        assert list((gateway.home / "files").iterdir()) == []

    def test_a_caller_that_breaks_off_is_no_fault_of_the_gateway(self, gateway: Gateway) -> None:
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/files",
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {gateway.token}".encode())],
        }
        asyncio.run(assemble(gateway.platform)(scope, receive, send))  # raises nothing
        assert sent[0]["status"] == 408


class TestLimits:
    def test_uploads_and_batches_count_as_requests(self, gateway: Gateway, open_desk: OpenDesk) -> None:
        desk = open_desk(gateway, gateway.mint(team="slow", requests_per_minute=4))
        file = desk.openai.files.with_raw_response.create(file=("a", jsonl([ask(0)])), purpose="batch")
        assert file.headers["x-ratelimit-remaining-requests"] == "3"
        desk.wait(desk.create(file.parse().id))  # its line is a request too
        desk.upload(b"x")
        for work in (lambda: desk.upload(b"x"), lambda: desk.create(file.parse().id)):
            with pytest.raises(openai.RateLimitError) as caught:
                work()
            assert caught.value.code == "rate_limit_exceeded"
            assert float(caught.value.response.headers["retry-after"]) > 0
            assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        assert len(desk.openai.files.list().data) == 3  # to look is free

    def test_an_upload_is_one_of_the_requests_under_way(self, gateway: Gateway, open_desk: OpenDesk) -> None:
        token = gateway.mint(team="narrow", terms=Terms(max_concurrency=1))
        desk = open_desk(gateway, token)
        with half_an_upload(gateway, token):
            until(lambda: gateway.rows("select * from files"), what="the upload being under way")
            with pytest.raises(openai.RateLimitError, match="under way"):
                desk.upload(b"x")
        until(lambda: not gateway.rows("select * from files"), what="the upload being over")
        for _ in range(2):
            desk.upload(b"x")
