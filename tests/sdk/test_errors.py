"""Errors are plain data: they survive being copied and being sent to another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from trilith.errors import (
    APITimeoutError,
    BudgetExceededError,
    ContractViolation,
    MissingExtra,
    SettingsError,
    TrilithError,
)

ERRORS = [
    SettingsError("trilith.yaml:3: wrong"),
    MissingExtra("torch is not installed"),
    ContractViolation("2 promises are broken", violations=["a", "b"]),
    APITimeoutError("too slow", request_id="req_1"),
    BudgetExceededError(
        "spent", status_code=429, code="insufficient_quota", retry_after_s=3.0, body={"a": 1}
    ),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_in_another_process(error: TrilithError) -> None:
    error.retryable = True
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert vars(twin) == vars(error)
