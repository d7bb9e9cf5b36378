"""Which environment variables are settings, and which are refused or left alone."""

from __future__ import annotations

import pytest

from .conftest import SettingsFolder

MODEL = """
    models:
      bike-demand:
        kind: predictor
        registered_model: bike-demand
"""


def test_a_variable_finds_a_name_with_a_dash(at: SettingsFolder) -> None:
    loaded = at.load(MODEL, {"TRILITH_MODELS__BIKE_DEMAND__PRICE__USD_PER_KROW": "0.5"})
    assert loaded.settings.models["bike-demand"].price is not None


def test_a_variable_is_found_in_any_case(at: SettingsFolder) -> None:
    assert at.load("", {"TRILITH_gateway__Host": "::1"}).settings.gateway.host == "::1"


def test_a_list_is_written_with_commas(at: SettingsFolder) -> None:
    loaded = at.load("policies: {p: {}}", {"TRILITH_POLICIES__P__PII__ENTITIES": "PERSON, CREDIT_CARD"})
    assert loaded.settings.policies["p"].pii.entities == ("PERSON", "CREDIT_CARD")


def test_a_list_whose_items_hold_commas_is_written_as_json(at: SettingsFolder) -> None:
    loaded = at.load("engines: {e: {}}", {"TRILITH_ENGINES__E__ARGS": '["--set", "a,b"]'})
    assert loaded.settings.engines["e"].args == ("--set", "a,b")


def test_an_empty_variable_takes_an_optional_setting_away(at: SettingsFolder) -> None:
    file = "telemetry: {otlp_endpoint: 'http://127.0.0.1:4318'}"
    loaded = at.load(file, {"TRILITH_TELEMETRY__OTLP_ENDPOINT": ""})
    assert loaded.settings.telemetry.otlp_endpoint is None


@pytest.mark.parametrize("name", ["TRILITH_GATWAY__PORT", "TRILITH_GATEWAY_PORT"])
def test_a_slip_in_a_variables_name_is_refused_with_the_right_name(at: SettingsFolder, name: str) -> None:
    expected = f"env {name}: no such setting; did you mean TRILITH_GATEWAY__PORT?"
    assert at.refuse("", {name: "1"}) == [expected]


def test_a_variable_declares_no_new_model(at: SettingsFolder) -> None:
    (fault,) = at.refuse(MODEL, {"TRILITH_MODELS__GPT__POLICY": "p"})
    assert "nothing under models is called 'gpt'; the file declares bike-demand" in fault


def test_a_variable_for_a_whole_section_is_refused_with_an_example(at: SettingsFolder) -> None:
    (fault,) = at.refuse("", {"TRILITH_GATEWAY": "1"})
    assert fault.endswith("gateway is a section; expected one of its settings, such as TRILITH_GATEWAY__HOST")


def test_two_names_that_a_variable_cannot_tell_apart_are_refused(at: SettingsFolder) -> None:
    (fault,) = at.refuse("policies: {a-b: {}, a_b: {}}", {"TRILITH_POLICIES__A_B__PII__ACTION": "block"})
    assert "a-b and a_b are spelled alike" in fault


def test_a_bad_value_names_its_variable(at: SettingsFolder) -> None:
    (fault,) = at.refuse("", {"TRILITH_GATEWAY__PORT": "http"})
    assert fault == (
        "env TRILITH_GATEWAY__PORT: gateway.port: found 'http', expected a whole number from 0 to 65535"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRILITH_GATEWAY_PORT", "tcp://10.96.0.7:8080"),
        ("TRILITH_GATEWAY_SERVICE_HOST", "10.96.0.7"),
        ("TRILITH_GATEWAY_SERVICE_PORT_HTTP", "8080"),
        ("TRILITH_GATEWAY_PORT_8080_TCP_ADDR", "10.96.0.7"),
    ],
)
def test_what_kubernetes_says_of_a_service_called_trilith_gateway_is_no_setting(
    at: SettingsFolder, name: str, value: str
) -> None:
    assert at.load("", {name: value}).settings.gateway.port == 8080


@pytest.mark.parametrize(
    "name", ["TRILITH_API_KEY", "TRILITH_BASE_URL", "TRILITH_DATA_HOME", "TRILITH_MODEL"]
)
def test_variables_that_are_no_settings_are_left_alone(at: SettingsFolder, name: str) -> None:
    assert at.load("", {name: "x"}).settings.gateway.port == 8080
