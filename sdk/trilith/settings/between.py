"""What must hold between sections: names that exist, ports that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trilith.settings.engine import EngineSettings
from trilith.settings.route import route_faults
from trilith.types import Kind


class ReferenceFaults(ValueError):
    """Sections name entries that are not there; `faults` lists the key's path and what is wrong with it."""

    def __init__(self, faults: list[tuple[tuple[str, ...], str]]) -> None:
        super().__init__("; ".join(f"{'.'.join(path)}: {message}" for path, message in faults))
        self.faults = faults


def reference_faults(tree: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """List what is wrong between sections: names that nothing declares, ports that two engines share.

    Works on a plain tree that need not have passed any other check, so that a reader of a wrong file
    hears of everything at once.

    Returns:
        The key's path and the message, for each fault.
    """
    models = _entries(tree, "models")
    chats = {name: model for name, model in models.items() if model.get("kind") == Kind.CHAT}
    faults: list[tuple[tuple[str, ...], str]] = []

    def check(path: tuple[str, ...], value: object, what: str, table: Mapping[str, object]) -> None:
        if isinstance(value, str) and value not in table:
            names = ", ".join(sorted(table)) or "none is declared"
            faults.append((path, f"found {value!r}, expected one of the {what} ({names})"))

    for name, model in models.items():
        at = ("models", name)
        upstream = model.get("upstream")
        upstream = upstream if isinstance(upstream, Mapping) else {}
        check((*at, "policy"), model.get("policy"), "policies", _entries(tree, "policies"))
        check((*at, "upstream", "engine"), upstream.get("engine"), "engines", _entries(tree, "engines"))
        kind = model.get("kind")
        if upstream.get("local") is not None and kind not in (Kind.EMBEDDING, Kind.RERANK):
            message = "local models only embed and rerank; expected engine, url or provider"
            faults.append(((*at, "upstream", "local"), message))
        if upstream.get("provider") is not None and kind not in (Kind.CHAT, Kind.EMBEDDING):
            message = "providers only chat and embed here; expected url"
            faults.append(((*at, "upstream", "provider"), message))
        if upstream.get("protocol", "openai") != "openai" and kind != Kind.CHAT:
            message = "only chat models have another protocol; expected openai"
            faults.append(((*at, "upstream", "protocol"), message))
        alike = {other: entry for other, entry in models.items() if entry.get("kind") == kind}
        for others in ("fallbacks", "candidates"):
            for number, other in enumerate(model.get(others) or ()):
                check((*at, others, str(number)), other, f"{kind} models", alike)
        if model.get("kind") == Kind.RAG:
            check((*at, "index"), model.get("index"), "indexes", _entries(tree, "indexes"))
            check((*at, "generator"), model.get("generator"), "chat models", chats)
    faults += route_faults(models)
    return faults + _shared_ports(_entries(tree, "engines"))


def _shared_ports(engines: Mapping[str, Mapping[str, Any]]) -> list[tuple[tuple[str, ...], str]]:
    default = EngineSettings.model_fields["port"].default
    first: dict[str, str] = {}
    faults: list[tuple[tuple[str, ...], str]] = []
    for name, engine in engines.items():
        port = str(engine.get("port", default))
        if port in first:
            message = f"found {port}, which engines.{first[port]} has; expected a port of its own"
            faults.append((("engines", name, "port"), message))
        first.setdefault(port, name)
    return faults


def _entries(tree: Mapping[str, Any], section: str) -> dict[str, Mapping[str, Any]]:
    entries = tree.get(section)
    if not isinstance(entries, Mapping):
        return {}
    return {name: entry if isinstance(entry, Mapping) else {} for name, entry in entries.items()}
