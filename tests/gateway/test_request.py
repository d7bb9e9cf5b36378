"""Bodies are read as far as needed, and changed in place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilith.errors import BadRequestError
from trilith_gateway import request

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
names = st.sampled_from(["model", "stream_options", "max_tokens", "messages", 'a"b', "ü", "\\"])
bodies = st.dictionaries(names | st.text(max_size=4), values, max_size=6)


@given(bodies, st.dictionaries(names, values, max_size=3), st.sampled_from([None, 1]))
def test_a_splice_changes_what_it_should_and_nothing_else(
    body: dict[str, Any], changes: dict[str, Any], indent: int | None
) -> None:
    raw = json.dumps(body, indent=indent).encode()
    done = request.splice(raw, request.decode(raw), changes)
    assert json.loads(done) == {**body, **changes}


@given(st.text(), st.text())
def test_a_text_that_looks_like_the_field_is_not_taken_for_it(text: str, name: str) -> None:
    body = {"messages": [{"model": name, "content": f'"model":"{text}"'}], "model": name, "x": '"model'}
    raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    done = request.splice(raw, request.decode(raw), {"model": "new"})
    assert json.loads(done) == {**body, "model": "new"}


def test_bytes_that_need_not_change_stay_as_they_are() -> None:
    raw = b'{ "big": 12345678901234567890, "f": 1.10, "model" : "a", "e": "\\u00e9" }'
    done = request.splice(raw, request.decode(raw), {"model": "b"})
    assert done == b'{ "big": 12345678901234567890, "f": 1.10, "model" : "b", "e": "\\u00e9" }'


def test_a_field_is_found_behind_texts_of_any_script_and_long_numbers() -> None:
    raw = b'{"x":{"model":[1%b,-0.0e5]},"\xc3\xa9\\"":"\xf0\x9f\x98\x80\xc2\x85\xe2\x80\xa8", "model" :"a"}'
    raw %= b"0" * 300
    done = request.splice(raw, request.decode(raw), {"model": "b"})
    assert done == raw.replace(b':"a"', b':"b"')


@pytest.mark.parametrize("raw", [b'{"model":"a","model":"b"}', b'{"model":"a","mod\\u0065l":"b"}'])
def test_a_field_that_must_change_and_is_named_twice_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError, match="twice"):
        request.splice(raw, request.decode(raw), {"model": "c"})


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'"\xff"', "not valid JSON"),
        (b"[" * 2000 + b"]" * 2000, "not valid JSON"),
        (b"[1]", "list, expected an object"),
    ],
)
def test_what_is_not_an_object_is_refused_without_being_quoted(raw: bytes, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        request.decode(raw)
