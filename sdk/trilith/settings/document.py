"""Reads a settings file: YAML with line numbers, `${VARIABLE}` filled in, duplicate keys refused.

Scalars follow YAML 1.2's core schema, so `no`, `on` and `1:30` are text and not a boolean or a number
of minutes; a fraction stays the decimal that was written and never becomes a float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from trilith.errors import SettingsError
from trilith.extras import need
from trilith.settings.fault import Fault, KeyPath, Origin

_MAX_BYTES = 1024 * 1024
# A few lines of nested anchors can stand for billions of values; a platform has some hundred.
_MAX_NODES = 20_000
_MERGE = "<<"
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
}

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
# Python refuses to read numbers of thousands of digits; those stay decimals, and no bound lets them pass.
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<fallback>:-[^}]*)?\}|\$\{")


@dataclass(slots=True)
class Document:
    """A settings file as read."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def read_document(path: Path, environ: Mapping[str, str], *, extra: str = "gateway") -> Document:
    """Read a settings file.

    Args:
        path: The file; shown in messages as given.
        environ: Where `${VARIABLE}` is looked up.
        extra: The optional part whose file it is; it brings PyYAML.

    Raises:
        SettingsError: the file cannot be read or is not YAML; the message names the line.
    """
    yaml: Any = need("yaml", extra=extra)
    text = _text(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        column = f" at column {mark.column + 1}" if mark else ""
        raise SettingsError(f"{path}{line}: not YAML: {error.problem or error.context}{column}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {error}") from error
    except RecursionError:
        raise SettingsError(f"{path}: lists or mappings are nested too deeply to be settings") from None
    if root is None or (isinstance(root, yaml.ScalarNode) and _NULL.fullmatch(root.value)):
        return Document()
    if not isinstance(root, yaml.MappingNode):
        place = f"{path}:{root.start_mark.line + 1}"
        raise SettingsError(f"{place}: expected a mapping such as `gateway: {{port: 8080}}`")
    return _Reader(yaml, path, environ).read(root)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SettingsError(f"{path}: cannot read the file: {reason}") from error
    if len(raw) > _MAX_BYTES:
        raise SettingsError(f"{path}: {len(raw)} bytes, expected a settings file of at most {_MAX_BYTES}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}:{line}: byte {raw[error.start]:#04x} is not UTF-8") from error


class _Reader:
    """Turns one composed YAML tree into values, lines and faults."""

    def __init__(self, yaml: Any, path: Path, environ: Mapping[str, str]) -> None:
        self._yaml = yaml
        self._path = path
        self._environ = environ
        self._nodes = 0
        self._document = Document()

    def read(self, root: Any) -> Document:
        value = self._value(root, (), ())
        self._document.data = value if isinstance(value, dict) else {}
        return self._document

    def _value(self, node: Any, at: KeyPath, above: tuple[int, ...]) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise SettingsError(
                f"{self._path}: its anchors stand for more than {_MAX_NODES} values; use fewer of them"
            )
        if id(node) in above:
            raise SettingsError(f"{self._origin(node).place}: {'.'.join(at)}: an anchor that holds itself")
        inside = (*above, id(node))
        if isinstance(node, self._yaml.MappingNode):
            return self._mapping(node, at, inside)
        if isinstance(node, self._yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._document.origins[*at, str(number)] = self._origin(item)
            return [self._value(item, (*at, str(n)), inside) for n, item in enumerate(node.value)]
        return self._scalar(node, at)

    def _mapping(self, node: Any, at: KeyPath, inside: tuple[int, ...]) -> dict[str, Any]:
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, self._yaml.ScalarNode):
                self._fault(key, at, "found a list or a mapping as a key, expected text")
                continue
            name = str(key.value)
            if name in lines:
                self._fault(key, (*at, name), f"this key stands twice, first on line {lines[name]}; keep one")
                continue
            lines[name] = key.start_mark.line + 1
            if name != _MERGE:
                self._document.origins[*at, name] = self._origin(key)
                own[name] = self._value(value, (*at, name), inside)
        for key, value in node.value:
            if getattr(key, "value", None) == _MERGE:
                self._merge(own, value, at, inside)
        return own

    def _merge(self, own: dict[str, Any], node: Any, at: KeyPath, inside: tuple[int, ...]) -> None:
        """Fill in `<<: *anchor`: what the mapping itself says stands."""
        sources = node.value if isinstance(node, self._yaml.SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, self._yaml.MappingNode):
                self._fault(node, (*at, _MERGE), "expected a mapping, such as `<<: *anchor`")
                continue
            kept = dict(self._document.origins)
            for name, value in self._mapping(source, at, (*inside, id(source))).items():
                own.setdefault(name, value)
            self._document.origins.update(kept)

    def _scalar(self, node: Any, at: KeyPath) -> Any:
        if node.tag not in _PLAIN_TAGS:
            self._fault(node, at, f"the tag {node.tag} is not allowed; write a plain value")
            return None
        text: str = node.value
        plain = node.style is None
        if "${" in text:
            filled = self._filled(node, at)
            # As an empty value in the file: `otlp_endpoint: ${COLLECTOR:-}` says that there is none.
            return None if plain and filled == "" else filled
        if not plain:
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            return int(text)
        return Decimal(text) if _DECIMAL.fullmatch(text) else text

    def _filled(self, node: Any, at: KeyPath) -> str:
        def value(match: re.Match[str]) -> str:
            name, fallback = match["name"], match["fallback"]
            if name is None:
                if match[0] == "$${":
                    return "${"
                self._fault(node, at, f"found {node.value!r}, expected ${{NAME}} or ${{NAME:-default}}")
                return ""
            if fallback is not None:
                return self._environ.get(name) or fallback[2:]
            if name not in self._environ:
                self._fault(
                    node,
                    at,
                    f"the environment variable {name} is not set; set it or write ${{{name}:-default}}",
                )
            return self._environ.get(name, "")

        self._document.origins[at] = self._origin(node, written=node.value)
        return _VARIABLE.sub(value, node.value)

    def _origin(self, node: Any, written: str | None = None) -> Origin:
        line = node.start_mark.line + 1
        return Origin(f"{self._path}:{line}", line, written)

    def _fault(self, node: Any, at: KeyPath, message: str) -> None:
        self._document.faults.append(Fault(self._origin(node), ".".join(at), message))
