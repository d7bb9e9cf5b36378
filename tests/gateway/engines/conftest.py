"""A tiny model server in real processes, and a data home of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.fake_engine import FakeEngine
from vllm_fixture import vllm  # noqa: F401


@pytest.fixture(autouse=True)
def _own_data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "vllm" not in request.fixturenames:
        monkeypatch.setenv("TRILITH_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    made = FakeEngine(tmp_path)
    yield made
    await made.close()
