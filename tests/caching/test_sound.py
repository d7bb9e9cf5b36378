"""Only answers are kept: what tells of a failure within a 200 is not."""

from __future__ import annotations

import pytest

from trilith_gateway.stages.remember import _sound

WHOLE = b'data: {"choices":[{"delta":{"content":"an \\"error\\" is told"}}]}\n\ndata: [DONE]\n\n'

FAILED = b'data: {"choices":[]}\n\ndata: {"error":{"message":"x"}}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("body", "kind", "kept"),
    [
        (b'{"choices":[]}', "application/json", True),
        (b'{"error":null,"output":[]}', "application/json", True),
        (b'{"error":{"message":"x"}}', "application/json", False),
        (b"<html>busy</html>", "text/html", False),
        (WHOLE, "text/event-stream", True),
        (
            b'data: {"choices":[]}\n\ndata: {"error":{"message":"x"}}\n\ndata: [DONE]\n\n',
            "text/event-stream",
            False,
        ),
    ],
)
def test_a_failure_is_not_given_again(body: bytes, kind: str, kept: bool) -> None:
    assert _sound(body, kind) is kept
