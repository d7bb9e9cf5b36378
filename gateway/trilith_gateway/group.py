"""Teams and orgs: who shares a budget, and how fast all of them together may go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trilith_gateway.store.seam import Connection
from trilith_gateway.terms import Terms, read_terms


@dataclass(frozen=True, slots=True)
class Team:
    """Several keys that pay together. A team that nobody declared has no terms, and works."""

    name: str
    org: str = ""
    """Empty: none."""
    weight: int = 1
    """Its share when a model is full, compared with other teams."""
    terms: Terms = field(default_factory=Terms)


@dataclass(frozen=True, slots=True)
class Groups:
    """All that were declared, by name."""

    teams: Mapping[str, Team] = field(default_factory=dict)
    orgs: Mapping[str, Terms] = field(default_factory=dict)


def load(connection: Connection) -> Groups:
    """Read all teams and orgs."""
    teams = {
        row["name"]: Team(row["name"], row["org"], row["weight"], read_terms(row))
        for row in connection.execute("select * from teams")
    }
    return Groups(teams, {row["name"]: read_terms(row) for row in connection.execute("select * from orgs")})


def save(connection: Connection, table: str, name: str, values: Mapping[str, Any]) -> None:
    """Store a new row of `teams` or `orgs`; what `values` leaves out has its default."""
    row = {"name": name, **values, "created_at": time.time()}
    marks = ", ".join("?" * len(row))
    connection.execute(f"insert into {table} ({', '.join(row)}) values ({marks})", tuple(row.values()))


def change(connection: Connection, table: str, name: str, values: Mapping[str, Any]) -> bool:
    """Change some columns of a row; false when there is no such row."""
    terms = ", ".join(f"{column} = ?" for column in values)
    statement = f"update {table} set {terms} where name = ?"
    return connection.execute(statement, (*values.values(), name)).rowcount > 0
