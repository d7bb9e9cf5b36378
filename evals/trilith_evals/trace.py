"""Reads calls from exported spans: OTLP JSON lines, as a collector or `trilith traces --export` writes them.

Only spans that hold the text of question and answer become calls; what else is there is counted.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from trilith.errors import DataError
from trilith.telemetry import names
from trilith.types import Json

Order = Literal["newest", "random", "doubtful"]
"""Which calls come first."""
Opinions = Literal["any", "up", "down", "mixed", "some", "none"]
"""What people thought of the answer; some: anything; none: nobody said a word."""
Stratum = Literal["model", "release", "team", "day", "opinion"]
"""What calls are told apart by, to have some of each."""

CORRECTION = "correction"
"""Feedback with this label has the right answer as its comment."""

_DOWN = frozenset({"down", "thumbs_down", "thumbs-down", "bad", "wrong", "negative", CORRECTION})
_UP = frozenset({"up", "thumbs_up", "thumbs-up", "good", "right", "positive"})
_SURE = re.compile(r"sure to ([01]\.\d+)")
_OPERATIONS = frozenset({"chat", "text_completion", "generate_content"})


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a person or the world said about an answer."""

    score: float | None = None
    label: str = ""
    comment: str = ""

    def verdict(self, middle: float) -> str:
        """Return `up`, `down`, or nothing; a score below `middle` is down."""
        label = self.label.strip().lower()
        if label in _DOWN or (self.score is not None and self.score < middle):
            return "down"
        return "up" if label in _UP or self.score is not None else ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model, as it was recorded."""

    id: str
    """The request's id; the span's where there is none."""
    trace_id: str
    model: str
    at: datetime
    messages: tuple[Mapping[str, str], ...]
    """Role and content each; at least one."""
    answer: str
    release: str = ""
    team: str = ""
    key_id: str = ""
    conversation: str = ""
    failed: bool = False
    opinions: tuple[Opinion, ...] = ()
    signs: Mapping[str, float] = field(default_factory=dict)
    """What says that the model was not sure, each from 0 to 1."""

    @property
    def input(self) -> Json:
        """The question alone where that is all that was said, else the conversation."""
        if len(self.messages) == 1 and self.messages[0]["role"] == "user":
            return self.messages[0]["content"]
        return [dict(message) for message in self.messages]

    @property
    def correction(self) -> str:
        """The right answer, by the last who gave one; empty when nobody did."""
        given = [o.comment for o in self.opinions if o.label.strip().lower() == CORRECTION and o.comment]
        return given[-1] if given else ""

    def verdict(self, middle: float = 0.5) -> str:
        """Return what people thought: `up`, `down`, `mixed`, or nothing when nobody said."""
        said = {verdict for opinion in self.opinions if (verdict := opinion.verdict(middle))}
        return "mixed" if len(said) > 1 else next(iter(said), "")

    @property
    def doubt(self) -> float:
        """How little sure the answer is, from 0 to 1: a person's doubt, a cascade's, or an answer cut off."""
        opinion = {"mixed": 1.0, "down": 0.9}.get(self.verdict(), 0.0)
        return max((opinion, *self.signs.values()))


@dataclass(slots=True)
class Spans:
    """The calls in files of spans, and how many spans were none."""

    paths: tuple[str, ...]
    """Files, folders (their `*.json`, `*.jsonl`, also as deeper), or `-` for standard input."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Why spans became no calls."""

    def __iter__(self) -> Iterator[Call]:
        """Return the calls in the order of the files; a span that stands twice counts once.

        Raises:
            DataError: a file cannot be read, or is no OTLP JSON.
        """
        seen: set[str] = set()
        for place, line, span in _spans(self.paths):
            try:
                call = self._call(span)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(
                    f"{place}:{line}: not a span of OTLP JSON ({type(error).__name__}); expected what "
                    "`trilith traces --export` or a collector's file exporter writes"
                ) from error
            if call is None:
                continue
            if call.id in seen:
                self.skipped["a second time"] += 1
                continue
            seen.add(call.id)
            yield call

    def _call(self, span: Mapping[str, Any]) -> Call | None:
        attributes = _attributes(span.get("attributes", ()))
        if attributes.get(names.OPERATION) not in _OPERATIONS:
            self.skipped["not a call of a language model"] += 1
            return None
        if names.REQUEST_ID not in attributes and span.get("name", "").startswith("attempt "):
            return None
        messages = tuple(recorded_messages(attributes.get(names.INPUT_MESSAGES)))
        if not messages:
            self.skipped["without text"] += 1
            return None
        said = [m["content"] for m in recorded_messages(attributes.get(names.OUTPUT_MESSAGES))]
        return Call(
            id=str(attributes.get(names.REQUEST_ID) or span["spanId"]),
            trace_id=str(span["traceId"]),
            model=str(attributes.get(names.REQUEST_MODEL, "")),
            at=datetime.fromtimestamp(int(span["startTimeUnixNano"]) / 1e9, UTC),
            messages=messages,
            answer=said[0] if said else "",
            release=str(attributes.get(names.RELEASE_VERSION, "")),
            team=str(attributes.get(names.TENANT, "")),
            key_id=str(attributes.get(names.KEY_ID, "")),
            conversation=str(attributes.get(names.CONVERSATION_ID, "")),
            failed=names.ERROR_TYPE in attributes or not said,
            opinions=tuple(_opinions(span.get("events", ()))),
            signs=_signs(attributes),
        )


def _spans(paths: Iterable[str]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for given in paths:
        if given == "-":
            yield from _read(sys.stdin, "standard input")
            continue
        path = Path(given)
        files = sorted(p for p in path.rglob("*.json*") if p.is_file()) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: no *.json or *.jsonl in the folder, expected exported spans")
        for file in files:
            try:
                with file.open(encoding="utf-8") as opened:
                    yield from _read(opened, str(file))
            except OSError as error:
                said = (error.strerror or str(error)).lower()
                raise DataError(f"{file}: cannot read the spans: {said}") from error


def _read(file: IO[str], place: str) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    line = 0
    try:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            for resource in json.loads(text)["resourceSpans"]:
                for scope in resource.get("scopeSpans", ()):
                    for span in scope.get("spans", ()):
                        yield place, line, span
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{place}:{max(line, 1)}: not OTLP JSON ({type(error).__name__}); expected a JSON object with "
            "resourceSpans on every line, as `trilith traces --export` writes"
        ) from error


def _attributes(pairs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: _value(pair["value"]) for pair in pairs}


def _value(value: Mapping[str, Any]) -> Any:
    kind, inner = next(iter(value.items()))
    match kind:
        case "intValue":
            return int(inner)
        case "arrayValue":
            return [_value(one) for one in inner.get("values", ())]
        case "kvlistValue":
            return _attributes(inner.get("values", ()))
    return inner


def recorded_messages(recorded: Any) -> Iterator[dict[str, str]]:
    """Read messages in the conventions' form: JSON text, or the same as a list."""
    found = json.loads(recorded) if isinstance(recorded, str) else recorded or ()
    for message in found:
        parts = message.get("parts") or [{"content": message.get("content")}]
        texts = [part["content"] for part in parts if isinstance(part.get("content"), str)]
        if texts:
            yield {"role": str(message.get("role", "user")), "content": "\n".join(texts)}


def _opinions(events: Iterable[Mapping[str, Any]]) -> Iterator[Opinion]:
    for event in events:
        if event.get("name") != names.EVALUATION_EVENT:
            continue
        told = _attributes(event.get("attributes", ()))
        score = told.get(names.EVALUATION_SCORE)
        yield Opinion(
            None if score is None else float(score),
            str(told.get(names.EVALUATION_LABEL, "")),
            str(told.get(names.EVALUATION_EXPLANATION, "")),
        )


def _signs(attributes: Mapping[str, Any]) -> dict[str, float]:
    signs: dict[str, float] = {}
    for words in attributes.get(names.DECISIONS, ()):
        if match := _SURE.search(str(words)):
            signs["cascade"] = max(signs.get("cascade", 0.0), 1 - float(match[1]))
        elif str(words).startswith("fallback: "):
            signs["fallback"] = 0.3
    if "length" in attributes.get(names.FINISH_REASONS, ()):
        signs["cut off"] = 0.5
    return signs
