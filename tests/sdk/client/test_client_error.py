"""From an answer that is an error to the class that a caller catches."""

from __future__ import annotations

import pytest
from support.caller import Caller, chat
from support.scripted_server import Scripted, Serve

import trilith
from trilith import APIError, APIStatusError, NotFoundError

VLLM_NOT_FOUND = {
    "error": {
        "message": "The model `nope` does not exist. Valid aliases: smollm2.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }
}
"""As vLLM 0.32 sent it."""


@pytest.mark.parametrize(
    ("status", "code", "kind", "fault"),
    [
        (400, None, trilith.BadRequestError, "caller"),
        (401, "invalid_api_key", trilith.AuthenticationError, "caller"),
        (403, None, trilith.PermissionDeniedError, "caller"),
        (404, "model_not_found", trilith.NotFoundError, "caller"),
        (409, None, trilith.ConflictError, "service"),
        (422, None, trilith.UnprocessableEntityError, "caller"),
        (429, "rate_limit_exceeded", trilith.RateLimitError, "caller"),
        (429, "insufficient_quota", trilith.BudgetExceededError, "caller"),
        (500, None, trilith.InternalServerError, "service"),
        (504, "timeout", trilith.InternalServerError, "service"),
        (418, None, APIStatusError, "service"),
    ],
)
def test_status_and_code_decide_the_class(
    caller: Caller, serve: Serve, status: int, code: str | None, kind: type[APIStatusError], fault: str
) -> None:
    server = serve(Scripted(status, {"error": {"message": "no", "code": code}}))
    with pytest.raises(APIStatusError) as caught:
        caller(server.url, chat, max_retries=0)
    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.code, caught.value.at_fault) == (status, code, fault)


def test_an_error_says_all_that_the_server_said(caller: Caller, serve: Serve) -> None:
    server = serve(Scripted(404, VLLM_NOT_FOUND, {"x-request-id": "req_7", "retry-after": "900"}))
    with pytest.raises(NotFoundError, match="The model `nope` does not exist") as caught:
        caller(server.url, chat)
    error = caught.value
    assert (error.request_id, error.param, error.type, error.code) == (
        "req_7",
        "model",
        "NotFoundError",
        "404",
    )
    assert error.retry_after_s == 900
    assert error.body == VLLM_NOT_FOUND


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "no such model"}, "no such model"),  # Open Inference Protocol
        ({"detail": "Not Found"}, "Not Found"),  # FastAPI
        ({"detail": [{"loc": ["body"]}]}, '[{"loc": ["body"]}]'),
        ({"object": "error", "message": "older vLLM"}, "older vLLM"),
        (b"<html>Bad Gateway</html>", "the server answered 404: <html>Bad Gateway</html>"),
        (b"\xff" * 500, "the server answered 404: " + "\ufffd" * 200),
        (b"", "the server answered 404 without saying why"),
        ([1], "the server answered 404: [1]"),
        ({"error": {}}, 'the server answered 404: {"error": {}}'),
    ],
)
def test_an_error_in_any_shape_has_a_message(serve: Serve, body: object, message: str) -> None:
    server = serve(Scripted(404, body))
    with trilith.Client(server.url) as client, pytest.raises(NotFoundError) as caught:
        chat(client)
    assert str(caught.value) == message


def test_a_redirect_is_not_followed_but_named(serve: Serve) -> None:
    server = serve(Scripted(308, headers={"location": "https://elsewhere.example/v1"}))
    with (
        trilith.Client(server.url, "secret") as client,
        pytest.raises(APIStatusError, match=r"redirects to https://elsewhere.example/v1 .*base_url"),
    ):
        chat(client)


@pytest.mark.parametrize(
    ("body", "reason"), [(b"<html>", "no JSON"), ({"object": "list"}, "choices: missing"), ([], "body")]
)
def test_a_good_answer_in_an_unknown_shape_is_an_error(
    caller: Caller, serve: Serve, body: object, reason: str
) -> None:
    server = serve(Scripted(200, body, {"x-request-id": "req_7"}))
    with pytest.raises(APIError, match=f"unknown shape .{reason}") as caught:
        caller(server.url, chat)
    assert caught.value.request_id == "req_7"
    assert not caught.value.retryable


def test_an_answer_in_an_unknown_shape_is_not_quoted(serve: Serve) -> None:
    server = serve(Scripted(200, {"choices": [{"message": "the patient's name is Ada"}]}))
    with trilith.Client(server.url) as client, pytest.raises(APIError) as caught:
        chat(client)
    assert "Ada" not in str(caught.value)
    assert caught.value.__cause__ is None
