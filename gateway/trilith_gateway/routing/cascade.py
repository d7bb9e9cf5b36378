"""Steps of a cascade: who may be asked on the way, what is asked of them, and when their answer will do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any

import orjson

from trilith.settings.routing import CheckSettings, StepSettings
from trilith.types import Kind
from trilith_gateway import sse
from trilith_gateway.exchange import Exchange
from trilith_gateway.release import Release

Find = Callable[[str], Release | None]
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One model that will be asked."""

    settings: StepSettings
    release: Release
    check: Release | None
    """The predictor that reads its answer."""

    @property
    def releases(self) -> tuple[Release, ...]:
        """All that are paid when it is asked."""
        return (self.release,) if self.check is None else (self.release, self.check)


def steps(exchange: Exchange, settings: Sequence[StepSettings], find: Find) -> list[Step]:
    """Return the steps that can answer this request and that its caller may pay for.

    A predictor says one of a few things, so it is not asked where a caller wants tools, a format, several
    answers or log probabilities; nor is a chat model where several answers are wanted: one is looked at.
    """
    body = exchange.body
    if not exchange.operation.generates or "messages" not in body or (body.get("n") or 1) > 1:
        return []
    plain = not any(body.get(name) for name in _MORE_THAN_WORDS) and bool(question(body))
    found: list[Step] = []
    for one in settings:
        release = find(one.model)
        check = None if one.check is None else find(one.check.model)
        if release is None or (check is None) != (one.check is None):
            continue
        batched = exchange.batched
        step = Step(one, release.priced(batched=batched), check and check.priced(batched=batched))
        if release.kind is Kind.PREDICTOR and not plain:
            continue
        if all(_may_pay(exchange, each) for each in step.releases):
            found.append(step)
    return found


_MORE_THAN_WORDS = ("tools", "functions", "response_format", "logprobs")


def _may_pay(exchange: Exchange, release: Release) -> bool:
    key = exchange.caller
    return key.allows(release.model) and (release.price is not None or not key.budgets)


def question(body: Mapping[str, Any]) -> str:
    """Return the text of the last message if it is the user's, else nothing."""
    last = body["messages"][-1]
    if last.get("role") != "user":
        return ""
    content = last.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return ""
    if any(part.get("type") != "text" for part in content):  # a picture is not for a classifier of texts
        return ""
    return "\n".join(str(part.get("text", "")) for part in content)


def tensors(name: str, text: str) -> Body:
    """Return the inference request that asks a predictor about one text."""
    return {"inputs": [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}]}


def verdict(answer: Mapping[str, Any]) -> tuple[str, float]:
    """Return a predictor's label and how sure it is of it (0 when it gives no probabilities)."""
    outputs = answer.get("outputs")
    named = {o.get("name"): o for o in outputs if isinstance(o, dict)} if isinstance(outputs, list) else {}
    label = _values(named.get("predict") or next(iter(named.values()), {}))
    shares = [v for v in _values(named.get("predict_proba", {})) if isinstance(v, int | float)]
    if not label:
        return "", 0.0
    text = str(label[0]).lower() if isinstance(label[0], bool) else str(label[0])
    return text, max(shares, default=0.0)


def _values(tensor: Mapping[str, Any]) -> list[Any]:
    data = tensor.get("data")
    if isinstance(data, list) and data and isinstance(data[0], list):
        data = data[0]
    return data if isinstance(data, list) else []


def refused_label(label: str, confidence: float, step: StepSettings) -> str:
    """Say why a predictor's answer will not do; empty when it will."""
    if not label or label in step.abstain:
        return "it abstains"
    return "" if confidence >= step.confidence else f"it is sure to {confidence:.2f} only"


def refused_check(label: str, confidence: float, check: CheckSettings) -> str:
    """Say why a check does not let an answer pass; empty when it does."""
    if label not in check.labels:
        return f"{check.model} does not let it pass"
    return "" if confidence >= check.confidence else f"{check.model} is sure to {confidence:.2f} only"


def asked(body: Mapping[str, Any], release: Release, step: StepSettings) -> Body:
    """Return what a chat model is asked: the caller's request, not streamed, as it is to be judged whole."""
    changed = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
    changed["model"] = release.upstream_model
    if body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
        changed["max_tokens"] = release.max_output_tokens
    if step.mean_logprob is not None:
        changed["logprobs"] = True
    return changed


def refused_chat(answer: Mapping[str, Any], step: StepSettings) -> str:
    """Say why a chat model's answer will not do; empty when it will."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    text = words(answer)
    if choice.get("finish_reason") not in step.finish_reasons:
        return "it ended for another reason"
    if step.matches is not None and not re.fullmatch(step.matches, text, re.DOTALL):
        return "it does not match"
    if step.valid_json and not _is_json(text):
        return "it is no JSON"
    if step.mean_logprob is not None:
        mean = _mean_logprob(choice)
        if mean is None or mean < step.mean_logprob:
            return "its mean log probability is " + ("unknown" if mean is None else f"{mean:.2f}")
    return ""


def words(answer: Mapping[str, Any]) -> str:
    """Return the text of an answer's first choice."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except JSONDecodeError:
        return False
    return True


def _mean_logprob(choice: Mapping[str, Any]) -> float | None:
    told = choice.get("logprobs")
    tokens = told.get("content") if isinstance(told, dict) else None
    found = [
        t["logprob"]
        for t in tokens or ()
        if isinstance(t, dict) and isinstance(t.get("logprob"), int | float)
    ]
    return sum(found) / len(found) if found else None


def said(exchange: Exchange, text: str) -> Body:
    """Return a chat answer that says `text`; it used no tokens."""
    message = {"role": "assistant", "content": text}
    return {
        "id": f"chatcmpl-{exchange.id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": exchange.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def streamed(answer: Body, *, usage_wanted: bool) -> bytes:
    """Return a whole answer as the stream that it would have been, in few events."""
    head = {name: answer.get(name) for name in ("id", "created", "model")} | {
        "object": "chat.completion.chunk"
    }
    first, last = [], []
    for at, choice in enumerate(answer.get("choices") or ()):
        delta = {name: value for name, value in choice["message"].items() if value is not None}
        if calls := delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
        index = choice.get("index", at)
        told = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
        first.append({"index": index, "delta": delta, "finish_reason": None, **told})
        last.append({"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")})
    events = [{**head, "choices": first}, {**head, "choices": last}]
    if usage_wanted and answer.get("usage"):
        events.append({**head, "choices": [], "usage": answer["usage"]})
    return b"".join(map(sse.encode, events)) + sse.DONE
