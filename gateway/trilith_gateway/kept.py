"""Answers that upstreams keep: which upstream has which one, and whose it is.

The ledger's row of the request that made an answer says both. An answer that another team made does not
exist for a caller, whatever its name; all callers share the gateway's own credential at an upstream, which
therefore cannot tell them apart. The ledger holds a digest of the name, which itself is an upstream's word.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilith.seams import Upstream
from trilith_gateway.key import Key
from trilith_gateway.release import Release
from trilith_gateway.routing.routed import RoutedUpstream
from trilith_gateway.store.journalled import JournalledStore
from trilith_gateway.upstream.http import HttpUpstream
from trilith_gateway.upstream.renamed import served

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
"""What a name may be: it becomes a part of a path."""
_WAITS_S = (0.1, 0.3)
"""An answer may have been made just now, here or elsewhere; the tables follow the journals (seconds)."""
_MOST_KNOWN = 4096
_FIND = """select model, asked, upstream from ledger where kept_as = ? and team = ?
    order by at desc limit 1"""


@dataclass(frozen=True, slots=True)
class Kept:
    """Where an answer is kept."""

    model: str
    """Whose upstream keeps it."""
    asked: str
    """The model that its maker asked for."""
    upstream: str
    """By which name the ledger knows the upstream."""


def named(answer: Mapping[str, Any]) -> str:
    """Return the name of a decoded answer, or of the one that a stream's event is about; empty for none.

    Only its own field counts: an answer repeats words of its caller, `metadata` for one.
    """
    about = answer.get("response")
    name = (about if isinstance(about, dict) else answer).get("id")
    return name if isinstance(name, str) and ID.fullmatch(name) else ""


def digest(name: str) -> str:
    """Return what the ledger keeps of a name; empty for none."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest() if name else ""


def holder(release: Release, kept: Kept) -> Upstream | None:
    """Return the upstream that keeps an answer, or the one of several; None when it is none of the release's.

    Names are an upstream's own: at another one, the same name may be another team's answer.
    """
    upstream = release.upstream
    if not isinstance(upstream, RoutedUpstream):
        return upstream if release.place == kept.upstream else None
    return next((one.upstream for one in upstream.endpoints if one.name == kept.upstream), None)


def server(release: Release, kept: Kept) -> HttpUpstream | None:
    """Return the server that keeps an answer and can be asked for it; None when there is none."""
    found = holder(release, kept)
    found = None if found is None else served(found)
    return found if isinstance(found, HttpUpstream) else None


class KeptAnswers:
    """Finds where answers are kept."""

    def __init__(self, store: JournalledStore) -> None:
        self._store = store
        self._known: dict[tuple[str, str], Kept] = {}

    async def find(self, key: Key, name: object) -> Kept | None:
        """Return where an answer is; None: the key's team made none of this name, or it may not be called."""
        if not isinstance(name, str) or not ID.fullmatch(name):
            return None
        found = self._known.get((key.team, name))
        if found is None:
            found = await asyncio.to_thread(self._find, key.team, name)
            for wait_s in _WAITS_S:
                if found is None:
                    await asyncio.sleep(wait_s)
                    found = await asyncio.to_thread(self._find, key.team, name)
            if found is None:
                return None
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key.team, name] = found
        return found if key.allows(found.asked) else None

    def _find(self, team: str, name: str) -> Kept | None:
        given = (digest(name), team)
        with self._store.reading() as connection:
            row = connection.execute(_FIND, given).fetchone()
        return None if row is None else Kept(row["model"], row["asked"] or row["model"], row["upstream"])
