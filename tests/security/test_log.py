"""Log lines: JSON, closed fields, no secrets, no content of exceptions."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from trilith_gateway.log import JsonFormatter

SECRETS = [
    "tl_ef938c2e1c25_GF9ini-4JfmF2E39XYziQKXhAXRiXS-PPS-DgUpu1Mw",
    "sk-proj-0123456789abcdef",
    "hf_0123456789abcdefghij",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
]


def line(message: str, *arguments: object, error: bool = False, **extra: Any) -> dict[str, Any]:
    information = sys.exc_info() if error else None
    record = logging.getLogger("t").makeRecord("t", 40, "f", 1, message, arguments, information, extra=extra)
    made: dict[str, Any] = json.loads(JsonFormatter().format(record))
    return made


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_blotted_out_wherever_it_stands(secret: str) -> None:
    made = line("refused %s", secret, upstream=f"http://u:{secret}@host/v1", code=secret)
    assert secret not in json.dumps(made)


@pytest.mark.parametrize("text", ["Bearer abc123", "basic dTpw", "postgresql://user:pass@db/x"])
def test_credentials_are_blotted_out_by_where_they_stand(text: str) -> None:
    assert "[secret]" in line("with %s", text)["message"]


def test_only_listed_fields_are_written() -> None:
    made = line("done", status=200, prompt="my diary", messages=["my diary"])
    assert made["status"] == 200
    assert "diary" not in json.dumps(made)


def test_an_exceptions_text_is_not_written() -> None:
    try:
        raise ValueError("my diary")
    except ValueError:
        made = line("it broke", error=True)
    assert made["error"] == "ValueError"
    assert "diary" not in json.dumps(made)


def test_a_line_end_in_a_message_makes_no_second_line() -> None:
    assert "\n" not in JsonFormatter().format(logging.makeLogRecord({"msg": "one\ntwo"}))
