from __future__ import annotations

import subprocess
import sys

import pytest

from trilith.seams import Scanner
from trilith.testing import PatternScanner
from trilith_governance.pattern import luhn
from trilith_governance.presidio import PresidioScanner

ENTITIES = ("PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD")

pytestmark = [
    # spaCy's and Presidio's own dependencies warn on import; nothing of ours can change that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def presidio() -> PresidioScanner:
    scanner = PresidioScanner()
    scanner.warm()
    return scanner


def seen(scanner: Scanner, text: str) -> list[tuple[str, str]]:
    return [(finding.entity, text[finding.start : finding.end]) for finding in scanner.scan(text, ENTITIES)]


@pytest.fixture(params=["presidio", "twin"])
def scanner(request: pytest.FixtureRequest) -> Scanner:
    if request.param == "twin":
        return PatternScanner(["Ada Lovelace"])
    real: PresidioScanner = request.getfixturevalue("presidio")
    return real


class TestContract:
    """What every scanner does."""

    def test_names_addresses_and_cards_are_found_in_order(self, scanner: Scanner) -> None:
        text = "Please tell Ada Lovelace (ada@example.org) that card 4111 1111 1111 1111 was charged."
        assert seen(scanner, text) == [
            ("PERSON", "Ada Lovelace"),
            ("EMAIL_ADDRESS", "ada@example.org"),
            ("CREDIT_CARD", "4111 1111 1111 1111"),
        ]

    def test_only_the_kinds_that_were_asked_for_are_found(self, scanner: Scanner) -> None:
        found = scanner.scan("Ada Lovelace, ada@example.org", ["EMAIL_ADDRESS"])
        assert [finding.entity for finding in found] == ["EMAIL_ADDRESS"]

    def test_a_text_without_personal_data_has_no_findings(self, scanner: Scanner) -> None:
        assert seen(scanner, "What is the capital of France?") == []
        assert seen(scanner, "") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call +1 (212) 555-0199 today", "+1 (212) 555-0199"),
        ("call 030 1234 5678 today", "030 1234 5678"),
        ("call (415) 555 2671 ext. 12 today", "(415) 555 2671 ext. 12"),
        ("call +4930123456789 today", "+4930123456789"),
    ],
)
def test_phone_numbers_are_found_whole(presidio: PresidioScanner, text: str, expected: str) -> None:
    assert ("PHONE_NUMBER", expected) in seen(presidio, text)


@pytest.mark.parametrize(
    "text", ["on 2024-01-05 at 12:30", "order 1234-5678", "it costs $1 200 300", "ip 192.168.1.10"]
)
def test_dates_orders_amounts_and_addresses_of_machines_are_not_phone_numbers(
    presidio: PresidioScanner, text: str
) -> None:
    assert seen(presidio, text) == []


def test_a_possessive_is_not_part_of_the_name(presidio: PresidioScanner) -> None:
    assert seen(presidio, "We read Ada Lovelace's notes.") == [("PERSON", "Ada Lovelace")]


def test_a_placeholder_is_not_personal_data(presidio: PresidioScanner) -> None:
    assert seen(presidio, "Dear <PERSON_1>, <EMAIL_ADDRESS_1> is on file.") == []


def test_a_number_that_fails_its_check_is_not_a_card() -> None:
    assert luhn("4111 1111 1111 1111")
    assert not luhn("4111 1111 1111 1112")
    assert not luhn("0000 0000 0000 0000")


def test_importing_governance_loads_no_language_model() -> None:
    heavy = ("presidio_analyzer", "spacy", "torch")
    script = f"import sys, trilith_governance; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
