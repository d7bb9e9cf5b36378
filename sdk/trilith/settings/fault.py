"""What is wrong with the settings, said in one form: place, key, what was found, what was expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from trilith.errors import SettingsError

KeyPath: TypeAlias = tuple[str, ...]
"""A setting's place in the tree, outermost first; list items count from "0"."""

HIDDEN = "(hidden)"
_LONGEST_FOUND = 60
# Up to the last "@" of the authority: a password may hold one.
_USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from."""

    place: str
    """`trilith.yaml:12`, `env TRILITH_GATEWAY__PORT`, `argument`."""
    line: int = 0
    """Line in the file, from 1; 0 where the value is from elsewhere."""
    written: str | None = None
    """The text in the file where it holds `${...}`: shown instead of what the environment put there."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong."""

    origin: Origin
    key: str
    """Dotted; empty when the fault is not about one key."""
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.origin.place, self.key, self.message) if part)


def refusal(faults: Iterable[Fault]) -> SettingsError:
    """Return the error that names every fault, the file's in the order of its lines first."""
    ordered = sorted(set(faults), key=lambda f: (f.origin.line == 0, f.origin.line, f.origin.place, f.key))
    if len(ordered) == 1:
        return SettingsError(str(ordered[0]))
    return SettingsError(f"{len(ordered)} settings are wrong:\n" + "\n".join(f"  {f}" for f in ordered))


def found(value: object, *, secret: bool = False, written: str | None = None) -> str:
    """Write a refused value so that it can be recognised, and no credential with it."""
    if written is not None:
        return f"what {written} stands for"
    if secret and value is not None:
        return HIDDEN
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    text = str(value) if isinstance(value, int | float | Decimal) else repr(without_userinfo(str(value)))
    return text if len(text) <= _LONGEST_FOUND else text[:_LONGEST_FOUND] + "..."


def without_userinfo(text: str) -> str:
    """Hide `user:password@` in a URL."""
    return _USERINFO.sub(HIDDEN, text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the closest known name, or an empty text."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
