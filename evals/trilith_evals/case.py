"""What goes into a target and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trilith.types import Answer, Citation, Json, Prediction, Usage


@dataclass(frozen=True, slots=True)
class Case:
    """One question to a target, with what is known about the right answer."""

    id: str
    """Unique within its suite."""
    input: Json
    """A question (text), a conversation (list of messages), or the features of one row (mapping)."""
    expected: Json = None
    """The right answer, or a list of answers that are all right; None when none is known."""
    cluster: str | None = None
    """Cases that share a source (a document, a conversation) share a cluster: they are not independent."""
    fields: Mapping[str, Json] = field(default_factory=dict)
    """The whole row of the dataset, for scorers that need more than `expected`."""
    line: int | None = None
    """Line in the dataset's file, from 1."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What the case belongs to, such as a language or a tenant; figures are also given by slice."""

    @property
    def source(self) -> tuple[str, str]:
        """What it stands or falls with: its cluster, else itself; repeats of a case have one source."""
        return ("case", self.id) if self.cluster is None else ("cluster", self.cluster)

    @property
    def golds(self) -> list[str]:
        """The acceptable answers as texts; empty when none is known."""
        if self.expected is None:
            return []
        accepted = self.expected if isinstance(self.expected, list) else [self.expected]
        return [str(answer) for answer in accepted if answer is not None and answer == answer]  # NaN is none


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool that a chat model wants called."""

    name: str
    """The tool's name."""
    arguments: Json = None
    """By name; the model's own text where that is not JSON."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a target said about one case."""

    text: str = ""
    """The answer in words; a predictor's value as text."""
    values: Mapping[str, Json] = field(default_factory=dict)
    """A predictor's outputs by name, one row."""
    citations: tuple[Citation, ...] = ()
    """The places that a rag model's answer rests on, in the order in which it gives them."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tools that a chat model wants called, in its order."""
    usage: Usage | None = None
    """What the call used; None when the target does not say."""
    latency_s: float = 0.0
    """From the call to the complete answer, retries included (seconds)."""
    request_id: str | None = None
    """The gateway's id of the request."""
    cost_pico_usd: int | None = None
    """What the call cost, as the gateway says (10^-12 USD); None when nobody says."""
    release: str = ""
    """Digest of the release that answered, as the gateway says, with a predictor's version; empty when nobody
    says.
    """
    cached: bool = False
    """Whether the answer was kept from an earlier run and nothing was asked."""

    @property
    def value(self) -> Json:
        """The first of `values`; None when there is none."""
        return next(iter(self.values.values()), None)


def as_output(returned: Any) -> Output:
    """Read what a target returned: an `Output`, an `Answer`, a `Prediction` of one row, text, or a number.

    A mapping counts as a predictor's outputs by name.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(returned, Output):
        return returned
    if isinstance(returned, str):
        return Output(text=returned)
    if isinstance(returned, Answer):
        return Output(
            text=returned.text,
            citations=returned.citations,
            usage=returned.usage,
            request_id=returned.request_id,
            cost_pico_usd=returned.cost_pico_usd,
        )
    if isinstance(returned, Prediction):
        values = {name: column[0] for name, column in returned.outputs.items() if column}
        first = next(iter(values.values()), None)
        return Output(
            text=str(first),
            values=values,
            request_id=returned.request_id,
            cost_pico_usd=returned.cost_pico_usd,
        )
    if isinstance(returned, Mapping):
        first = next(iter(returned.values()), None)
        return Output(text=str(first), values=dict(returned))
    if isinstance(returned, bool | int | float):
        return Output(text=str(returned), values={"output": returned})
    raise TypeError(
        f"the target returned a {type(returned).__name__}, expected text, a number, a mapping of outputs, "
        "or one of trilith.types.Answer, trilith.types.Prediction, trilith_evals.Output"
    )
