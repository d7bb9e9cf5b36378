"""When calls are tried again, after which pause, and what is sent then."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from support.caller import ANSWER, Caller, chat, stream
from support.scripted_server import Scripted, Serve

from trilith import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    BudgetExceededError,
    Client,
    ConflictError,
    InternalServerError,
    RateLimitError,
)
from trilith.client.retry import error_of
from trilith.client.wire import Answer

OK = Scripted(body=ANSWER)
EVENTS = [b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', b"data: [DONE]\n\n"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, APIStatusError),
        (409, ConflictError),
        (429, RateLimitError),
        (500, InternalServerError),
        (503, InternalServerError),
        (529, InternalServerError),
    ],
)
def test_a_failure_that_may_pass_is_tried_twice_more(
    caller: Caller, serve: Serve, status: int, kind: type[APIStatusError]
) -> None:
    server = serve(Scripted(status))
    with pytest.raises(kind) as caught:
        caller(server.url, chat)
    assert len(server.received) == 3
    assert caught.value.retryable


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 413, 422])
def test_a_failure_that_stays_is_not_tried_again(caller: Caller, serve: Serve, status: int) -> None:
    server = serve(Scripted(status))
    with pytest.raises(APIStatusError) as caught:
        caller(server.url, chat)
    assert len(server.received) == 1
    assert not caught.value.retryable


def test_an_answer_after_a_failure_is_returned(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(503), OK)
    assert caller(server.url, chat).choices[0].message.content == "hi"


@pytest.mark.parametrize(("status", "told", "tries"), [(400, "true", 3), (503, "false", 1)])
def test_the_server_s_word_on_retries_is_last(
    caller: Caller, serve: Serve, status: int, told: str, tries: int
) -> None:
    server = serve(Scripted(status, headers={"x-should-retry": told}))
    with pytest.raises(APIStatusError):
        caller(server.url, chat)
    assert len(server.received) == tries


def test_a_spent_budget_is_not_tried_again(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(429, {"error": {"message": "spent", "code": "insufficient_quota"}}))
    with pytest.raises(BudgetExceededError):
        caller(server.url, chat)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("chance", "pauses"),
    [(1.0, [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]), (0.5, [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]), (0.0, [0.0] * 6)],
)
def test_pauses_double_and_lie_between_nothing_and_their_bound(
    caller: Caller, serve: Serve, chance: float, pauses: list[float]
) -> None:
    server = serve(Scripted(503))
    with pytest.raises(InternalServerError):
        caller(server.url, chat, max_retries=6, _chance=lambda: chance)
    assert caller.pauses == pauses


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "120", "retry-after": "7"}, 0.12),
        ({"retry-after": "60"}, 60.0),
        ({"retry-after": "61"}, 0.5),  # nobody waits that long inside a call: our own pause
        ({"retry-after": "soon"}, 0.5),
        ({"retry-after": "nan"}, 0.5),
        ({"retry-after": "0"}, 0.5),
        ({"retry-after": "-3"}, 0.5),
    ],
)
def test_a_pause_that_the_server_asks_for_is_kept(
    caller: Caller, serve: Serve, headers: dict[str, str], pause: float
) -> None:
    server = serve(Scripted(429, headers=headers), OK)
    caller(server.url, chat, _chance=lambda: 1.0)
    assert caller.pauses == [pause]


@pytest.mark.parametrize("date", [formatdate(1030, usegmt=True), formatdate(1030, localtime=False)])
def test_a_date_to_come_back_at_is_a_pause_until_then(date: str) -> None:
    error = error_of(Answer(503, {"retry-after": date}, b""), now=lambda: 1000.0)
    assert error.retry_after_s == 30.0


def test_all_tries_of_one_call_are_equal_and_carry_one_key(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(503), Scripted(503), OK)
    caller(server.url, chat)
    first, second, third = server.received
    assert first == second == third
    assert first.headers["idempotency-key"].startswith("trilith-")


def test_another_call_carries_another_key(serve: Serve) -> None:
    server = serve(OK)
    with Client(server.url) as client:
        chat(client)
        chat(client)
    first, second = (received.headers["idempotency-key"] for received in server.received)
    assert first != second


def test_a_key_of_the_caller_s_own_is_sent(caller: Caller, serve: Serve) -> None:
    server = serve(OK)
    caller(server.url, lambda client: chat(client, idempotency_key="order-7"))
    assert server.received[0].headers["idempotency-key"] == "order-7"


def test_calls_that_are_never_tried_again_carry_no_key(caller: Caller, serve: Serve) -> None:
    server = serve(OK)
    caller(server.url, chat, max_retries=0)
    assert "idempotency-key" not in server.received[0].headers


def test_reading_carries_no_key(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(body={"data": []}))
    caller(server.url, lambda client: client.models.list())
    assert "idempotency-key" not in server.received[0].headers


def test_an_answer_that_breaks_off_is_asked_for_again(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(parts=[b'{"choices": ['], breaks=True), OK)
    assert caller(server.url, chat).id == "chatcmpl-1"
    assert len(server.received) == 2


def test_a_server_that_is_not_there_is_tried_thrice_and_named(caller: Caller) -> None:
    with pytest.raises(APIConnectionError, match=r"no answer from http://127.0.0.1:9 .*check base_url"):
        caller("http://127.0.0.1:9", chat)
    assert len(caller.pauses) == 2


def test_a_server_that_is_too_slow_is_a_timeout(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(body=ANSWER, delay_s=0.3), OK)
    assert caller(server.url, lambda client: chat(client, timeout_s=0.05)).id == "chatcmpl-1"
    with pytest.raises(APITimeoutError, match="timeout_s"):
        caller(serve(Scripted(body=ANSWER, delay_s=0.3)).url, chat, timeout_s=0.05, max_retries=0)


def test_a_stream_is_tried_again_before_it_begins(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(503), Scripted(parts=EVENTS))
    assert len(caller(server.url, stream)) == 1
    assert len(server.received) == 2


def test_a_stream_is_not_tried_again_once_it_has_begun(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(headers={"x-request-id": "req_1"}, parts=EVENTS[:1], breaks=True))
    with pytest.raises(APIConnectionError) as caught:
        caller(server.url, stream)
    assert len(server.received) == 1
    assert caught.value.request_id == "req_1"


def test_real_pauses_are_taken(serve: Serve) -> None:
    server = serve(Scripted(503, headers={"retry-after-ms": "50"}), OK)
    started = time.monotonic()
    with Client(server.url) as client:
        chat(client)
    assert time.monotonic() - started >= 0.05


async def test_a_caller_who_is_cancelled_while_waiting_tries_no_more(serve: Serve) -> None:
    import asyncio

    from trilith import AsyncClient

    server = serve(Scripted(503, headers={"retry-after": "30"}))
    async with AsyncClient(server.url) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(chat(client), 0.2)
    assert len(server.received) == 1


def test_the_last_error_is_raised_without_a_chain_of_the_others(caller: Caller, serve: Serve) -> None:
    with pytest.raises(APIError) as caught:
        caller(serve(Scripted(503)).url, chat)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
