"""The same gateway inside the application's process."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from support.installed import language_server

from trilith import AsyncClient, Client
from trilith.errors import NotFoundError, SettingsError
from trilith_gateway.store import sqlite

MESSAGES = [{"role": "user", "content": "one two three"}]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("embedded")
    with language_server() as url:
        models = {"echo": {"kind": "chat", "upstream": {"url": url}, "price": {"input_usd_per_mtok": "1"}}}
        path = folder / "trilith.yaml"
        path.write_text(json.dumps({"home": "home", "models": models}), encoding="utf-8")
        yield path


def test_a_chat_is_answered_and_charged_without_a_server(settings: Path) -> None:
    with Client.embedded(settings) as client:
        answer = client.chat.completions.create(model="echo", messages=MESSAGES)
        assert answer.choices[0].message.content == "one two three"
    with closing(sqlite.connect(sqlite.database(settings.parent / "home"))) as connection:
        teams = [row["team"] for row in connection.execute("select team from ledger")]
    assert "embedded" in teams


def test_a_stream_arrives_in_pieces(settings: Path) -> None:
    with Client.embedded(settings) as client:
        stream = client.chat.completions.create(model="echo", messages=MESSAGES, stream=True)
        pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert [piece for piece in pieces if piece] == ["one ", "two ", "three"]


async def test_the_asynchronous_client_does_the_same(settings: Path) -> None:
    async with AsyncClient.embedded(settings) as client:
        answer = await client.chat.completions.create(model="echo", messages=MESSAGES)
    assert answer.choices[0].message.content == "one two three"


def test_errors_are_the_same_classes_as_over_http(settings: Path) -> None:
    with Client.embedded(settings) as client, pytest.raises(NotFoundError):
        client.chat.completions.create(model="nobody", messages=MESSAGES)


def test_a_home_that_another_gateway_has_is_refused_and_nothing_is_left_half_started(settings: Path) -> None:
    with Client.embedded(settings), pytest.raises(SettingsError, match="another gateway"):
        Client.embedded(settings)
    Client.embedded(settings).close()
