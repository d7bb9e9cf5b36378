"""What the OpenAPI page says of bodies that the pipeline reads itself."""

from __future__ import annotations

from typing import Any, Final

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 1}


def _object(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    # Unknown fields are allowed on purpose: they go to the upstream as they are.
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": True}


CHAT: Final = _object(
    ["model", "messages"],
    model=_TEXT,
    messages={
        "type": "array",
        "minItems": 1,
        "items": _object(
            ["role"], role=_TEXT, content={"oneOf": [_TEXT, {"type": "array"}, {"type": "null"}]}
        ),
    },
    stream={"type": "boolean"},
    stream_options=_object([], include_usage={"type": "boolean"}),
    max_tokens=_COUNT,
    max_completion_tokens=_COUNT,
    temperature={"type": "number", "minimum": 0},
    n=_COUNT,
)
RESPONSE: Final = _object(
    ["model", "input"],
    model=_TEXT,
    input={"oneOf": [_TEXT, {"type": "array", "minItems": 1}]},
    stream={"type": "boolean"},
    max_output_tokens=_COUNT,
)
MESSAGE: Final = _object(
    ["model", "messages", "max_tokens"],
    model=_TEXT,
    system={"oneOf": [_TEXT, {"type": "array"}]},
    messages={
        "type": "array",
        "minItems": 1,
        "items": _object(
            ["role", "content"],
            role={"enum": ["user", "assistant"]},
            content={"oneOf": [_TEXT, {"type": "array"}]},
        ),
    },
    max_tokens=_COUNT,
    stream={"type": "boolean"},
    tools={"type": "array"},
)
COUNT: Final = MESSAGE | {"required": ["model", "messages"]}
COMPLETION: Final = _object(
    ["model", "prompt"],
    model=_TEXT,
    prompt={"oneOf": [_TEXT, {"type": "array"}]},
    stream={"type": "boolean"},
    max_tokens=_COUNT,
    n=_COUNT,
)
EMBEDDING: Final = _object(
    ["model", "input"],
    model=_TEXT,
    input={"oneOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
    encoding_format={"enum": ["float", "base64"]},
)
RERANK: Final = _object(
    ["model", "query", "documents"],
    model=_TEXT,
    query={"type": "string", "minLength": 1},
    documents={"type": "array", "minItems": 1, "items": {"oneOf": [_TEXT, {"type": "object"}]}},
    top_n=_COUNT,
    return_documents={"type": "boolean"},
)
MODERATION: Final = _object(
    ["model", "input"],
    model=_TEXT,
    input={"oneOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1}]},
)
IMAGE: Final = _object(
    ["model", "prompt"], model=_TEXT, prompt=_TEXT, n={"type": "integer", "minimum": 1, "maximum": 100}
)
SPEECH: Final = _object(
    ["model", "input"],
    model=_TEXT,
    input={"type": "string", "minLength": 1},
    voice=_TEXT,
    response_format=_TEXT,
)
_BINARY: Final = {"type": "string", "format": "binary"}
IMAGE_FORM: Final = _object(["model", "image"], model=_TEXT, image=_BINARY, prompt=_TEXT, n=_COUNT)
AUDIO_FORM: Final = _object(
    ["model", "file"], model=_TEXT, file=_BINARY, language=_TEXT, response_format=_TEXT
)
FILE_FORM: Final = _object(["purpose", "file"], purpose={"enum": ["batch"]}, file=_BINARY)
BATCH: Final = _object(
    ["input_file_id", "endpoint", "completion_window"],
    input_file_id=_TEXT,
    endpoint=_TEXT,
    completion_window={"enum": ["24h"]},
    metadata={"oneOf": [{"type": "object", "additionalProperties": _TEXT}, {"type": "null"}]},
)
INFERENCE: Final = _object(
    ["inputs"],
    id=_TEXT,
    inputs={
        "type": "array",
        "minItems": 1,
        "items": _object(
            ["name", "shape", "datatype", "data"],
            name=_TEXT,
            shape={"type": "array", "items": {"type": "integer"}},
            datatype=_TEXT,
            data={"type": "array"},
        ),
    },
)


def operation(body: dict[str, Any], *, form: bool = False) -> dict[str, Any]:
    """Return what a POST with this body, JSON or a form, adds to its OpenAPI operation."""
    content_type = "multipart/form-data" if form else "application/json"
    return {
        "requestBody": {"required": True, "content": {content_type: {"schema": body}}},
        "security": [{"key": []}],
        "responses": {
            "200": {"description": "The answer"},
            "4XX": {"description": "Refused; the body says why and what to do"},
            "5XX": {"description": "The gateway or its upstream failed"},
        },
    }
