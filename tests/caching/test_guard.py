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
    ("I would like to know what the capital of France is.", "What is the capital of France?"),
    ("Torsion in a child: is surgery needed?", "torsion in a child: is surgery needed"),
    ("How can I sue my employer?", "how to sue my employer"),
    ("What's the speed of light in m/s?", "what is the speed of light in m/s"),
    ("Why isn't the sky green?", "Why is not the sky green"),
    ("How much is 1,000 USD in EUR?", "how much is 1000 USD in EUR"),
    ("\u00bfCu\u00e1l es la capital de Francia?", "\u00bfcu\u00e1l es la capital de francia?"),
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
REVERSED = [
    ("Can I sue my employer?", "Can my employer sue me?"),
    ("convert USD to EUR", "convert EUR to USD"),
    ("convert usd to eur", "convert eur to usd"),
    ("Is gold older than silver?", "Is silver older than gold?"),
    ("Does stress cause insomnia?", "Does insomnia cause stress?"),
    ("Did Brutus kill Caesar?", "Did Caesar kill Brutus?"),
    ("Who did Brutus kill?", "Who killed Brutus?"),
    ("Is the dog chasing the cat?", "Is the cat chasing the dog?"),
    ("Is Ann suing?", "Is Ann sued?"),
    ("When is a train from Paris to Rome?", "When is a train to Paris from Rome?"),
    ("Is the man who was king dead?", "Was the man who is king dead?"),
    ("Can cats do what dogs did?", "Did cats do what dogs can?"),
    ("Do I owe you?", "Do you owe me?"),
    ("How do I contact you?", "How do you contact me?"),
    ("What if I leave my landlord?", "What if my landlord leaves me?"),
    ("In 1990, who said that he won?", "Who said that he won in 1990?"),
]
NARROW = [
    ("What is C++?", "What is C#?"),
    ("Is 5 > 3?", "Is 5 < 3?"),
    ("What is 5 + 3?", "What is 5 - 3?"),
    ("What is -5 times 3?", "What is 5 times 3?"),
    ("What is (2 + 3) * 4?", "What is 2 + (3 * 4)?"),
    ("What is x\u00b2 at 3?", "What is x2 at 3?"),
    ("Is 20 \u00b0C warm?", "Is 20 \u00b0F warm?"),
    ("How much is 5 $?", "How much is 5 \u20ac?"),
    ("how long is 5 m", "how long is 5 M"),
    ("How many Mb are in 8 of my MB?", "How many MB are in 8 of my Mb?"),
    ("Can I take aspirin?", "Should I take aspirin?"),
    ("Who is the president?", "Who was the president?"),
    ("Who is the president?", "Who is a president?"),
    ("Are there a few stars?", "Are there few stars?"),
    ("What is the best bank?", "What are the best banks?"),
    ("Where is my key?", "Where is your key?"),
    ("What does he earn?", "What do they earn?"),
    ("Is it in the box?", "Is it on the box?"),
    ("Who joined the US?", "Who joined us?"),
    ("Translate into French: please.", "Translate into French: thank you."),
    ("Correct this: is the dog here?", "Correct this: is a dog here?"),
    ("How do you say thanks", "How do you say please"),
    ("Correct this: he go to a store", "Correct this: he go to the store"),
    ("What is the plural of dog?", "What is the plural of dogs?"),
    ("How many letters are in dogs?", "How many letters are in dog?"),
    ('Is "a" an article?', 'Is "the" an article?'),
    ("Run this:\nif x:\n  y\nz", "Run this:\nif x:\n  y\n  z"),
    ("Te gusta el pan?", "Te gustas el pan?"),
    ("\u0915\u093f", "\u0915\u0940"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_question_said_differently_agrees(one: str, other: str) -> None:
    assert guard.agree(one, other)
    assert guard.agree(other, one)


@pytest.mark.parametrize(("one", "other"), [*OTHER, *REVERSED, *NARROW])
def test_a_question_that_differs_in_what_matters_does_not(one: str, other: str) -> None:
    assert not guard.agree(one, other)
    assert not guard.agree(other, one)


def test_a_text_of_any_length_is_compared_at_once() -> None:
    long = "What is the plan? " * 100_000
    assert guard.agree(long, long)
    assert not guard.agree(long, long.lower())
