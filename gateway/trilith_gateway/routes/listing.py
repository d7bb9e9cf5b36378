"""Lists that are read page by page, as OpenAI does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from fastapi import Query
from starlette.responses import Response

from trilith_gateway.routes.access import reply

After = Annotated[str | None, Query(max_length=128)]
"""The id that a page begins behind."""
Order = Literal["asc", "desc"]


class Item(Protocol):
    """What a list holds."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    def shown(self) -> dict[str, object]:
        """Return the object that callers see."""
        ...


def page(found: Sequence[Item], limit: int) -> Response:
    """Return the first `limit` of what was found; if there is more, `found` holds at least one more."""
    shown = found[:limit]
    return reply(
        {
            "object": "list",
            "data": [item.shown() for item in shown],
            "first_id": shown[0].id if shown else None,
            "last_id": shown[-1].id if shown else None,
            "has_more": limit < len(found),
        }
    )
