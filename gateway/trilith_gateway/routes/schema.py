"""What the OpenAPI page says of bodies that the pipeline reads itself."""

from __future__ import annotations

from typing import Any, Final

from trilith_gateway import request

_TEXT: Final = {"type": "string"}
_NAME: Final = {"type": "string", "minLength": 1}
_COUNT: Final = {"type": ["integer", "null"], "minimum": 1, "maximum": request.MOST_VALUES}
_FLAG: Final = {"type": ["boolean", "null"]}
_FILLED: Final = {"oneOf": [_NAME, {"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}]}


def _passed_on(what: str) -> dict[str, Any]:
    return {"description": f"{what}; passed on as it is"}


def _object(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    # Unknown fields are allowed on purpose: they go to the upstream as they are.
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": True}


_TURN: Final = _object(["role"], role=_TEXT, content=_passed_on("A text, or a list of parts"))
_GENERATED: Final[dict[str, dict[str, Any]]] = {
    "stream": _FLAG,
    "stream_options": {
        "type": ["object", "null"],
        "properties": {"include_usage": _passed_on("true or false")},
    },
    "max_tokens": _COUNT,
    "n": _COUNT,
    "temperature": _passed_on("A number from 0"),
}
CHAT: Final = _object(
    ["model", "messages"],
    model=_NAME,
    messages={"type": "array", "minItems": 1, "items": _TURN},
    max_completion_tokens=_COUNT,
    **_GENERATED,
)
RESPONSE: Final = _object(
    ["model", "input"], model=_NAME, input=_FILLED, stream=_FLAG, max_output_tokens=_COUNT
)
_WORDS: Final = _object(["type"], type={"const": "text"}, text=_TEXT)
_PICTURE: Final = _object(
    ["type", "source"],
    type={"const": "image"},
    source={
        "oneOf": [
            _object(["type", "media_type", "data"], type={"const": "base64"}, media_type=_TEXT, data=_TEXT),
            _object(["type", "url"], type={"const": "url"}, url=_TEXT),
        ]
    },
)
_BLOCKS: Final = {
    "oneOf": [
        _WORDS,
        _PICTURE,
        _object(
            ["type", "tool_use_id"],
            type={"const": "tool_result"},
            tool_use_id=_TEXT,
            content={"oneOf": [_TEXT, {"type": "array", "items": {"oneOf": [_WORDS, _PICTURE]}}]},
        ),
    ]
}
_SAID_BLOCKS: Final = {
    "oneOf": [
        _WORDS,
        _object(["type", "id", "name"], type={"const": "tool_use"}, id=_TEXT, name=_TEXT),
        _object(["type"], type={"type": "string", "not": {"enum": ["text", "tool_use"]}}),
    ]
}
"""Of what the model said before: thinking and its like is left out of a chat."""
MESSAGE: Final = _object(
    ["model", "messages", "max_tokens"],
    model=_NAME,
    system={"type": ["string", "array", "null"]},
    messages={
        "type": "array",
        "minItems": 1,
        "items": {
            "oneOf": [
                _object(["role", "content"], role={"enum": ["user", "system"]}, content=_TEXT),
                _object(
                    ["role", "content"],
                    role={"enum": ["user", "system"]},
                    content={"type": "array", "items": _BLOCKS},
                ),
                _object(
                    ["role", "content"],
                    role={"const": "assistant"},
                    content={"oneOf": [_TEXT, {"type": "array", "items": _SAID_BLOCKS}]},
                ),
            ]
        },
    },
    max_tokens={"type": "integer", "minimum": 1, "maximum": request.MOST_VALUES},
    stream=_FLAG,
    tools={
        "type": ["array", "null"],
        "items": {"type": "object", "properties": {"type": {"enum": ["custom", None]}}},
    },
)
COUNT: Final = _object(
    ["model", "messages"],
    **{name: field for name, field in MESSAGE["properties"].items() if name not in ("max_tokens", "stream")},
)
COMPLETION: Final = _object(
    ["model", "prompt"],
    model=_NAME,
    prompt=_passed_on("A text, a list of texts, or tokens"),
    best_of=_COUNT,
    **_GENERATED,
)
EMBEDDING: Final = _object(
    ["model", "input"], model=_NAME, input=_FILLED, encoding_format=_passed_on("`float` or `base64`")
)
RERANK: Final = _object(
    ["model", "query", "documents"],
    model=_NAME,
    query={"type": "string", "minLength": 1},
    documents={"type": "array", "minItems": 1, "items": {"oneOf": [_TEXT, {"type": "object"}]}},
    top_n=_COUNT,
    return_documents={"type": "boolean"},
)
MODERATION: Final = _object(
    ["model", "input"],
    model=_NAME,
    input={"oneOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1}]},
)
_IMAGES: Final = {"type": "integer", "minimum": 1, "maximum": 100}
IMAGE: Final = _object(["model", "prompt"], model=_NAME, prompt=_passed_on("A text"), n=_IMAGES, stream=_FLAG)
SPEECH: Final = _object(
    ["model", "input"],
    model=_NAME,
    input={"type": "string", "minLength": 1},
    voice=_passed_on("A voice's name"),
    response_format=_passed_on("`mp3`, `wav` and others"),
)
_BINARY: Final = {"type": "string", "format": "binary"}
IMAGE_FORM: Final = _object(["model", "image"], model=_NAME, image=_BINARY, prompt=_TEXT, n=_IMAGES)
AUDIO_FORM: Final = _object(
    ["model", "file"], model=_NAME, file=_BINARY, language=_TEXT, response_format=_TEXT
)
FILE_FORM: Final = _object(["purpose", "file"], purpose={"enum": ["batch"]}, file=_BINARY)
_ENDPOINT: Final = (
    r"^((/v1)?/(chat/completions|completions|embeddings|responses|moderations|rerank)"
    r"|/v2/rerank|/v2/models/[A-Za-z0-9._-]+/infer)$"
)
BATCH: Final = _object(
    ["input_file_id", "endpoint", "completion_window"],
    input_file_id=_TEXT,
    endpoint={"type": "string", "pattern": _ENDPOINT},
    completion_window={"enum": ["24h"]},
    metadata={
        "type": ["object", "null"],
        "maxProperties": 16,
        "propertyNames": {"maxLength": 64},
        "additionalProperties": {"type": "string", "maxLength": 512},
    },
)
INFERENCE: Final = _object(
    ["inputs"],
    id=_TEXT,
    inputs={
        "type": "array",
        "minItems": 1,
        "items": _object(
            ["name", "shape", "datatype"],
            name=_TEXT,
            shape={"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
            datatype=_TEXT,
            data={"type": "array", "description": "Row by row; absent where the values follow as bytes"},
        ),
    },
)

CHOICES: Final = _object(["choices"], choices={"type": "array"}, usage={"type": ["object", "null"]})
VECTORS: Final = _object(["data"], data={"type": "array"})
SAID: Final = _object(
    ["type", "role", "model", "content", "stop_reason", "usage"],
    type={"const": "message"},
    content={"type": "array"},
    usage=_object(["input_tokens", "output_tokens"]),
)
PREDICTED: Final = _object(["outputs"], model_name=_TEXT, outputs={"type": "array"})
PREDICTIONS: Final = _object(["predictions"], predictions={"type": "array"})
MODEL: Final = _object(
    ["id", "object", "created", "owned_by", "kind"],
    id=_TEXT,
    object={"const": "model"},
    created={"type": "integer"},
    owned_by=_TEXT,
    kind=_TEXT,
    release=_TEXT,
    priced={"type": "boolean"},
)
MODELS: Final = _object(["object", "data"], object={"const": "list"}, data={"type": "array", "items": MODEL})
GIVEN: Final = _object(["id", "request_id"], id=_TEXT, request_id=_TEXT)
SERVER: Final = _object(
    ["name", "version", "extensions"], name=_TEXT, version=_TEXT, extensions={"type": "array", "items": _TEXT}
)
METADATA: Final = _object(["name"], name=_TEXT)
READY: Final = _object(["name", "ready"], name=_TEXT, ready={"type": "boolean"})
INDEX: Final = {
    "type": "array",
    "items": _object(
        ["name", "version", "state", "reason"], name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT
    ),
}
_FORMS: Final[dict[str, dict[str, Any]]] = {
    "dataframe_split": _object(["data"], columns={"type": "array", "items": _TEXT}, data={"type": "array"}),
    "dataframe_records": {"type": "array", "minItems": 1, "items": {"type": "object"}},
    "instances": {"type": "array", "minItems": 1},
    "inputs": {"oneOf": [{"type": "array", "minItems": 1}, {"type": "object"}]},
}
INVOCATION: Final = {
    "type": "object",
    "oneOf": [{"required": [name], "properties": {name: form}} for name, form in _FORMS.items()],
}

_ROW: Final = _object(
    ["id", "repeat", "scores"], id=_TEXT, repeat={"type": "integer", "minimum": 0}, scores={"type": "object"}
)
_SUITE: Final = _object(
    ["name", "target", "task", "data", "digest", "cases", "repeats", "duration_s", "figures", "rows"],
    name=_NAME,
    target=_TEXT,
    task=_TEXT,
    data=_TEXT,
    digest=_TEXT,
    cases={"type": "integer", "minimum": 0},
    repeats={"type": "integer", "minimum": 0},
    duration_s={"type": "number", "minimum": 0},
    figures={"type": "array", "items": {"type": "object"}},
    rows={"type": "array", "items": _ROW},
)
EVAL_RUN: Final = _object(
    ["started", "duration_s", "suites"],
    started={"type": "string", "format": "date-time"},
    duration_s={"type": "number", "minimum": 0},
    content=_FLAG,
    suites={"type": "array", "minItems": 1, "items": _SUITE},
)
KEPT_RUN: Final = _object(
    ["id", "object", "created_at", "outcome", "suites", "new"],
    id=_TEXT,
    object={"const": "eval.run"},
    created_at={"type": "integer"},
    outcome=_TEXT,
    suites={"type": "array"},
    new={"type": "boolean"},
)
EVAL_COMPARISON: Final = _object(
    ["object", "baseline", "candidate", "outcome", "lines"],
    object={"const": "eval.comparison"},
    baseline=_TEXT,
    candidate=_TEXT,
    outcome={"enum": ["pass", "fail", "no evidence", "could not run"]},
    lines={"type": "array", "items": {"type": "object"}},
)
EVAL_FINDING: Final = _object(
    ["monitor", "kind", "source", "subject", "start", "end"],
    monitor=_NAME,
    kind={"enum": ["quiet", "notice", "alarm", "open", "closed", "no evidence"]},
    source=_NAME,
    subject=_NAME,
    start={"type": "number"},
    end={"type": "number"},
)
KEPT_FINDINGS: Final = _object(
    ["object", "received", "new"],
    object={"const": "eval.findings"},
    received={"type": "integer"},
    new={"type": "integer"},
)
