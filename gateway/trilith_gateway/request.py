"""Reads request bodies: only those fields that the gateway itself relies on; unknown ones are passed on.

Bodies go upstream as the caller wrote them, byte for byte, but for the few fields that must differ: those are
replaced in place (`splice`). So nothing is lost that a newer client sends and an older gateway does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from json import JSONDecodeError, JSONDecoder
from typing import Any, NoReturn, TypeVar

import orjson

from trilith.errors import BadRequestError, NotFoundError
from trilith_classical.serving import wire

MOST_VALUES = 10_000_000
MOST_DEPTH = 250
"""Deepest nesting of a body: it is written again in places, and orjson writes 254 levels at most."""


def decode(raw: bytes) -> dict[str, Any]:
    """Return the body's JSON object.

    Raises:
        BadRequestError: not a JSON object in UTF-8.
    """
    try:
        body = orjson.loads(raw)
    except JSONDecodeError as error:
        # The parser's own message quotes nothing of the text but the position.
        where = f"{error.msg.partition(': line')[0]} at line {error.lineno}, column {error.colno}"
        refuse(f"The body is not valid JSON: {where}.", None)
    if type(body) is not dict:
        refuse(f"The body is a JSON {type(body).__name__}, expected an object.", None)
    if raw.count(b"[") + raw.count(b"{") > MOST_DEPTH:  # only then can it be too deep
        try:
            orjson.dumps([[[[body]]]])
        except orjson.JSONEncodeError:
            refuse(f"The body is nested more than {MOST_DEPTH} levels deep.", None)
    return body


def check_model(body: dict[str, Any]) -> None:
    """Check that a model is named."""
    name = body.get("model")
    if type(name) is not str or not name:
        refuse(f"`model` is {_show(name)}, expected a model's name.", "model")


def check_messages(body: dict[str, Any]) -> None:
    """Check a chat's messages."""
    messages = body.get("messages")
    if type(messages) is not list or not messages:
        refuse("`messages` is missing or empty, expected a list of messages.", "messages")
    for at, message in enumerate(messages):
        if type(message) is not dict or type(message.get("role")) is not str:
            refuse(f"`messages[{at}]` is not an object with a `role`.", f"messages[{at}]")


_TEXTS = frozenset(
    {
        "text",
        "input_text",
        "output_text",
        "summary_text",
        "refusal",
        "thinking",
        "redacted_thinking",
        "tool_use",
    }
)


_REFERRING = frozenset({"messages", "input", "prompt", "previous_response_id", "conversation", "container"})


def references(body: dict[str, Any]) -> tuple[int, bool]:
    """Say what a request that is to be answered in words refers to, beyond its own words.

    Returns:
        How many pictures, sounds and files there are in it or named by it, and whether it goes on with
        something that the upstream keeps.
    """
    parts, stored = 0, False
    for name in _REFERRING & body.keys():
        value = body[name]
        if name == "messages" or name == "input":
            if type(value) is list:
                parts += _parts(value)
        elif type(value) is dict if name == "prompt" else value is not None:
            stored = True
    return parts, stored


def _parts(listed: list[Any]) -> int:
    count = 0
    for item in listed:
        if type(item) is not dict:
            continue
        content = item.get("content")
        if type(content) is str and len(item) == 2 and "role" in item:  # as nearly all
            continue
        count += "audio" in item or item.get("type") == "item_reference"
        if content is None:
            content = item.get("output")
        if type(content) is not list:
            continue
        for part in content:
            if type(part) is not dict or (kind := part.get("type")) in _TEXTS:
                continue
            count += _parts([part]) if kind == "tool_result" else 1
    return count


_HOSTED = (
    "web_",
    "file_search",
    "code_",
    "mcp",
    "image_generation",
    "x_search",
    "tool_search",
    "url_context",
)
_MOST_USES = 10
"""More than a provider uses a tool of its own for one answer, where the request does not say how often."""


def hosted(body: dict[str, Any]) -> tuple[int, int]:
    """Say how often a provider may use tools of its own for a request, and how often of these search the web.

    What the caller runs itself (functions, and Anthropic's shells, editors and computers) is none of them.
    """
    used = searches = _MOST_USES if "web_search_options" in body else 0
    tools = body.get("tools")
    for tool in tools if type(tools) is list else ():
        kind = tool.get("type") if type(tool) is dict else None
        if type(kind) is not str or not kind.startswith(_HOSTED):
            continue
        most = tool.get("max_uses")
        most = most if type(most) is int and 0 < most <= MOST_VALUES else _MOST_USES
        used += most
        searches += most if kind.startswith("web_search") else 0
    return used, searches


def check_prompt(body: dict[str, Any]) -> None:
    """Check that there is a prompt."""
    if "prompt" not in body:
        refuse("`prompt` is missing, expected a text or a list of texts.", "prompt")


def check_input(body: dict[str, Any]) -> None:
    """Check that there is something to embed."""
    if not body.get("input"):
        refuse("`input` is missing or empty, expected a text or a list of texts.", "input")


def check_answer_limit(body: dict[str, Any]) -> None:
    """Check that the answer's length is bounded, as Anthropic's protocol demands."""
    if body.get("max_tokens") is None:
        refuse("`max_tokens` is missing, expected a whole number of at least 1.", "max_tokens")


def check_present(body: dict[str, Any]) -> None:
    """Check that a response is to be given now: of one that is made later, no charge would be known."""
    if body.get("background") is True:
        refuse("`background` is not offered here; leave it out, and stream what takes long.", "background")


def check_documents(body: dict[str, Any]) -> None:
    """Check that there are a query and documents to rank."""
    if type(body.get("query")) is not str or not body["query"]:
        refuse("`query` is missing or empty, expected a text.", "query")
    documents = body.get("documents")
    if type(documents) is not list or not documents:
        refuse("`documents` is missing or empty, expected a list of texts.", "documents")


def check_generation(body: dict[str, Any]) -> None:
    """Check what bounds the answer, and how it is to be sent."""
    for name in _COUNTS & body.keys():
        value = body[name]
        if type(value) is float and value.is_integer():  # 8.0 is a whole number to JSON
            body[name] = value = int(value)
        if value is not None and (type(value) is not int or not 1 <= value <= MOST_VALUES):
            refuse(f"`{name}` is {_show(value)}, expected a whole number of at least 1.", name)
    if (stream := body.get("stream")) is not None and type(stream) is not bool:
        refuse(f"`stream` is {_show(stream)}, expected true or false.", "stream")
    if (options := body.get("stream_options")) is not None and type(options) is not dict:
        refuse("`stream_options` is not an object.", "stream_options")


_COUNTS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"})


def check_tensors(body: dict[str, Any]) -> None:
    """Check an inference request's tensors, as far as rows are counted from them."""
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(i, dict) for i in inputs):
        refuse("`inputs` is missing or empty, expected a list of tensors.", "inputs")
    shape = inputs[0].get("shape")
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n >= 0 for n in shape):
        refuse(f"`inputs[0].shape` is {_show(shape)}, expected a list of whole numbers.", "inputs[0].shape")
    if wire.count(shape) is None:
        refuse(
            f"`inputs[0].shape` comes to more than {wire.MOST_VALUES:,} values"
            f" or {wire.MOST_DIMENSIONS} dimensions.",
            "inputs[0].shape",
        )


def rows(body: dict[str, Any]) -> int:
    """Return how many rows an inference request holds: the first dimension of its first input."""
    return int(body["inputs"][0]["shape"][0])


def splice(raw: bytes, body: Mapping[str, Any], changes: Mapping[str, object]) -> bytes:
    """Return `raw` with the top-level fields of `changes` replaced or added; all other bytes stay.

    Args:
        raw: A JSON object that `decode` has accepted.
        body: That object, decoded.
        changes: New values by field name.

    Raises:
        BadRequestError: a field that must be changed is named twice; which of them counts is anyone's guess.
    """
    added: list[bytes] = []
    cuts: list[tuple[int, int, bytes]] = []
    found: dict[str, tuple[int, int]] | None = None
    for name, value in changes.items():
        written = orjson.dumps(value)
        if name not in body:
            added.append(orjson.dumps(name) + b":" + written)
        elif (place := _simple_place(raw, name, body[name])) is not None:
            cuts.append((*place, written))
        else:
            found = spans(raw) if found is None else found
            cuts.append((*found[name], written))
    if cuts:
        cuts.sort()
        parts: list[bytes] = []
        at = 0
        for start, end, written in cuts:
            parts += (raw[at:start], written)
            at = end
        parts.append(raw[at:])
        raw = b"".join(parts)
    if added:
        end = raw.rindex(b"}")
        head = raw[:end].rstrip()
        raw = b"%b%b%b}" % (head, b"" if head.endswith(b"{") else b",", b",".join(added))
    return raw


def _simple_place(raw: bytes, name: str, value: object) -> tuple[int, int] | None:
    """Find the value of a field that is a plain string and whose quoted name stands in the text only once.

    The decoded object has the field, so that one place is the field itself, unless it is spelled with escapes
    or the text stands within another string; then what follows it is not this value.
    """
    if type(value) is not str:
        return None
    quoted = orjson.dumps(name)
    at = raw.find(quoted)
    if at < 0 or raw.find(quoted, at + 1) >= 0:
        return None
    match = _STRING_AFTER.match(raw, at + len(quoted))
    if match is None or match[1] != b'"%b"' % value.encode():
        return None
    return match.span(1)


_STRING_AFTER = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("[^"\\]*")')
_SPACE = re.compile(r"[ \t\r\n]*")
_COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")
_scan = JSONDecoder(parse_int=str, parse_float=str).raw_decode
"""Reads one value and says where it ends. Numbers stay texts: nobody looks at them."""


def spans(raw: bytes) -> dict[str, tuple[int, int]]:
    """Return where each top-level field's value stands in a valid JSON object.

    Raises:
        BadRequestError: a field is named twice.
    """
    text = raw.decode("latin-1")  # a character for each byte; what is not ASCII stands within strings
    found: dict[str, tuple[int, int]] = {}
    at = _past(_SPACE, text, text.index("{") + 1)
    while text[at] != "}":
        begins = at
        _, at = _scan(text, begins)
        name = str(orjson.loads(raw[begins:at]))
        if name in found:
            refuse(f"The body names {name!r} twice.", name)
        start = _past(_COLON, text, at)
        _, end = _scan(text, start)
        found[name] = (start, end)
        at = _past(_COMMA, text, end)
    return found


def _past(what: re.Pattern[str], text: str, at: int) -> int:
    match = what.match(text, at)
    return at if match is None else match.end()


Listed = TypeVar("Listed")


def page_end(find: Callable[[str], Listed], after: str) -> Listed:
    """Return the last one of the page before, which a caller names as `after`.

    Raises:
        BadRequestError: there is none of that id.
    """
    try:
        return find(after)
    except NotFoundError:
        refuse(f"`after` is {after[:80]!r}, which is not in the list.", "after")


def _show(value: object) -> str:
    return "missing" if value is None else repr(value)[:80]


def refuse(message: str, param: str | None) -> NoReturn:
    """Raise the error for a request that cannot be understood."""
    raise BadRequestError(message, status_code=400, param=param, type="invalid_request_error")
