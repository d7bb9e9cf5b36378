"""`trilith settings`, the schema for editors, and the shipped example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from trilith.cli import main
from trilith.settings.reference import json_schema, settings_table

from .conftest import SettingsFolder

DEMO = Path(__file__).parents[3] / "examples" / "demo" / "trilith.yaml"
SECRET = """
    engines:
      e: {args: [--api-key, sk-secret, --token=sk-secret, --seed, "7"]}
    models:
      m:
        kind: chat
        upstream: {url: 'http://me:sk-secret@host/v1', api_key: '${KEY}'}
"""


def test_the_command_prints_value_and_source(at: SettingsFolder, capsys: pytest.CaptureFixture[str]) -> None:
    at.load("gateway: {port: 9001}")
    assert main(["settings"]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["gateway.port"] == ["9001", "trilith.yaml:1"]
    assert lines["gateway.host"] == ["127.0.0.1", "default"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_command_prints_no_credential(
    at: SettingsFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    monkeypatch.setenv("KEY", "sk-secret")
    at.load(SECRET, {"KEY": "sk-secret"})
    assert main(["settings", *(["--json"] if form == "json" else [])]) == 0
    printed = capsys.readouterr().out
    assert "sk-secret" not in printed
    assert "--seed" in printed


def test_a_wrong_file_ends_the_command_with_2(at: SettingsFolder, capsys: pytest.CaptureFixture[str]) -> None:
    at.file.write_text("gateway: {port: x}", encoding="utf-8")
    assert main(["settings", "--check"]) == 2
    assert "trilith.yaml:1: gateway.port: found 'x'" in capsys.readouterr().err


def test_check_counts_what_is_set(at: SettingsFolder, capsys: pytest.CaptureFixture[str]) -> None:
    at.load("gateway: {port: 9001}")
    assert main(["settings", "--check"]) == 0
    assert "trilith.yaml: ok, 1 of " in capsys.readouterr().out


def test_loading_creates_nothing(at: SettingsFolder) -> None:
    at.load("home: state\nindexes: {docs: {source: texts}}")
    assert [path.name for path in at.folder.iterdir()] == ["trilith.yaml"]


def test_the_example_passes_its_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--check", "--settings", str(DEMO)]) == 0


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(json_schema()))


def test_the_schema_for_editors_accepts_the_example(validator: Any) -> None:
    assert list(validator.iter_errors(yaml.safe_load(DEMO.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "text",
    ["gateway: {port: '${PORT}'}", "telemetry: {content: '${C:-no}'}", "engines: {e: {dtype: '${D}'}}"],
)
def test_the_schema_for_editors_accepts_variables(validator: Any, text: str) -> None:
    assert list(validator.iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize("text", ["gateway: {port: x}", "gatway: {}", "models: {m: {kind: chat}}"])
def test_the_schema_for_editors_refuses_what_loading_refuses(validator: Any, text: str) -> None:
    assert list(validator.iter_errors(yaml.safe_load(text))) != []


def test_every_setting_says_what_it_means() -> None:
    silent = [s.key for s in settings_table() if s.place.field is None or not s.place.field.description]
    assert silent == []
