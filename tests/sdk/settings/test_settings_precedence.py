"""Argument over environment over file over default, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from trilith.errors import SettingsError
from trilith.settings import load_settings
from trilith.settings.price import PriceSettings
from trilith.types import Kind

from .conftest import SettingsFolder

PORT = {"TRILITH_GATEWAY__PORT": "9002"}


def test_a_default_holds_where_nobody_says_otherwise(at: SettingsFolder) -> None:
    loaded = at.load("")
    assert loaded.settings.gateway.port == 8080
    assert loaded.sources["gateway.port"] == "default"


def test_the_file_wins_over_the_default(at: SettingsFolder) -> None:
    loaded = at.load("gateway:\n  port: 9001\n")
    assert loaded.settings.gateway.port == 9001
    assert loaded.sources["gateway.port"] == "trilith.yaml:2"


def test_the_environment_wins_over_the_file(at: SettingsFolder) -> None:
    loaded = at.load("gateway: {port: 9001}", PORT)
    assert loaded.settings.gateway.port == 9002
    assert loaded.sources["gateway.port"] == "env TRILITH_GATEWAY__PORT"


def test_an_argument_wins_over_the_environment(at: SettingsFolder) -> None:
    loaded = at.load("gateway: {port: 9001}", PORT, gateway__port=9003)
    assert loaded.settings.gateway.port == 9003
    assert loaded.sources["gateway.port"] == "argument"


def test_a_variable_leaves_the_other_settings_of_its_section_alone(at: SettingsFolder) -> None:
    loaded = at.load("gateway: {host: 0.0.0.0}", PORT)
    assert loaded.settings.gateway.host == "0.0.0.0"
    assert loaded.sources["gateway.drain_s"] == "default"


def test_the_source_of_every_value_is_known(at: SettingsFolder) -> None:
    loaded = at.load("models: {m: {kind: chat, upstream: {url: 'http://x'}}}")
    assert {"home", "models.m.upstream.url", "models.m.price"} <= set(loaded.sources)


def test_a_named_file_wins_over_the_variable_that_names_one(at: SettingsFolder, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("gateway: {port: 1}", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("gateway: {port: 2}", encoding="utf-8")
    environ = {"TRILITH_SETTINGS": "b.yaml"}
    assert load_settings(environ=environ).settings.gateway.port == 2
    assert load_settings(Path("a.yaml"), environ=environ).settings.gateway.port == 1


def test_without_any_file_the_defaults_hold(at: SettingsFolder, tmp_path: Path) -> None:
    loaded = load_settings(environ={})
    assert loaded.path is None
    assert loaded.settings.home == tmp_path / ".trilith"


@pytest.mark.parametrize("how", ["--settings", "$TRILITH_SETTINGS"])
def test_a_named_file_that_is_not_there_is_refused(at: SettingsFolder, how: str) -> None:
    named = Path("no.yaml") if how == "--settings" else None
    with pytest.raises(SettingsError, match=r"no\.yaml does not exist") as refused:
        load_settings(named, environ={"TRILITH_SETTINGS": "no.yaml"})
    assert how in str(refused.value)


def test_a_path_in_the_file_counts_from_the_files_folder(at: SettingsFolder, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "t.yaml").write_text("indexes: {docs: {source: texts}}", encoding="utf-8")
    settings = load_settings(Path("inner/t.yaml"), environ={}).settings
    assert settings.indexes["docs"].source == inner / "texts"
    assert settings.home == inner / ".trilith"


def test_a_path_from_outside_the_file_counts_from_the_current_folder(
    at: SettingsFolder, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "t.yaml").write_text("home: x", encoding="utf-8")
    environ = {"TRILITH_HOME": "y"}
    assert load_settings(Path("inner/t.yaml"), environ=environ).settings.home == tmp_path / "y"
    given = load_settings(Path("inner/t.yaml"), environ=environ, overrides={"home": "z"})
    assert given.settings.home == tmp_path / "z"


def test_an_argument_may_declare_a_whole_model(at: SettingsFolder) -> None:
    model = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:1/v1"}}
    loaded = at.load("", models__echo=model)
    assert loaded.settings.models["echo"].kind is Kind.CHAT
    assert loaded.sources["models.echo.upstream.url"] == "argument"


def test_an_argument_finds_a_name_with_dots(at: SettingsFolder) -> None:
    at.file.write_text("engines: {qwen2.5: {port: 8101}}", encoding="utf-8")
    loaded = load_settings(environ={}, overrides={"engines.qwen2.5.port": 8102})
    assert loaded.settings.engines["qwen2.5"].port == 8102


def test_an_argument_that_is_no_setting_is_refused(at: SettingsFolder) -> None:
    assert at.refuse("", gateway__prt=1) == ["argument: unknown setting 'gateway.prt'; did you mean port?"]


def test_a_price_in_the_file_never_becomes_a_float(at: SettingsFolder) -> None:
    loaded = at.load(
        "models: {m: {kind: chat, upstream: {url: 'http://x'}, price: {input_usd_per_mtok: 0.123457}}}"
    )
    price = loaded.settings.models["m"].price
    assert isinstance(price, PriceSettings)
    assert price.exact().input_token == 123457


def test_settings_cannot_be_changed_after_loading(at: SettingsFolder) -> None:
    settings = at.load("").settings
    with pytest.raises(ValueError, match="frozen"):
        settings.home = Path("/elsewhere")  # type: ignore[misc]  # the point of the test
