from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trilith_governance as governance
from trilith.errors import InternalServerError, PermissionDeniedError
from trilith.settings.policy import PiiSettings, PolicySettings
from trilith.testing import PatternScanner
from trilith.types import Verdict
from trilith_governance import ChatStreamRestorer, Protection, Protector, StreamRestorer

ADA = "Ada Lovelace"
MAIL = "ada@example.org"


def protection(**settings: object) -> Protection:
    return Protection(PatternScanner([ADA, "Bo Diddley"]), PiiSettings.model_validate(settings))


class TestMasking:
    def test_the_same_value_gets_the_same_placeholder_and_another_the_next_number(self) -> None:
        shield = protection()
        assert shield.mask(f"{MAIL} bo@example.org {MAIL.upper()}") == (
            "<EMAIL_ADDRESS_1> <EMAIL_ADDRESS_2> <EMAIL_ADDRESS_1>"
        )
        assert shield.counts == {"EMAIL_ADDRESS": 2}

    def test_numbering_goes_on_in_the_next_text(self) -> None:
        shield = protection()
        shield.mask(ADA)
        assert shield.mask(f"Bo Diddley and {ADA}") == "<PERSON_2> and <PERSON_1>"

    def test_masking_then_restoring_gives_the_text_back(self) -> None:
        shield, text = protection(), f"{ADA} <{MAIL}> 4111 1111 1111 1111"
        masked = shield.mask(text)
        assert "4111" not in masked
        assert shield.restore(masked) == text

    def test_a_placeholder_that_the_caller_wrote_is_neither_given_out_nor_restored(self) -> None:
        shield = protection()
        masked = shield.mask(f"what does <PERSON_1> mean, {ADA}?")
        assert masked == "what does <PERSON_1> mean, <PERSON_2>?"
        assert shield.restore(masked) == f"what does <PERSON_1> mean, {ADA}?"

    def test_known_values_are_replaced_without_searching(self) -> None:
        shield = protection()
        shield.mask(ADA)
        assert shield.mask_known(f"{ADA.lower()} met Bo Diddley") == "<PERSON_1> met Bo Diddley"

    def test_a_model_that_changes_case_still_gets_restored(self) -> None:
        shield = protection()
        shield.mask(ADA)
        assert shield.restore("dear <person_1>") == f"dear {ADA}"

    @given(st.text())
    def test_any_text_survives_masking_and_restoring(self, text: str) -> None:
        shield = protection()
        assert shield.restore(shield.mask(f"{text} {MAIL} {text}")) == f"{text} {MAIL} {text}"


class TestPolicy:
    def test_blocking_refuses_and_names_kinds_not_values(self) -> None:
        shield = protection(action="block")
        with pytest.raises(PermissionDeniedError) as caught:
            shield.mask(f"write to {MAIL}")
        assert caught.value.code == "content_blocked"
        assert "EMAIL_ADDRESS" in str(caught.value)
        assert MAIL not in str(caught.value)
        assert (shield.verdict, shield.counts) == (Verdict.BLOCK, {"EMAIL_ADDRESS": 1})

    def test_one_kind_can_block_where_others_are_masked(self) -> None:
        shield = protection(block_entities=["CREDIT_CARD"])
        assert shield.mask(MAIL) == "<EMAIL_ADDRESS_1>"
        with pytest.raises(PermissionDeniedError):
            shield.mask("4111 1111 1111 1111")

    def test_a_failing_detector_lets_nothing_pass_by_default(self) -> None:
        shield = Protection(PatternScanner(fail_with=MemoryError()), PiiSettings())
        with pytest.raises(InternalServerError) as caught:
            shield.mask("anything")
        assert (caught.value.status_code, shield.verdict) == (503, Verdict.ERROR)

    def test_a_policy_may_be_open_on_errors_and_that_is_recorded(self) -> None:
        shield = Protection(PatternScanner(fail_with=MemoryError()), PiiSettings(on_error="open"))
        assert shield.mask("anything") == "anything"
        assert shield.verdict is Verdict.ERROR

    def test_no_policy_or_one_that_allows_everything_needs_no_protection(self) -> None:
        allow = PolicySettings(pii=PiiSettings(action="allow"))
        protector = Protector({"open": allow, "private": PolicySettings()}, PatternScanner())
        assert protector.protect(None) is None
        assert protector.protect("open") is None
        assert protector.protect("private") is not None


class TestStream:
    ORIGINALS = {"<PERSON_1>": ADA, "<PERSON_12>": "Bo", "<EMAIL_ADDRESS_1>": MAIL}
    TEXT = "Dear <PERSON_1>, a < b, <PERSON_12> <person_1> <PERSON_3> <<EMAIL_ADDRESS_1>> <EMAIL"

    @given(st.lists(st.integers(0, len(TEXT)), max_size=40))
    def test_any_cutting_gives_the_same_text(self, cuts: list[int]) -> None:
        restorer = StreamRestorer(self.ORIGINALS)
        marks = [0, *sorted(cuts), len(self.TEXT)]
        parts = [restorer.feed(self.TEXT[a:b]) for a, b in zip(marks, marks[1:], strict=False)]
        expected = f"Dear {ADA}, a < b, Bo {ADA} <PERSON_3> <{MAIL}> <EMAIL"
        assert "".join(parts) + restorer.flush() == expected

    def test_text_without_a_bracket_is_never_held_back(self) -> None:
        restorer = StreamRestorer(self.ORIGINALS)
        assert [restorer.feed(c) for c in "hello"] == list("hello")

    def test_a_bracket_that_begins_no_placeholder_is_let_go_at_once(self) -> None:
        assert StreamRestorer(self.ORIGINALS).feed("a <b") == "a <b"


class TestBodies:
    BODY = {
        "model": "m",
        "user": MAIL,
        "messages": [
            {"role": "system", "content": f"You serve {ADA}."},
            {"role": "user", "content": [{"type": "text", "text": MAIL}, {"type": "image_url"}]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "1", "function": {"name": "send", "arguments": json.dumps({"to": [MAIL], "n": 1})}}
            ]},
            {"role": "tool", "tool_call_id": "1", "content": f"sent to {MAIL}"},
        ],
    }  # fmt: skip

    def test_every_text_of_a_chat_is_masked_and_the_input_is_left_alone(self) -> None:
        before = json.dumps(self.BODY)
        masked = governance.mask_chat(self.BODY, protection())
        assert ADA not in json.dumps(masked)
        assert MAIL not in json.dumps(masked)
        assert json.dumps(self.BODY) == before
        arguments = masked["messages"][2]["tool_calls"][0]["function"]["arguments"]
        assert json.loads(arguments) == {"to": ["<EMAIL_ADDRESS_1>"], "n": 1}

    def test_an_answer_is_restored_with_its_tool_calls_as_valid_json(self) -> None:
        quoted = 'Bo "B" Diddley'
        shield = Protection(PatternScanner([quoted]), PiiSettings())
        shield.mask(quoted)
        call = {"function": {"name": "f", "arguments": '{"name": "<PERSON_1>"}'}}
        body = {"choices": [{"message": {"content": "<PERSON_1>!", "tool_calls": [call]}}]}
        message = governance.restore_chat(body, shield)["choices"][0]["message"]
        assert message["content"] == f"{quoted}!"
        assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"name": quoted}

    def test_held_text_comes_out_with_the_finish_reason(self) -> None:
        shield = protection()
        shield.mask(ADA)
        restorer = ChatStreamRestorer(shield)
        chunks = [
            {"choices": [{"index": 0, "delta": {"content": "hi <PER"}, "finish_reason": None}]},
            {"choices": [{"index": 1, "delta": {"content": "<PERSON_1>"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
        texts = [c["choices"][0]["delta"].get("content") for chunk in chunks for c in restorer.feed(chunk)]
        assert texts == ["hi ", ADA, "<PER"]

    def test_a_streamed_tool_call_s_arguments_stay_valid_json(self) -> None:
        quoted = 'Bo "B" Diddley'
        shield = Protection(PatternScanner([quoted]), PiiSettings())
        shield.mask(quoted)
        restorer, parts = ChatStreamRestorer(shield), []
        for piece in ('{"n": "<PERS', 'ON_1>"}'):
            delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            (out,) = restorer.feed({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            parts.append(out["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"])
        assert json.loads("".join(parts)) == {"n": quoted}

    def test_features_are_checked_and_never_changed(self) -> None:
        request = {"inputs": [{"name": "note", "datatype": "BYTES", "shape": [1], "data": [MAIL]}]}
        governance.check_tabular(request, protection())
        with pytest.raises(PermissionDeniedError):
            governance.check_tabular(request, protection(action="block"))
