"""What is wrong between models that send requests to each other: routes, cascades, fallbacks, cycles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from trilith.types import Kind

Models: TypeAlias = Mapping[str, Mapping[str, Any]]
KeyPath: TypeAlias = tuple[str, ...]
Faults: TypeAlias = list[tuple[KeyPath, str]]


def route_faults(models: Models) -> Faults:
    """List what is wrong with models that name others to be asked, as `schema.reference_faults` does."""
    faults: Faults = []
    for name, model in models.items():
        faults += _protocol_faults(models, name)
        for number, route in _entries(model, "routes"):
            faults += _route_faults(models, name, route, ("models", name, "routes", str(number)))
        for number, step in _entries(model, "cascade"):
            at = ("models", name, "cascade", str(number))
            faults += _step_faults(models, name, step, at, (Kind.PREDICTOR, Kind.CHAT))
        if isinstance(otherwise := model.get("otherwise"), Mapping):
            last = ("models", name, "otherwise")
            faults += _step_faults(models, name, otherwise, last, (Kind.PREDICTOR,))
    return faults + _cycles(models)


def _route_faults(models: Models, name: str, route: Mapping[str, Any], at: KeyPath) -> Faults:
    own = models[name]
    if (target := route.get("model")) is not None:
        return _named(models, target, (*at, "model"), [kind for kind in Kind if kind == own.get("kind")])
    tag = route.get("replicas")
    if not isinstance(tag, str):
        return []
    upstream = own.get("upstream")
    places = [upstream] if isinstance(upstream, Mapping) else []
    tags = {t for place in (*places, *(p for _, p in _entries(own, "replicas"))) for t in _texts(place)}
    if tag in tags:
        return []
    known = ", ".join(sorted(tags)) or "none has a tag"
    return [((*at, "replicas"), f"found {tag!r}, expected a tag of the model's replicas ({known})")]


def _step_faults(
    models: Models, name: str, step: Mapping[str, Any], at: KeyPath, kinds: Sequence[Kind]
) -> Faults:
    faults = _named(models, step.get("model"), (*at, "model"), kinds)
    checked = step.get("check")
    if isinstance(checked, Mapping):
        faults += _named(models, checked.get("model"), (*at, "check", "model"), (Kind.PREDICTOR,))
    if faults:
        return faults
    asked: list[tuple[KeyPath, object]] = [((*at, "model"), step.get("model"))]
    if isinstance(checked, Mapping):
        asked.append(((*at, "check", "model"), checked.get("model")))
    for path, other in asked:
        if not isinstance(other, str):
            continue
        if models[other].get("cascade") or other == name:
            faults.append((path, f"found {other!r}, which is a cascade itself; expected another model"))
        elif models[other].get("policy") != models[name].get("policy"):
            message = f"found {other!r}, which has another policy; expected a model with the same one"
            faults.append((path, message))
    return faults


def _protocol_faults(models: Models, name: str) -> Faults:
    """List models that would be asked in a protocol which they do not speak."""
    own = models[name]
    if own.get("kind") not in (Kind.CHAT, Kind.RAG):
        return []
    faults: Faults = []
    for field in ("cascade", "otherwise"):
        if own.get(field) and _anthropic(own):
            message = "only a model that speaks chat asks others; expected upstream.protocol openai or chat"
            faults.append((("models", name, field), message))
    others = own.get("fallbacks")
    asked = list(enumerate(others)) if isinstance(others, list | tuple) else []
    named: list[tuple[KeyPath, object]] = [(("fallbacks", str(number)), other) for number, other in asked]
    named.append((("generator",), own.get("generator")))
    if not _anthropic(own):
        named += [
            (("cascade", str(number), "model"), step.get("model"))
            for number, step in _entries(own, "cascade")
        ]
    for path, other in named:
        if isinstance(other, str) and other in models and _anthropic(models[other]) != _anthropic(own):
            message = f"found {other!r}, which speaks another protocol; expected one with the same protocol"
            faults.append((("models", name, *path), message))
    return faults


def _anthropic(model: Mapping[str, Any]) -> bool:
    """Say whether a model speaks Anthropic's protocol alone; all others understand a chat."""
    upstream = model.get("upstream")
    return isinstance(upstream, Mapping) and upstream.get("protocol") == "anthropic"


def _named(models: Models, value: object, at: KeyPath, kinds: Sequence[Kind]) -> Faults:
    fitting = sorted(name for name, model in models.items() if model.get("kind") in kinds)
    if not isinstance(value, str) or value in fitting:
        return []
    what = " or ".join(kind.value for kind in kinds)
    names = ", ".join(fitting) or "none is declared"
    return [(at, f"found {value!r}, expected one of the {what} models ({names})")]


def _cycles(models: Models) -> Faults:
    """Find routes that lead back to where they began; each is told once, at its first model by name."""
    faults: Faults = []
    told: set[str] = set()
    for name in sorted(models):
        for number, target in _targets(models, name):
            path = _way_back(models, target, name)
            if path is not None and not told & {name, *path}:
                told.update((name, *path))
                way = " -> ".join((name, *path))
                message = f"found a circle of routes ({way}); expected routes that end somewhere"
                faults.append((("models", name, "routes", str(number), "model"), message))
    return faults


def _way_back(models: Models, start: str, goal: str) -> list[str] | None:
    ways: list[list[str]] = [[start]]
    seen = {start}
    while ways:
        way = ways.pop()
        if way[-1] == goal:
            return way
        for _, target in _targets(models, way[-1]):
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return None


def _targets(models: Models, name: str) -> Iterator[tuple[int, str]]:
    for number, route in _entries(models[name], "routes"):
        if isinstance(target := route.get("model"), str) and target in models:
            yield number, target


def _entries(model: Mapping[str, Any], field: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    value = model.get(field)
    if isinstance(value, Sequence) and not isinstance(value, str):
        for number, entry in enumerate(value):
            if isinstance(entry, Mapping):
                yield number, entry


def _texts(place: Mapping[str, Any]) -> list[str]:
    tags = place.get("tags")
    return [str(tag) for tag in tags] if isinstance(tags, list | tuple) else []
