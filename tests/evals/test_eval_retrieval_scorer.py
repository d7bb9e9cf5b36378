"""Retrieval scorers over an answer's citations."""

from __future__ import annotations

import importlib
import random

import pytest

from trilith.types import Citation
from trilith_evals import Case, Output, State
from trilith_evals.scorers.retrieval import (
    AveragePrecision,
    Cited,
    Hit,
    Mrr,
    Ndcg,
    Precision,
    Recall,
    RPrecision,
    Supported,
)


def citation(path: str, start: int = 0, end: int = 10, *, supported: bool = True) -> Citation:
    return Citation(1, path, path, start, end, "quote", supported=supported)


def output(*paths: str) -> Output:
    return Output(citations=tuple(citation(path) for path in paths))


def case(**fields: object) -> Case:
    return Case("1", "q", fields=fields)  # type: ignore[arg-type]


def test_recall_is_the_share_of_gold_documents_in_the_first_k() -> None:
    answer = output("x", "a", "b")
    assert Recall(k=2)(case(path=["a", "b"]), answer).value == 0.5
    assert Recall(k=3)(case(path=["a", "b"]), answer).value == 1


def test_the_metric_says_what_it_measures_and_where_it_cuts() -> None:
    assert Recall(k=3).name == "recall@3"
    assert Mrr(k=5, start="s", end="e").name == "mrr_span@5"


def test_the_reciprocal_rank_is_that_of_the_first_hit() -> None:
    assert Mrr()(case(path="a"), output("x", "x", "a", "a")).value == pytest.approx(1 / 3)
    assert Mrr(k=2)(case(path="a"), output("x", "x", "a")).value == 0


def test_ndcg_equals_scikit_learns_on_random_rankings() -> None:
    metrics = importlib.import_module("sklearn.metrics")
    generator = random.Random(2)
    for _ in range(50):
        documents = [f"d{i}" for i in range(8)]
        generator.shuffle(documents)
        golds = generator.sample(documents, 3)
        ours = Ndcg(k=5)(case(path=golds), output(*documents)).value
        theirs = metrics.ndcg_score([[float(d in golds) for d in documents]], [list(range(8, 0, -1))], k=5)
        assert ours == pytest.approx(theirs)


def test_citing_one_document_twice_does_not_count_twice() -> None:
    assert (
        Ndcg()(case(path=["a", "b"]), output("a", "a")).value
        == Ndcg()(case(path=["a", "b"]), output("a")).value
    )


def test_a_span_must_overlap_and_not_only_touch() -> None:
    scorer = Recall(start="start", end="end")
    answer = Output(citations=(citation("a", 100, 200),))
    assert scorer(case(path="a", start=199, end=250), answer).value == 1
    assert scorer(case(path="a", start=200, end=250), answer).value == 0
    assert scorer(case(path="b", start=199, end=250), answer).value == 0


def test_several_spans_of_one_document_each_count() -> None:
    answer = Output(citations=(citation("a", 0, 50),))
    assert Recall(start="s", end="e")(case(path="a", s=[10, 90], e=[20, 95]), answer).value == 0.5


def test_nothing_cited_finds_nothing() -> None:
    assert Recall()(case(path="a"), Output()).value == 0
    assert Cited()(case(path="a"), Output()).value == 0


def test_a_case_without_a_gold_document_is_unscored() -> None:
    assert Recall()(case(), output("a")).state is State.UNSCORED


def test_a_gold_span_that_is_no_number_is_unscored() -> None:
    assert Recall(start="s", end="e")(case(path="a", s="x", e=3), output("a")).state is State.UNSCORED


def test_the_supported_share_abstains_where_nothing_is_cited() -> None:
    half = Output(citations=(citation("a"), citation("b", supported=False)))
    assert Supported()(case(), half).value == 0.5
    assert Supported()(case(), Output()).state is State.ABSTAINED


def test_the_measures_of_a_ranking_by_hand() -> None:
    found, golds = output("a", "x", "b", "y"), case(path=["a", "b", "c"])
    assert Precision(k=4)(golds, found).value == 0.5
    assert AveragePrecision(k=4)(golds, found).value == pytest.approx((1 + 2 / 3) / 3)
    assert RPrecision()(golds, found).value == pytest.approx(2 / 3)
    assert Hit(k=1)(golds, found).value == 1
    assert Hit(k=2)(golds, output("x", "y", "a")).value == 0
    assert [AveragePrecision(k=4).name, RPrecision().name] == ["map@4", "r_precision@10"]


def test_average_precision_equals_scikit_learns_where_all_golds_are_ranked() -> None:
    metrics = importlib.import_module("sklearn.metrics")
    generator = random.Random(3)
    for _ in range(50):
        documents = [f"d{i}" for i in range(8)]
        generator.shuffle(documents)
        golds = generator.sample(documents, 3)
        ours = AveragePrecision(k=8)(case(path=golds), output(*documents)).value
        truth = [d in golds for d in documents]
        assert ours == pytest.approx(metrics.average_precision_score(truth, list(range(8, 0, -1))))


def test_graded_ndcg_equals_scikit_learns_on_random_rankings() -> None:
    metrics = importlib.import_module("sklearn.metrics")
    generator = random.Random(4)
    for _ in range(50):
        documents = [f"d{i}" for i in range(8)]
        grades = {document: float(generator.randint(0, 3)) for document in documents}
        grades[documents[0]] = 2.0
        generator.shuffle(documents)
        row = case(path=list(grades), grade=list(grades.values()))
        ours = Ndcg(k=5, grades="grade")(row, output(*documents)).value
        theirs = metrics.ndcg_score([[grades[d] for d in documents]], [list(range(8, 0, -1))], k=5)
        assert ours == pytest.approx(theirs)


def test_citing_one_document_twice_finds_nothing_new() -> None:
    golds = case(path=["a", "b"], grade=[3, 1])
    twice = output("a", "a")
    assert Precision(k=2)(golds, twice).value == 0.5
    assert AveragePrecision(k=2)(golds, twice).value == 0.5
    assert (
        Ndcg(k=2, grades="grade")(golds, twice).value == Ndcg(k=2, grades="grade")(golds, output("a")).value
    )


def test_where_nothing_is_relevant_there_is_nothing_to_judge() -> None:
    for scorer in (Recall(), AveragePrecision(), Ndcg(grades="grade")):
        assert scorer(case(path=[]), output("a")).state is State.ABSTAINED
    assert Ndcg(grades="grade")(case(path="a", grade=0), output("a")).state is State.ABSTAINED
    assert Ndcg(grades="grade")(case(path="a", grade="high"), output("a")).state is State.UNSCORED
    assert Ndcg(grades="grade")(case(path=["a", "b"], grade=[1]), output("a")).state is State.UNSCORED
