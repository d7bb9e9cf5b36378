"""Runs and findings of evals: the same on both databases, for every worker."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from store.conftest import Open
from support.eval_run import FINDING, told

from trilith.errors import BadRequestError, NotFoundError
from trilith_gateway import key
from trilith_gateway.evaluation.finding import Findings
from trilith_gateway.evaluation.run import Runs, Wanted
from trilith_gateway.store import schema, sqlite


def raw(*wrong: int, **options: str) -> bytes:
    return json.dumps(told(wrong, **options)).encode()  # type: ignore[arg-type]


def test_one_workers_run_is_every_workers(opened: Open) -> None:
    first, second = (Runs(opened(name)) for name in ("0", "1"))
    body = raw(1)
    made, new = first.keep(body, "k1")
    assert new
    assert second.listed(Wanted(suite="capitals", model="support", outcome="pass"), limit=9, after=None) == [
        made
    ]
    assert second.whole(made.id)[1] == first.whole(made.id)[1]
    assert second.keep(body, "k2") == (made, False)
    second.delete(made.id)
    assert first.listed(Wanted(), limit=9, after=None) == []
    with pytest.raises(NotFoundError):
        first.find(made.id)


def test_many_who_upload_one_run_at_once_keep_it_once(opened: Open) -> None:
    workers = [Runs(opened(str(number))) for number in range(4)]
    body = raw(1, 2)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda at: workers[at % 4].keep(body, f"k{at}"), range(8)))
    assert sum(new for _, new in made) == 1
    assert len({run for run, _ in made}) == 1
    assert len(workers[0].listed(Wanted(), limit=9, after=None)) == 1


def test_pages_follow_each_other_without_a_gap(opened: Open) -> None:
    runs = Runs(opened())
    ids = [runs.keep(raw(number), "k")[0].id for number in range(5)][::-1]
    seen: list[str] = []
    while len(seen) < 5:
        page = runs.listed(Wanted(), limit=2, after=seen[-1] if seen else None)
        seen += [run.id for run in page[:2]]
    assert seen == ids
    with pytest.raises(BadRequestError):
        runs.listed(Wanted(), limit=2, after="evalrun_' or 1=1 --")


def test_texts_that_sound_like_sql_are_texts(opened: Open) -> None:
    runs, odd = Runs(opened()), "'; drop table eval_runs; -- % ?"
    made, _ = runs.keep(raw(1, suite=odd, target=odd), "k")
    assert runs.listed(Wanted(suite=odd, model=odd), limit=9, after=None) == [made]
    assert runs.listed(Wanted(suite="' or '1'='1"), limit=9, after=None) == []


def test_what_a_model_said_comes_back_whole(opened: Open) -> None:
    runs, word = Runs(opened()), 'ü€😀 \0 \n "quoted" \\ %s ?'
    made, _ = runs.keep(raw(word=word), "k")
    run = json.loads(runs.whole(made.id)[1])
    assert word in run["suites"][0]["rows"][0]["output"]


def test_findings_of_all_workers_stand_in_one_list(opened: Open) -> None:
    first, second = (Findings(opened(name)) for name in ("0", "1"))
    lines = [{**FINDING, "end": 2000.0 + at, "subject": f"f{at}"} for at in range(4)]
    text = "\n".join(map(json.dumps, lines)).encode()
    assert first.keep(text, "k") == (4, 4)
    assert second.keep(text, "k") == (4, 0)
    page = second.listed("bikes", "alarm", limit=2, after=None)
    rest = second.listed("bikes", "", limit=2, after=page[1].id)
    assert [json.loads(one.finding)["subject"] for one in (*page[:2], *rest)] == ["f3", "f2", "f1", "f0"]
    assert first.listed("", "closed", limit=2, after=None) == []


BEFORE = """
insert into keys (id, name, team, secret_sha256, budget_window, models, created_at)
values ('k', 'n', 't', 's', 'day', 'a', 1.0);
"""


def sixth(*, postgres: bool) -> str:
    """The version before, with a key."""
    steps = (schema.second, schema.third, schema.fourth, schema.fifth, schema.sixth)
    made = schema.script(schema.FIRST, postgres=postgres) + "".join(step(postgres=postgres) for step in steps)
    stamp = "create table alembic_version (version_num varchar(32) primary key not null);\n"
    return made + "\n" + BEFORE + stamp + "insert into alembic_version values ('0006');\n"


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_keys_of_the_version_before_are_no_admins_and_stay_what_they_are(
    database: str, home: Path, request: pytest.FixtureRequest
) -> None:
    if database == "sqlite":
        home.mkdir()
        with closing(sqlite.connect(sqlite.database(home))) as connection:
            connection.executescript(sixth(postgres=False))
        store = sqlite.SqliteStore(home)
    else:
        from trilith_gateway.store import postgres

        empty = request.getfixturevalue("postgres_url")
        with closing(postgres.PostgresConnection(empty)) as connection:
            for statement in schema.statements(sixth(postgres=True)):
                connection.execute(statement)
        postgres.migrate(empty)
        store = postgres.PostgresStore(empty, home)  # type: ignore[assignment]
    try:
        with store.reading() as connection:
            (kept,) = key.load(connection)
            key.save(connection, key.mint("a", admin=True)[0])
            loaded = {one.name: one.admin for one in key.load(connection)}
        assert (kept.id, kept.models, kept.admin) == ("k", frozenset("a"), False)
        assert loaded == {"n": False, "a": True}
        assert Runs(store).keep(raw(), "k")[1]
    finally:
        store.close()
