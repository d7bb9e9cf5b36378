"""Writes down what every built-in scorer measures and takes, from its docstring and signature."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilith_evals.scorer import built_in

_INTRODUCTION = """\
# Scorers

A scorer stands in a suite file by its name, with what it takes under `params`:

```yaml
suites:
  - name: summaries
    target: {model: assistant}
    data: cases.jsonl
    fields: {input: question, expected: answers}
    scorers:
      - {scorer: exact}
      - {scorer: rouge, params: {kind: Lsum, stem: true}, name: summary}
```

In Python it is `trilith_evals.scorer.build("rouge", {"kind": "Lsum"})`, or the class itself. Scorers judge
one case at a time unless another shape is named: in one go over all cases, or as one figure over the suite,
whose rows then show losses. A case that lacks what a scorer needs is unscored with a reason and never 0. How
to [write your own](../how-to/write-a-scorer.md).
"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that a scorer takes."""

    name: str
    kind: str
    """Its type, as it is written."""
    default: str
    """As it is written; empty where it must be given."""
    meaning: str
    """Empty where nobody wrote it down."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One built-in scorer."""

    name: str
    meaning: str
    """The class's docstring; empty where there is none."""
    shape: str
    """Empty for a scorer of single cases."""
    parameters: tuple[Parameter, ...]


def entries() -> list[Entry]:
    """Return every built-in scorer, by name."""
    return [_entry(name, path) for name, path in sorted(built_in().items())]


def reference_page() -> str:
    """Return the page of scorers in Markdown."""
    return "\n".join([_INTRODUCTION, *map(_section, entries())])


def _entry(name: str, path: str) -> Entry:
    module, _, attribute = path.partition(":")
    made = getattr(importlib.import_module(module), attribute)
    shape = ""
    if hasattr(made, "score_all"):
        shape = "in one go over all cases"
    elif hasattr(made, "pair"):
        shape = "one figure over the suite"
    # A dataclass without a docstring gets its signature for one; only what is written counts.
    written = ast.get_docstring(_tree(made)) or ""
    return Entry(name, written, shape, tuple(_parameters(made)))


def _parameters(made: type) -> list[Parameter]:
    meanings: dict[str, str] = {}
    for base in reversed(made.__mro__[:-1]):
        if base.__module__.startswith("trilith"):
            meanings |= _meanings(base)
    return [
        Parameter(given.name, str(given.annotation), _default(given), meanings.get(given.name, ""))
        for given in inspect.signature(made).parameters.values()
        if given.name != "embedder"  # an object, which no suite file can hold
    ]


def _default(given: inspect.Parameter) -> str:
    if given.default is inspect.Parameter.empty:
        return ""
    if isinstance(given.default, str | int | float | bool | tuple | None):
        return repr(given.default)
    return "{}"  # made anew for every scorer


@functools.cache
def _tree(made: type) -> ast.ClassDef:
    found = ast.parse(textwrap.dedent(inspect.getsource(made))).body[0]
    if not isinstance(found, ast.ClassDef):
        raise TypeError(f"{made.__name__} is no class")
    return found


def _meanings(made: type) -> Mapping[str, str]:
    """Return what is written under the fields of a class, or in the `Args` of its constructor."""
    found: dict[str, str] = {}
    body = _tree(made).body
    for field, behind in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = _text(behind)
            if text:
                found[field.target.id] = text
    for method in body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            found |= _arguments(ast.get_docstring(method) or "")
    return found


def _text(statement: ast.stmt) -> str:
    value: Any = statement.value if isinstance(statement, ast.Expr) else None
    written = value.value if isinstance(value, ast.Constant) else None
    return inspect.cleandoc(written) if isinstance(written, str) else ""


def _arguments(docstring: str) -> Mapping[str, str]:
    _, _, listed = docstring.partition("Args:\n")
    listed = re.split(r"\n\n|\n(?=\S)", listed)[0]
    return {
        name: " ".join(text.split())
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", listed, re.MULTILINE)
    }


def _section(entry: Entry) -> str:
    lines = [f"## `{entry.name}`", "", *([f"*{entry.shape.capitalize()}.*", ""] if entry.shape else [])]
    lines += [entry.meaning, ""]
    if entry.parameters:
        lines += ["| param | type | default | |", "| --- | --- | --- | --- |"]
        lines += [
            "| " + " | ".join((f"`{p.name}`", _code(p.kind), _code(p.default), _cell(p.meaning))) + " |"
            for p in entry.parameters
        ]
        lines.append("")
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
