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


def operation(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a POST with this JSON body adds to its OpenAPI operation."""
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "security": [{"key": []}],
        "responses": {
            "200": {"description": "The answer"},
            "4XX": {"description": "Refused; the body says why and what to do"},
            "5XX": {"description": "The gateway or its upstream failed"},
        },
    }
