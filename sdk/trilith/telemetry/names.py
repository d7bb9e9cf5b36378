"""Names of spans and attributes, and which attributes each span carries.

`gen_ai.*` follows the OpenTelemetry GenAI semantic conventions (repository
semantic-conventions-genai, v0.1.0, stability "Development"); what they do not cover is `trilith.*`.
The Python constants package marks all of these deprecated, so they are kept here, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# Envelope: may stand on every span.
TENANT: Final = "trilith.tenant"
KEY_ID: Final = "trilith.key_id"
REQUEST_ID: Final = "trilith.request_id"
RELEASE_NAME: Final = "trilith.release.name"
RELEASE_VERSION: Final = "trilith.release.version"
RELEASE_KIND: Final = "trilith.release.kind"
ERROR_TYPE: Final = "error.type"
DECISIONS: Final = "trilith.decisions"
"""Why a request went where it did: routes, retries, fallbacks, steps of a cascade."""

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
DATA_SOURCE_ID: Final = "gen_ai.data_source.id"
RETRIEVAL_TOP_K: Final = "gen_ai.retrieval.top_k"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_SCORE: Final = "gen_ai.evaluation.score.value"
EVALUATION_LABEL: Final = "gen_ai.evaluation.score.label"
EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"
EVALUATION_EVENT: Final = "gen_ai.evaluation.result"
"""Name of the event that says how good an answer was; it stands on the answer's span."""
CONVERSATION_ID: Final = "gen_ai.conversation.id"

SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_STATUS: Final = "http.response.status_code"
DB_SYSTEM: Final = "db.system.name"
DB_COLLECTION: Final = "db.collection.name"

COST_PICO_USD: Final = "trilith.cost.pico_usd"
COST_RULE: Final = "trilith.cost.rule"
ATTEMPT_INDEX: Final = "trilith.attempt.index"
ATTEMPT_OUTCOME: Final = "trilith.attempt.outcome"
RETRIEVAL_MODE: Final = "trilith.retrieval.mode"
RETRIEVAL_RETURNED: Final = "trilith.retrieval.returned"
RETRIEVAL_SCORE_MAX: Final = "trilith.retrieval.score.max"
GUARDRAIL_NAME: Final = "trilith.guardrail.name"
GUARDRAIL_STAGE: Final = "trilith.guardrail.stage"
GUARDRAIL_VERDICT: Final = "trilith.guardrail.verdict"
GUARDRAIL_ENTITY_TYPES: Final = "trilith.guardrail.entity_types"
GUARDRAIL_ENTITY_COUNT: Final = "trilith.guardrail.entity_count"
OPERATION_TRILITH: Final = "trilith.operation"
MODEL_NAME: Final = "trilith.model.name"
MODEL_VERSION: Final = "trilith.model.version"
MODEL_FRAMEWORK: Final = "trilith.model.framework"
BATCH_ROWS: Final = "trilith.batch.rows"
BATCH_SIZE: Final = "trilith.batch.size"
EVAL_SUITE: Final = "trilith.eval.suite"
EVAL_CASE_ID: Final = "trilith.eval.case_id"
CODE_FUNCTION: Final = "code.function.name"

ENVELOPE: Final = frozenset(
    {TENANT, KEY_ID, REQUEST_ID, RELEASE_NAME, RELEASE_VERSION, RELEASE_KIND, ERROR_TYPE, DECISIONS}
)
CONTENT: Final = frozenset({INPUT_MESSAGES, OUTPUT_MESSAGES})
"""Attributes that hold a caller's text; recorded only when `telemetry.content` is on."""


@dataclass(frozen=True, slots=True)
class SpanShape:
    """What one kind of span is called and which attributes it carries."""

    operation: str
    """First word of the span's name; the rest is the model, the data source or the like."""
    required: frozenset[str]
    optional: frozenset[str] = field(default_factory=frozenset)


_USAGE = frozenset({INPUT_TOKENS, OUTPUT_TOKENS, CACHE_READ_TOKENS, REASONING_TOKENS})
_COST = frozenset({COST_PICO_USD, COST_RULE})
_INFERENCE = frozenset({OPERATION, PROVIDER, REQUEST_MODEL})
_REQUEST = frozenset({REQUEST_MAX_TOKENS, REQUEST_TEMPERATURE, REQUEST_TOP_P, REQUEST_SEED, REQUEST_STREAM})
_RESPONSE = frozenset({RESPONSE_ID, RESPONSE_MODEL, FINISH_REASONS, TIME_TO_FIRST_CHUNK, HTTP_STATUS})
_ADDRESS = frozenset({SERVER_ADDRESS, SERVER_PORT})

SHAPES: Final[dict[str, SpanShape]] = {
    shape.operation: shape
    for shape in (
        SpanShape("chat", _INFERENCE, _REQUEST | _RESPONSE | _ADDRESS | _USAGE | _COST | CONTENT),
        SpanShape("text_completion", _INFERENCE, _REQUEST | _RESPONSE | _ADDRESS | _USAGE | _COST | CONTENT),
        SpanShape(
            "attempt",
            frozenset({REQUEST_MODEL, ATTEMPT_INDEX}),
            _ADDRESS | {HTTP_STATUS, ATTEMPT_OUTCOME, PROVIDER, TIME_TO_FIRST_CHUNK},
        ),
        SpanShape(
            "embeddings", _INFERENCE, _ADDRESS | _USAGE | _COST | {BATCH_SIZE, RESPONSE_MODEL, HTTP_STATUS}
        ),
        SpanShape(
            "retrieval",
            frozenset({OPERATION, DATA_SOURCE_ID}),
            frozenset(
                {
                    RETRIEVAL_TOP_K,
                    DB_SYSTEM,
                    DB_COLLECTION,
                    RETRIEVAL_MODE,
                    RETRIEVAL_RETURNED,
                    RETRIEVAL_SCORE_MAX,
                }
            ),
        ),
        SpanShape(
            "guardrail",
            frozenset({GUARDRAIL_NAME, GUARDRAIL_STAGE, GUARDRAIL_VERDICT}),
            frozenset({GUARDRAIL_ENTITY_TYPES, GUARDRAIL_ENTITY_COUNT}),
        ),
        SpanShape(
            "predict",
            frozenset({OPERATION_TRILITH, MODEL_NAME}),
            _COST | {MODEL_VERSION, MODEL_FRAMEWORK, BATCH_ROWS, HTTP_STATUS},
        ),
        SpanShape(
            "evaluate",
            frozenset({EVALUATION_NAME}),
            frozenset({EVALUATION_SCORE, EVALUATION_LABEL, EVAL_SUITE, EVAL_CASE_ID}),
        ),
        SpanShape("app", frozenset({CODE_FUNCTION})),
        *(
            SpanShape(operation, _INFERENCE, _ADDRESS | _USAGE | _COST | {HTTP_STATUS})
            for operation in (
                "count_tokens",
                "rerank",
                "moderation",
                "image",
                "image_edit",
                "image_variation",
                "speech",
                "transcription",
                "translation",
            )
        ),
    )
}
"""Every span that Trilith makes, by the first word of its name. `app` is `@traced`'s."""


def faults(name: str, attributes: dict[str, object]) -> list[str]:
    """Say what is wrong with a span's name and attributes; empty when nothing is."""
    operation = name.partition(" ")[0]
    shape = SHAPES.get(operation)
    if shape is None:
        return [f"{name!r}: {operation!r} is not among the operations ({', '.join(sorted(SHAPES))})"]
    found = set(attributes)
    missing = sorted(shape.required - found)
    unknown = sorted(found - shape.required - shape.optional - ENVELOPE)
    return [f"{name!r}: {n} is missing" for n in missing] + [
        f"{name!r}: {n} is not allowed here" for n in unknown
    ]
