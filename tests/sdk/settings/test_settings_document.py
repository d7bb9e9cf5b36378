"""What a settings file may hold as YAML."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilith.errors import SettingsError
from trilith.settings.document import read_document

from .conftest import SettingsFolder


def value(folder: Path, text: str, **environ: str) -> Any:
    """Return what `text` is, as the value of a key."""
    file = folder / "one.yaml"
    file.write_text(f"key: {text}\n", encoding="utf-8")
    document = read_document(file, environ)
    assert document.faults == []
    return document.data["key"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 12),
        ("0.10", Decimal("0.10")),  # not 0.1000000000000000055
        ("1e-6", Decimal("0.000001")),  # YAML 1.1 would make it text
        ("true", True),
        ("no", "no"),  # YAML 1.1 would make it false
        ("1:30", "1:30"),  # YAML 1.1 would make it 90
        ("2026-11-23", "2026-11-23"),
        ("'12'", "12"),
        ("~", None),
        ("", None),
    ],
)
def test_a_scalar_follows_yaml_1_2(tmp_path: Path, text: str, expected: object) -> None:
    found = value(tmp_path, text)
    assert found == expected
    assert type(found) is type(expected)


@given(st.decimals(min_value=0, max_value=10**6, places=9))
def test_every_decimal_arrives_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, price: Decimal
) -> None:
    assert value(tmp_path_factory.getbasetemp(), f"{price:f}") == price


def test_a_variable_is_filled_in(tmp_path: Path) -> None:
    assert value(tmp_path, "http://${HOST}:${PORT:-80}/", HOST="gpu1") == "http://gpu1:80/"


def test_an_empty_variable_takes_the_default(tmp_path: Path) -> None:
    assert value(tmp_path, "${HOST:-gpu2}", HOST="") == "gpu2"


def test_a_variable_with_an_empty_default_is_no_value(tmp_path: Path) -> None:
    assert value(tmp_path, "${HOST:-}") is None


def test_two_dollars_are_one_and_no_variable(tmp_path: Path) -> None:
    assert value(tmp_path, "'$${HOST}'") == "${HOST}"


def test_what_a_variable_holds_is_not_filled_in_again(tmp_path: Path) -> None:
    assert value(tmp_path, "${A}", A="${B}", B="secret") == "${B}"


def test_a_credential_of_digits_stays_text(tmp_path: Path) -> None:
    assert value(tmp_path, "${KEY}", KEY="0012") == "0012"


def test_a_variable_that_is_not_set_is_refused_by_name(at: SettingsFolder) -> None:
    (fault,) = at.refuse("\ngateway: {host: '${NO_HOST}'}")
    assert fault.startswith("trilith.yaml:2: gateway.host: the environment variable NO_HOST is not set")


def test_a_broken_variable_is_refused(at: SettingsFolder) -> None:
    (fault,) = at.refuse("gateway: {host: '${HOST'}")
    assert "found '${HOST', expected ${NAME} or ${NAME:-default}" in fault


def test_a_key_that_stands_twice_is_refused_with_both_lines(at: SettingsFolder) -> None:
    (fault,) = at.refuse("gateway:\n  port: 1\n  port: 2\n")
    assert fault == "trilith.yaml:3: gateway.port: this key stands twice, first on line 2; keep one"


def test_an_anchor_is_filled_in_and_can_be_added_to(at: SettingsFolder) -> None:
    loaded = at.load("""
        engines:
          a: &a {port: 8101, dtype: float32}
          b: {<<: *a, port: 8102}
    """)
    assert loaded.settings.engines["b"].dtype == "float32"
    assert loaded.settings.engines["b"].port == 8102


def test_anchors_that_stand_for_billions_of_values_are_refused(at: SettingsFolder) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (fault,) = at.refuse("\n".join(["a0: &a0 [lol]", *levels]))
    assert "its anchors stand for more than" in fault


def test_an_anchor_that_holds_itself_is_refused(at: SettingsFolder) -> None:
    (fault,) = at.refuse("gateway: &g {host: *g}")
    assert fault == "trilith.yaml:1: gateway.host: an anchor that holds itself"


def test_a_tag_that_would_build_an_object_is_refused(at: SettingsFolder) -> None:
    (fault,) = at.refuse("gateway: {host: !!python/object/apply:os.getcwd ''}")
    assert "is not allowed; write a plain value" in fault


def test_text_that_is_not_yaml_is_refused_with_line_and_column(at: SettingsFolder) -> None:
    (fault,) = at.refuse("gateway:\n  port: 1\n host: x\n")
    assert fault.startswith("trilith.yaml:3: not YAML: ")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "models:\n", "models:\nengines: # none\n"])
def test_a_file_whose_sections_are_empty_is_all_defaults(at: SettingsFolder, text: str) -> None:
    assert at.load(text).settings.models == {}


def test_a_file_that_is_nested_without_end_is_refused(at: SettingsFolder) -> None:
    (fault,) = at.refuse("gateway: " + "[" * 5000 + "]" * 5000)
    assert "nested too deeply" in fault


def test_a_number_of_thousands_of_digits_is_refused_like_any_other(at: SettingsFolder) -> None:
    (fault,) = at.refuse("gateway: {port: " + "1" * 5000 + "}")
    assert fault.endswith("..., expected a whole number from 0 to 65535")


def test_a_list_is_no_settings_file(at: SettingsFolder) -> None:
    assert at.refuse("- a\n- b\n")[0].startswith("trilith.yaml:1: expected a mapping")


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"home: x\n# caf\xe9\n")
    with pytest.raises(SettingsError, match=r"latin\.yaml:2: byte 0xe9 is not UTF-8"):
        read_document(file, {})


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfhome: x\n")
    assert read_document(file, {}).data == {"home": "x"}
