"""Scorers over JSON, calls of tools and SQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trilith_evals import Case, Output, State, ToolCall, run
from trilith_evals.scorers.sql import Sql, query_of
from trilith_evals.scorers.structure import JsonSchema, ToolCalls

if TYPE_CHECKING:
    from evals.conftest import LanguageServer

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
}


def test_json_that_fits_the_schema_scores_1_in_a_code_fence_too() -> None:
    scorer = JsonSchema(PERSON)
    assert scorer(Case("1", "q"), Output('{"name": "Ada", "age": 36}')).value == 1
    assert scorer(Case("1", "q"), Output('```json\n{"name": "Ada", "age": 36}\n```')).value == 1
    assert JsonSchema(PERSON, fenced=False)(Case("1", "q"), Output('```\n{"name": "A"}\n```')).value == 0


def test_the_detail_names_the_fields_that_do_not_fit() -> None:
    score = JsonSchema(PERSON)(Case("1", "q"), Output('{"name": 3, "age": -1}'))
    assert score.value == 0
    assert "$.name:" in score.detail
    assert "$.age:" in score.detail


@pytest.mark.parametrize("text", ["", "Here you are: {}", '{"age": NaN, "name": "x"}', "[" * 100_000])
def test_what_is_not_json_scores_0(text: str) -> None:
    assert JsonSchema(PERSON)(Case("1", "q"), Output(text)).value == 0


def test_a_case_brings_its_own_schema_and_without_one_is_unscored() -> None:
    own = Case("1", "q", fields={"schema": {"type": "array"}})
    assert JsonSchema()(own, Output("[]")).value == 1
    assert JsonSchema()(Case("1", "q"), Output("[]")).state is State.UNSCORED
    assert JsonSchema()(Case("1", "q", fields={"schema": {"type": "?"}}), Output("1")).state is State.UNSCORED


def test_a_schema_that_is_none_is_refused_when_the_scorer_is_made() -> None:
    with pytest.raises(ValueError, match="schema"):
        JsonSchema({"type": "texts"})


def test_a_schema_elsewhere_is_never_fetched() -> None:
    scorer = JsonSchema({"$ref": "http://127.0.0.1:9/schema.json"})
    report = run(lambda _: "{}", [Case("1", "q")], [scorer])
    assert dict(report.suites[0].figures[0].reasons) == {"the case's schema is not whole": 1}


def called(*calls: tuple[str, Any]) -> Output:
    return Output(tool_calls=tuple(ToolCall(name, arguments) for name, arguments in calls))


def wants(*calls: dict[str, Any]) -> Case:
    return Case("1", "q", fields={"tool_calls": list(calls)})


def test_a_models_calls_arrive_with_the_arguments_read(language_server: LanguageServer) -> None:
    language_server.answer = lambda _: ""
    written = ('{"city": "Paris", "days": 2}', "{broken", "")
    language_server.tool_calls = [
        {"id": str(at), "type": "function", "function": {"name": "weather", "arguments": text}}
        for at, text in enumerate(written)
    ]
    scorer = ToolCalls("recall")
    report = run("m", [wants(WEATHER)], [scorer], base_url=language_server.url, api_key="k")
    (row,) = report.suites[0].rows
    assert row.output is not None
    assert [call.arguments for call in row.output.tool_calls] == [WEATHER["arguments"], "{broken", {}]
    assert row.scores["tool_calls_recall"].value == 1


WEATHER: dict[str, Any] = {"name": "weather", "arguments": {"city": "Paris", "days": 2}}
CLOCK = {"name": "clock", "arguments": {}}


def test_calls_are_compared_by_name_and_arguments() -> None:
    scorer = ToolCalls()
    assert scorer(wants(WEATHER), called(("weather", {"city": "Paris", "days": 2.0}))).value == 1
    assert scorer(wants(WEATHER), called(("weather", {"city": "Rome", "days": 2}))).value == 0
    assert scorer(wants(WEATHER), called(("forecast", {"city": "Paris", "days": 2}))).value == 0
    assert scorer(wants(WEATHER), called(("weather", "{broken"))).value == 0


def test_order_counts_where_it_is_asked_for() -> None:
    made = called(("clock", {}), ("weather", {"city": "Paris", "days": 2}))
    assert ToolCalls()(wants(WEATHER, CLOCK), made).value == 1
    assert ToolCalls(ordered=True)(wants(WEATHER, CLOCK), made).value == 0
    assert ToolCalls("f1", ordered=True)(wants(WEATHER, CLOCK), made).value == 0.5


def test_precision_and_recall_count_calls() -> None:
    made = called(("clock", {}), ("clock", {}), ("search", {}))
    assert ToolCalls("precision")(wants(CLOCK, WEATHER), made).value == pytest.approx(1 / 3)
    assert ToolCalls("recall")(wants(CLOCK, WEATHER), made).value == 0.5
    assert ToolCalls("f1")(wants(CLOCK, WEATHER), made).value == pytest.approx(0.4)  # 2 * 1 / (3 + 2)


def test_a_call_goes_to_the_expectation_that_leaves_most_to_the_others() -> None:
    either = {"name": "get", "arguments": {"id": {"$any": [1, 2]}}}
    only = {"name": "get", "arguments": {"id": 1}}
    made = called(("get", {"id": 1}), ("get", {"id": 2}))
    assert ToolCalls()(wants(either, only), made).value == 1


@pytest.mark.parametrize(
    ("matcher", "said", "fits"),
    [
        ({"$any": ["a", "b"]}, "b", True),
        ({"$any": ["a", "b"]}, "c", False),
        ({"$match": r"\d{4}-\d\d"}, "2026-11", True),
        ({"$match": r"\d{4}"}, "2026-11", False),  # the whole text
        ({"$near": 3.1, "$within": 0.1}, 3.15, True),
        ({"$near": 3.1, "$within": 0.1}, "3.1", False),
        ({"$present": True}, None, True),
        (True, 1, False),
        ([1, {"$any": [2]}], [1, 2], True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
    ],
)
def test_an_argument_may_be_matched(matcher: Any, said: Any, fits: bool) -> None:
    case = wants({"name": "f", "arguments": {"x": matcher}})
    assert ToolCalls()(case, called(("f", {"x": said}))).value == fits


def test_further_arguments_and_spelling_are_forgiven_where_it_is_said() -> None:
    made = called(("weather", {"city": "paris!", "days": 2, "unit": "C"}))
    assert ToolCalls()(wants(WEATHER), made).value == 0
    assert ToolCalls(arguments="subset", text="normalised")(wants(WEATHER), made).value == 1
    assert ToolCalls(arguments="ignored")(wants(WEATHER), called(("weather", None))).value == 1


def test_to_call_nothing_is_right_where_nothing_is_expected() -> None:
    for measure in ("accuracy", "precision", "recall", "f1"):
        assert ToolCalls(measure)(wants(), Output("hello")).value == 1
        assert ToolCalls(measure)(wants(), called(("clock", {}))).value == 0


@pytest.mark.parametrize("listed", [None, "not json", [{"tool": "x"}], {"name": "x"}])
def test_without_a_list_of_expected_calls_there_is_no_score(listed: Any) -> None:
    assert ToolCalls()(Case("1", "q", fields={"tool_calls": listed}), Output()).state is State.UNSCORED


SETUP = """
create table town (name text, people integer, area real);
insert into town values ('Ulm', 126000, 118.7), ('Bonn', 330000, 141.1), ('Jena', 111000, 114.8);
"""


def asked(gold: str | list[str], said: str, scorer: Sql | None = None) -> Any:
    return (scorer or Sql(timeout_s=0.5))(Case("1", "q", gold, fields={"setup": SETUP}), Output(said))


def test_queries_are_equal_when_their_rows_are() -> None:
    gold = "select name from town where people > 120000"
    assert asked(gold, "SELECT t.name FROM town AS t WHERE NOT t.people <= 120000;").value == 1
    assert asked(gold, "```sql\nselect name from town where people > 126000\n```").value == 0
    assert asked(["select 1", gold], gold).value == 1


def test_the_order_of_rows_counts_where_the_expected_query_orders_them() -> None:
    up, down = "select name from town order by people", "select name from town order by people desc"
    assert asked(up, down).value == 0
    assert asked(up, down, Sql(order="free")).value == 1
    assert asked("select name from town", down).value == 1


def test_a_row_counts_as_often_as_it_comes() -> None:
    assert asked("select 1 from town", "select 1").value == 0


def test_a_sum_may_differ_in_its_last_digits() -> None:
    assert asked("select 0.1 + 0.2", "select 0.3").value == 1


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("drop table town", "not authorized"),
        ("insert into town values ('x', 1, 1)", "not authorized"),
        ("attach 'x.db' as x", "not authorized"),
        ("pragma writable_schema = 1", "not authorized"),
        ("select 1; drop table town", "one statement"),
        ("select zeroblob(2000000)", "too big"),
        (
            "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n",
            "interrupted",
        ),
        ("select a.name from town a, town b, town c, town d, town e", "more than 200 rows"),
        ("selekt name", "syntax error"),
        ("", ""),
    ],
)
def test_an_answer_that_cannot_run_or_must_not_scores_0_and_leaves_the_run_alive(
    query: str, why: str
) -> None:
    score = asked("select name from town", query, Sql(timeout_s=0.2, max_rows=200))
    assert score.value == 0
    assert why in score.detail


def test_an_expected_query_that_does_not_run_leaves_the_case_unscored() -> None:
    assert asked("select nothing from town", "select 1").reason == "the expected query does not run"
    no_setup = Sql()(Case("1", "q", "select 1"), Output("select 1"))
    assert no_setup.reason == "the case's database could not be made"


def test_a_database_file_is_read_and_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "towns.db"
    with sqlite3.connect(file) as database:
        database.executescript(SETUP)
    database.close()
    before = file.read_bytes()
    scorer = Sql(database=str(file))
    assert scorer(Case("1", "q", "select count(*) from town"), Output("select 3")).value == 1
    assert scorer(Case("1", "q", "select 3"), Output("delete from town")).value == 0
    assert file.read_bytes() == before
    with pytest.raises(ValueError, match="not a file"):
        Sql(database=str(tmp_path / "none.db"))


def test_the_query_is_the_last_code_block() -> None:
    assert query_of("First ```sql\nselect 1\n``` then\n```\nselect 2;\n```") == "select 2"
    assert query_of(" select 3 ; ") == "select 3"
