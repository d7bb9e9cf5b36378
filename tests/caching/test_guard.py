"""The guard: what a vector does not see. Each pair of the second table is near enough for any threshold."""

from __future__ import annotations

import pytest

from trilith_gateway.caching import guard

SAME = [
    ("What is the capital of France?", "what is the capital of france"),
    ("What is the capital of France?", "Please tell me: what's the capital of France?"),
    ("Who led the team in 1990?", "In 1990, who led the team?"),
    ("How do I reset my password?", "Hi, how can I reset my password? Thanks!"),
    ("What does \u201clazy\u201d mean in SQL?", 'what does "lazy" mean in SQL'),
    ("write to <PERSON_1> about the invoice", "Please write to <PERSON_1> about the invoice."),
    ("How many patients were treated?", "how many patient were treated?"),
]
OTHER = [
    ("What is the capital of France?", "What is the capital of Spain?"),
    ("what is the capital of france", "what is the capital of spain"),
    ("What was the GDP in 1990?", "What was the GDP in 1991?"),
    ("Convert 5 dollars to 7 euros", "Convert 7 dollars to 5 euros"),
    ("When is a train from Paris to Rome?", "When is a train from Rome to Paris?"),
    ("Is aspirin safe for children?", "Is aspirin not safe for children?"),
    ("Which drugs are safe?", "Which drugs aren't safe?"),
    ("Who wrote the play?", "When was the play written?"),
    ("Who wrote it?", "When wrote it?"),
    ("What is the highest peak?", "What is the lowest peak?"),
    ("Did it happen before the war?", "Did it happen after the war?"),
    ("What happened on Monday?", "What happened on Tuesday?"),
    ("How do I add two numbers?", "How do I add three numbers?"),
    ("What does 'fair' mean?", "What does 'fare' mean?"),
    ("Symptoms of influenza?", "Symptoms of influenza in children?"),
    ("write to <PERSON_1>", "write to <PERSON_2>"),
    ("write to <PERSON_1> and <EMAIL_ADDRESS_1>", "write to <PERSON_1>"),
    ("Which year did the war end?", "Which month did the war end?"),
    ("Which city is it in?", "Which country is it in?"),
    ("How long is the river?", "How many is the river?"),
    ("What is the weather today?", "What is the weather tomorrow?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_question_said_differently_agrees(one: str, other: str) -> None:
    assert guard.agree(one, other)
    assert guard.agree(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_a_question_that_differs_in_what_matters_does_not(one: str, other: str) -> None:
    assert not guard.agree(one, other)
    assert not guard.agree(other, one)
