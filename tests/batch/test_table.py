"""Batches as the store keeps them, in both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store.conftest import opened, postgres_url, server, url

from trilith.errors import BadRequestError, NotFoundError
from trilith_gateway import key
from trilith_gateway.batch.table import Batches, new_id

__all__ = ["opened", "postgres_url", "server", "url"]

KEY = key.mint("test", team="lab")[0]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def table(opened: Any) -> Batches:
    return Batches("here", opened().reading)


def make(table: Batches) -> str:
    return table.create(new_id(), KEY, "file-1", "/v1/embeddings", {"a": "\0"}).id


def test_pages_go_from_the_newest_to_the_oldest(table: Batches) -> None:
    made = [make(table) for _ in range(5)][::-1]
    assert [batch.id for batch in table.listed("lab", limit=10, after=None)] == made
    for at, id in enumerate(made):
        found = [batch.id for batch in table.listed("lab", limit=1, after=id)]
        assert found == made[at + 1 : at + 3]
    for nobodys in (new_id(), "\0", "batch_"):
        with pytest.raises(BadRequestError):
            table.listed("lab", limit=1, after=nobodys)
    with pytest.raises(BadRequestError):
        table.listed("others", limit=1, after=made[0])
    assert table.listed("others", limit=1, after=None) == []


def test_a_batch_is_found_by_its_team_alone(table: Batches) -> None:
    id = make(table)
    assert table.find(id, "lab").shown()["metadata"] == {"a": "\0"}
    for asked in ((id, "others"), (new_id(), "lab"), ("\0", "lab"), (f"{id}\n", "lab")):
        with pytest.raises(NotFoundError):
            table.find(*asked)


def test_a_batch_can_be_cancelled_until_it_has_ended(table: Batches) -> None:
    id = make(table)
    assert table.ended(id) is False
    assert [table.cancel(id), table.cancel(id)] == [True, False]
    table.begin(id, 3)
    assert table.find(id, "lab").status == "cancelling"
    table.end(id, "cancelled", counts=(1, 2))
    table.end(id, "completed")
    found = table.find(id, "lab")
    assert (found.status, found.completed, found.failed, found.total) == ("cancelled", 1, 2, 3)
    assert (table.ended(id), table.ended(new_id()), table.cancel(id), table.open()) == (True, None, False, [])
