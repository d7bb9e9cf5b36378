"""BLEU, chrF and ROUGE give the reference implementations' numbers; edit distance tells near from far."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilith_evals import Case, Output, State, run
from trilith_evals.scorers.overlap import Bleu, Chrf, CorpusBleu, Edit, Rouge, chrf
from trilith_evals.scorers.stem import stem

REFERENCE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "overlap_reference.json").read_text(encoding="utf-8")
)
"""Numbers of sacrebleu 2.6.0, rouge-score 0.1.2 and nltk 3.10.4 on real answers; the file has its sources."""
ROWS = REFERENCE["rows"]


def judged(scorer: Any, answer: str, *golds: str) -> float:
    return float(scorer(Case("1", "q", list(golds)), Output(text=answer)).value)


@pytest.mark.parametrize(("scorer", "key"), [(Bleu(), "bleu"), (Chrf(), "chrf"), (Chrf(words=2), "chrf++")])
def test_bleu_and_chrf_are_those_of_sacrebleu(scorer: Any, key: str) -> None:
    for row in ROWS:
        assert judged(scorer, row["answer"], *row["golds"]) == pytest.approx(row[key], abs=1e-9)


@pytest.mark.parametrize("kind", ["1", "2", "L", "Lsum"])
@pytest.mark.parametrize("stemmed", [False, True])
def test_rouge_is_that_of_rouge_score(kind: Any, stemmed: bool) -> None:
    for row in ROWS:
        wanted = row[f"rouge{kind}" + ("_stem" if stemmed else "")]
        scorers = [Rouge(kind, stemmed, measure) for measure in ("precision", "recall", "f1")]
        found = [judged(scorer, row["answer"], *row["golds"]) for scorer in scorers]
        assert found == pytest.approx(wanted, abs=1e-9)


def test_words_are_stemmed_as_nltk_does() -> None:
    assert {word: stem(word) for word in REFERENCE["stems"]} == REFERENCE["stems"]


@pytest.mark.parametrize(
    ("word", "stemmed"),
    # The rules that no word of the real answers meets.
    [
        ("skies", "sky"),
        ("dies", "die"),
        ("tied", "tie"),
        ("fizzed", "fizz"),
        ("filing", "file"),
        ("yyyy", "yyyi"),
    ],
)
def test_a_rare_word_is_stemmed_too(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


def test_the_bleu_of_a_suite_is_that_of_all_its_words_together() -> None:
    cases = [Case(str(at), row["answer"], row["golds"]) for at, row in enumerate(ROWS)]
    figure = run(lambda given: given, cases, [CorpusBleu()]).suites[0].figures[0]
    assert figure.estimate is not None
    assert figure.estimate.value == pytest.approx(REFERENCE["corpus_bleu"], abs=1e-9)
    assert figure.estimate.low is not None
    assert figure.estimate.low < figure.estimate.value
    assert figure.higher_is_better


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=40), st.text(max_size=40))
def test_chrf_is_alike_whether_ngrams_are_packed_or_counted_one_by_one(first: str, second: str) -> None:
    # A thousand rare characters, the same on both sides and at both ends, force the slow count.
    rare = "".join(chr(0x4E00 + at) for at in range(1100))
    slow = chrf(first + rare, second + rare)
    assert 0 <= chrf(first, second) <= 1
    assert slow == pytest.approx(_plain_chrf(first + rare, second + rare))
    assert chrf(first, second) == pytest.approx(_plain_chrf(first, second))


def _plain_chrf(answer: str, gold: str) -> float:
    """Return chrF as its paper writes it."""
    a, b = "".join(answer.split()), "".join(gold.split())
    shares = []
    for n in range(1, 7):
        said, wanted = ([text[i : i + n] for i in range(len(text) - n + 1)] for text in (a, b))
        if said and wanted:
            both = (Counter(said) & Counter(wanted)).total()
            shares.append((both / len(said), both / len(wanted)))
    if not shares:
        return 0.0
    precision, recall = (sum(side) / len(shares) for side in zip(*shares, strict=True))
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def test_edits_are_counted_in_characters_against_the_nearest_answer() -> None:
    assert judged(Edit(), "kitten", "sitting") == pytest.approx(1 - 3 / 7)  # two changed, one added
    assert judged(Edit(), "kitten", "sitting", "kitte") == pytest.approx(1 - 1 / 6)
    assert judged(Edit(), "Kitten!", "kitten") < judged(Edit(normalised=True), "Kitten!", "kitten") == 1


def test_swapped_neighbours_are_one_edit_for_damerau() -> None:
    assert judged(Edit("damerau"), "form", "from") == 0.75
    assert judged(Edit(), "form", "from") == 0.5
    assert judged(Edit("jaro_winkler"), "MARTHA", "MARHTA") == pytest.approx(0.9611, abs=1e-4)  # Winkler 1990


@pytest.mark.parametrize("scorer", [Bleu(), Chrf(), Rouge(), Edit()])
def test_without_an_expected_answer_there_is_no_score(scorer: Any) -> None:
    for expected in (None, [], float("nan"), [None]):
        assert scorer(Case("1", "q", expected), Output(text="x")).state is State.UNSCORED


@pytest.mark.parametrize("scorer", [Bleu(), Chrf(), Rouge("Lsum"), Edit()])
def test_an_empty_answer_scores_nothing_and_does_not_fail(scorer: Any) -> None:
    assert judged(scorer, "", "four words are here") == 0


def test_the_metric_says_which_variant_it_is() -> None:
    assert [Rouge().name, Rouge("1", measure="recall").name] == ["rouge_l", "rouge_1_recall"]
    assert [Chrf().name, Chrf(words=2).name, Chrf(words=1).name] == ["chrf", "chrf++", "chrf_1"]
    assert [Edit().name, Edit("jaro").name] == ["edit", "edit_jaro"]


def test_ngrams_of_rare_characters_are_kept_apart() -> None:
    # In fewer bits a character would spill over into the one before it.
    letters = [chr(0x4E00 + at) for at in range(1000)]
    answer = "".join(letters) + letters[0] + letters[600]
    gold = "".join(letters[::-1]) + letters[1] + letters[88]
    assert chrf(answer, gold) == pytest.approx(_plain_chrf(answer, gold))
