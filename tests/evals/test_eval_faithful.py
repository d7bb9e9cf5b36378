"""Faithfulness without a language model, on the real MiniLM."""

from __future__ import annotations

import pytest

import trilith_evals
from trilith.types import Citation
from trilith_evals import Case, Output, Score, State
from trilith_evals.scorers.encoding import MiniLmTokens
from trilith_evals.scorers.faithful import Faithful

pytestmark = [
    # Third parties' own deprecations, met while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TOWER = "The Eiffel Tower was completed in 1889. It is 330 metres tall and stands in Paris."


def judge(answer: str, *contexts: str) -> Score:
    (score,) = Faithful().score_all([(Case("1", "q", fields={"contexts": list(contexts)}), Output(answer))])
    return score


def value(answer: str, *contexts: str) -> float:
    found = judge(answer, *contexts).value
    assert found is not None
    return found


def test_a_copied_answer_scores_over_a_paraphrase_and_that_over_an_invention() -> None:
    copied = value("The Eiffel Tower was completed in 1889.", TOWER)
    paraphrased = value("Builders finished the tower in the French capital in 1889.", TOWER)
    invented = value("Napoleon sold the bridge to a Belgian circus.", TOWER)
    assert copied > 0.95
    assert copied > paraphrased > invented


def test_a_wrong_number_costs_more_than_another_word_for_the_same_thing() -> None:
    assert value("The tower is 340 metres tall.", TOWER) < value("The building is 330 metres tall.", TOWER)


def test_a_number_is_the_same_with_and_without_its_commas() -> None:
    context = "The town has 12500 people."
    assert value("The town has 12,500 people.", context) == pytest.approx(value(context, context), abs=0.05)


def test_the_least_supported_sentence_is_named_and_pulls_the_score_down() -> None:
    good = "The Eiffel Tower was completed in 1889."
    score = judge(f"{good} Penguins compose operas about marmalade.", TOWER)
    assert "Penguins compose operas" in score.detail
    assert score.value is not None
    halfway = (value(good, TOWER) + value("Penguins compose operas about marmalade.", TOWER)) / 2
    assert score.value < halfway - 0.05


def test_an_answer_that_admits_not_to_know_is_abstained_on() -> None:
    assert judge("I do not have specific information.", TOWER).state is State.ABSTAINED
    assert judge("", TOWER).state is State.ABSTAINED


def test_a_claim_beside_an_admission_is_still_judged() -> None:
    score = judge("I don't have information on its height. The tower was completed in 1889.", TOWER)
    assert score.state is State.SCORED


def test_a_claim_over_nothing_retrieved_has_no_support() -> None:
    assert judge("The tower was completed in 1889.").value == 0


def test_a_case_without_contexts_is_judged_by_what_the_answer_cites() -> None:
    cited = Output("The tower was completed in 1889.", citations=(Citation(1, "d", "d", 0, 9, TOWER),))
    by_citation, nothing = Faithful().score_all(
        [(Case("1", "q"), cited), (Case("2", "q"), Output("It opened in 1889."))]
    )
    assert by_citation.value == value("The tower was completed in 1889.", TOWER)
    assert nothing.state is State.UNSCORED
    assert "no contexts" in nothing.reason


@pytest.mark.parametrize(
    "answer", ["Der Turm ist 330 Meter hoch und steht in der Stadt.", "塔は三百三十メートルです。"]
)
def test_an_answer_in_another_language_is_unscored_and_says_so(answer: str) -> None:
    score = judge(answer, TOWER)
    assert score.state is State.UNSCORED
    assert "not in English" in score.reason


def test_list_markers_are_no_numbers_to_check() -> None:
    assert value("7. Completed in 1889.\n8. Stands in Paris.", TOWER) > 0.9


def test_a_fact_at_the_end_of_a_long_passage_is_found() -> None:
    filler = "Rain fell on the quiet hills and nobody wrote about it. " * 120
    assert value("The Eiffel Tower was completed in 1889.", filler + TOWER) > 0.85


def test_every_token_of_a_long_text_has_a_vector_of_length_one() -> None:
    (tokens,) = MiniLmTokens().encode(["harbour lights and fog " * 200])
    assert len(tokens.vectors) > 400
    assert (tokens.vectors.astype(float) ** 2).sum(axis=1) == pytest.approx(1, abs=0.01)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    pairs = [
        (Case(str(i), "q", fields={"contexts": TOWER}), Output(f"It is {n} metres tall in Paris."))
        for i, n in enumerate((330, 340))
    ]
    together = [score.value for score in Faithful().score_all(pairs)]
    alone = [Faithful().score_all([pair])[0].value for pair in pairs]
    assert together == pytest.approx(alone, abs=0.01)


def test_it_runs_by_name_in_a_suite() -> None:
    rows = [{"input": "The tower was completed in 1889.", "contexts": [{"text": TOWER}]}]
    (figure,) = trilith_evals.run(str, rows, ["faithful"]).suites[0].figures
    assert (figure.metric, figure.scored) == ("faithful", 1)
