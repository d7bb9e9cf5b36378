"""Writes what the lock installs as a bill of materials: CycloneDX 1.6, JSON.

Made from `requirements/lock.txt` and `pyproject.toml` without a network; the same lock gives the same file.
Licences are read from the environment at hand, where that has the locked release.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tomllib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock.txt"
OUT = ROOT / "dist" / "trilith.cdx.json"

_PIN = re.compile(r"^([a-z0-9._-]+)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^    #(?: via| {2})(?: ([a-zA-Z0-9._-]+)(?: \((\S+)\))?)?$")
_RESOLVED = re.compile(r"^# Resolved on (\d{4}-\d\d-\d\d) ", re.MULTILINE)
_NAME = re.compile(r"^[A-Za-z0-9._-]+")
_TORCH = "https://download.pytorch.org/whl/cpu/torch/"
_LONGEST_LICENCE = 100
_PROJECT = "trilith"


@dataclass
class Pin:
    """One package of the lock."""

    name: str
    version: str
    hashes: list[str] = field(default_factory=list)
    """sha256 of every file that may be installed for it."""
    wanted_by: set[str] = field(default_factory=set)
    """Names of packages; `trilith` for the project, `trilith:dev` for its development group."""

    @property
    def purl(self) -> str:
        """Its package URL, which is also its name within the bill."""
        return f"pkg:pypi/{self.name}@{quote(self.version, safe='.-_~!')}"


def main() -> int:
    """Write the bill; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the lock's bill of materials (CycloneDX 1.6).")
    parser.add_argument("-o", "--out", type=Path, default=OUT, help="where to (dist/trilith.cdx.json)")
    arguments = parser.parse_args()
    bill = bill_of(
        LOCK.read_text(encoding="utf-8"), tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(bill, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"sbom: {len(bill['components'])} components in {arguments.out}")
    return 0


def bill_of(lock: str, project: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bill of a lock.

    Args:
        lock: The lock's text.
        project: `pyproject.toml`, read.
    """
    pins = read(lock)
    own = {"bom-ref": _PROJECT, "type": "application", "name": _PROJECT, "version": _version(project)}
    resolved = _RESOLVED.search(lock)
    told: dict[str, Any] = {"component": own}
    if resolved is not None:
        told = {"timestamp": f"{resolved[1]}T00:00:00Z", **told}
    seed = hashlib.sha256(lock.encode()).hexdigest()
    direct = [pin.purl for pin in pins if pin.wanted_by & {_PROJECT, f"{_PROJECT}:dev"}]
    scopes = _scopes(pins, project)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{_PROJECT}:{seed}").urn,
        "version": 1,
        "metadata": told,
        "components": [_component(pin, scopes[pin.name]) for pin in pins],
        "dependencies": [
            {"ref": _PROJECT, "dependsOn": direct},
            *({"ref": pin.purl, "dependsOn": _needs(pin, pins)} for pin in pins),
        ],
    }


def read(lock: str) -> list[Pin]:
    """Return a lock's packages, in its order."""
    pins: list[Pin] = []
    for line in lock.splitlines():
        if (pin := _PIN.match(line)) is not None:
            pins.append(Pin(pin[1], pin[2]))
        if not pins:
            continue
        pins[-1].hashes += _HASH.findall(line)
        via = _VIA.match(line)
        if via is not None and via[1] is not None:
            name = via[1].lower()
            dev = name == _PROJECT and (via[2] or "").endswith(":dev")
            pins[-1].wanted_by.add(f"{name}:dev" if dev else name)
    return pins


def _version(project: Mapping[str, Any]) -> str:
    return str(project["project"].get("version", "0"))


def _needs(pin: Pin, pins: Iterable[Pin]) -> list[str]:
    return [other.purl for other in pins if pin.name in other.wanted_by]


def _scopes(pins: Iterable[Pin], project: Mapping[str, Any]) -> dict[str, str]:
    """Say of each package whether the project needs it, an extra does, or only its development."""
    pins = list(pins)
    core = {found[0].lower() for text in project["project"]["dependencies"] if (found := _NAME.match(text))}
    always = _reached(pins, {pin.name for pin in pins if pin.name in core})
    running = _reached(pins, {pin.name for pin in pins if _PROJECT in pin.wanted_by})
    return {
        pin.name: "required" if pin.name in always else "optional" if pin.name in running else "excluded"
        for pin in pins
    }


def _reached(pins: Iterable[Pin], names: set[str]) -> set[str]:
    """Return these packages and all that they need, and so on."""
    found = set(names)
    while more := {pin.name for pin in pins if pin.wanted_by & found} - found:
        found |= more
    return found


def _component(pin: Pin, scope: str) -> dict[str, Any]:
    place = _TORCH if "+cpu" in pin.version else f"https://pypi.org/simple/{pin.name}/"
    hashes = [{"alg": "SHA-256", "content": content} for content in pin.hashes]
    return {
        "bom-ref": pin.purl,
        "type": "library",
        "name": pin.name,
        "version": pin.version,
        "scope": scope,
        **_licences(pin),
        "purl": pin.purl,
        "externalReferences": [{"type": "distribution", "url": place, "hashes": hashes}],
    }


def _licences(pin: Pin) -> dict[str, Any]:
    """Return what the installed release says of its licence; nothing where another one is installed."""
    try:
        told = metadata(pin.name)
    except PackageNotFoundError:
        return {}
    if told["Version"] != pin.version:
        return {}
    if "License-Expression" in told:
        return {"licenses": [{"expression": told["License-Expression"]}]}
    name = told["License"].strip() if "License" in told else ""
    if not name or "\n" in name or len(name) > _LONGEST_LICENCE:  # the licence's whole text
        classes = [one for one in told.get_all("Classifier", []) if one.startswith("License :: ")]
        name = classes[0].rpartition(" :: ")[2] if classes else ""
    return {"licenses": [{"license": {"name": name}}]} if name else {}


if __name__ == "__main__":
    raise SystemExit(main())
