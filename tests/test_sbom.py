"""The bill of materials: it is CycloneDX, and it names exactly what the lock installs."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8")

HASH = {
    "type": "object",
    "required": ["alg", "content"],
    "additionalProperties": False,
    "properties": {"alg": {"enum": ["SHA-256"]}, "content": {"pattern": "^[a-f0-9]{64}$"}},
}
REFERENCE = {
    "type": "object",
    "required": ["url", "type"],
    "additionalProperties": False,
    "properties": {
        "url": {"type": "string", "format": "iri-reference"},
        "type": {"enum": ["distribution"]},
        "hashes": {"type": "array", "items": HASH},
    },
}
NAMED = {
    "type": "object",
    "required": ["license"],
    "additionalProperties": False,
    "properties": {
        "license": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string"}},
        }
    },
}
EXPRESSION = {
    "type": "object",
    "required": ["expression"],
    "additionalProperties": False,
    "properties": {"expression": {"type": "string"}},
}
COMPONENT = {
    "type": "object",
    "required": ["type", "name"],
    "additionalProperties": False,
    "properties": {
        "bom-ref": {"type": "string", "minLength": 1},
        "type": {"enum": ["application", "library"]},
        "name": {"type": "string"},
        "version": {"type": "string", "maxLength": 1024},
        "scope": {"enum": ["required", "optional", "excluded"]},
        "licenses": {"type": "array", "maxItems": 1, "items": {"oneOf": [NAMED, EXPRESSION]}},
        "purl": {"type": "string"},
        "externalReferences": {"type": "array", "items": REFERENCE},
    },
}
BILL = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["bomFormat", "specVersion"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"enum": ["http://cyclonedx.org/schema/bom-1.6.schema.json"]},
        "bomFormat": {"enum": ["CycloneDX"]},
        "specVersion": {"const": "1.6"},
        "serialNumber": {
            "pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
        },
        "version": {"type": "integer", "minimum": 1},
        "metadata": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "timestamp": {"pattern": "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}Z$"},
                "component": COMPONENT,
            },
        },
        "components": {"type": "array", "uniqueItems": True, "items": COMPONENT},
        "dependencies": {
            "type": "array",
            "uniqueItems": True,
            "items": {
                "type": "object",
                "required": ["ref"],
                "additionalProperties": False,
                "properties": {
                    "ref": {"type": "string", "minLength": 1},
                    "dependsOn": {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
                },
            },
        },
    },
}
"""The part of CycloneDX 1.6's own schema that the bill uses, and nothing that it does not have."""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom_under_test", ROOT / "tools" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sbom_under_test"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes."""
    out = tmp_path_factory.mktemp("sbom") / "new" / "bill.json"
    command = [sys.executable, str(ROOT / "tools" / "sbom.py"), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_the_bill_is_what_cyclonedx_says_one_is(bill: dict[str, Any]) -> None:
    jsonschema.validate(bill, BILL)
    names = [one["bom-ref"] for one in (bill["metadata"]["component"], *bill["components"])]
    assert len(names) == len(set(names))
    assert {one["ref"] for one in bill["dependencies"]} == set(names)
    assert {ref for one in bill["dependencies"] for ref in one["dependsOn"]} <= set(names)


def test_it_names_what_the_lock_names_with_every_hash(bill: dict[str, Any]) -> None:
    pins = set(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", LOCK, re.MULTILINE))
    assert {(one["name"], one["version"]) for one in bill["components"]} == pins
    hashes = [h["content"] for one in bill["components"] for h in one["externalReferences"][0]["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"--hash=sha256:(\w+)", LOCK))
    assert all(one["externalReferences"][0]["hashes"] for one in bill["components"])


def test_it_tells_what_runs_from_what_only_develops(bill: dict[str, Any]) -> None:
    scopes = {one["name"]: one["scope"] for one in bill["components"]}
    found = {name: scopes[name] for name in ("httpx", "certifi", "fastapi", "torch", "pytest", "ruff")}
    assert found == {
        "httpx": "required",
        "certifi": "required",
        "fastapi": "optional",
        "torch": "optional",
        "pytest": "excluded",
        "ruff": "excluded",
    }


def test_a_build_s_label_is_written_as_a_package_url_wants_it(bill: dict[str, Any]) -> None:
    (torch,) = (one for one in bill["components"] if one["name"] == "torch")
    assert torch["purl"].endswith("%2Bcpu")


def test_the_same_lock_gives_the_same_bill_and_another_one_another(
    tool: ModuleType, bill: dict[str, Any]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert tool.bill_of(LOCK, project) == bill
    assert tool.bill_of(LOCK + "\n", project)["serialNumber"] != bill["serialNumber"]


def test_who_wants_a_package_is_read_from_one_line_or_several(tool: ModuleType) -> None:
    lock = """a==1 \\
    --hash=sha256:00
    # via trilith (pyproject.toml)
b==2
    # via
    #   a
    #   trilith (pyproject.toml:dev)
c==3 ; python_version < "3.12"
    # via b
"""
    project = {"project": {"dependencies": ["a>=1"], "version": "9"}}
    bill = tool.bill_of(lock, project)
    assert [(one["ref"], one["dependsOn"]) for one in bill["dependencies"]] == [
        ("trilith", ["pkg:pypi/a@1", "pkg:pypi/b@2"]),
        ("pkg:pypi/a@1", ["pkg:pypi/b@2"]),
        ("pkg:pypi/b@2", ["pkg:pypi/c@3"]),
        ("pkg:pypi/c@3", []),
    ]
    assert [one["scope"] for one in bill["components"]] == ["required"] * 3
