"""Settings of routing: among replicas, to other models by condition, and through cascades."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from trilith.settings.section import Section

_TIME = r"([01]\d|2[0-3]):[0-5]\d"
_HOURS = re.compile(rf"{_TIME}-({_TIME}|24:00)")


class HealthSettings(Section):
    """Asks every replica now and then whether it is well, whether or not calls go there."""

    path: str | None = Field(None, pattern=r"^/[^\s]*$")
    """What to GET; any status below 400 is well. None: `/health`, of predictors `/v2/health/ready`."""
    interval_s: float = Field(5, gt=0)
    """How often (seconds)."""
    timeout_s: float = Field(2, gt=0)
    """How long an answer may take (seconds)."""
    unhealthy_after: int = Field(3, ge=1)
    """After so many bad answers in a row a replica is left alone."""
    healthy_after: int = Field(2, ge=1)
    """After so many good ones in a row it is asked again."""


class EjectionSettings(Section):
    """Leaves a replica alone for a while that does much worse than the others, though it answers."""

    interval_s: float = Field(10, gt=0)
    """Over how long replicas are compared (seconds)."""
    least_requests: int = Field(20, ge=1)
    """A replica with fewer answers in that time is not judged."""
    success_gap: float = Field(0.3, gt=0, le=1)
    """Ejected when its share of good answers is so much below that of the others together."""
    latency_factor: float = Field(4, gt=1)
    """Ejected when its mean time to an answer's head is so many times the median of the others'."""
    pause_s: float = Field(30, gt=0)
    """For how long (seconds), times how often in a row; then it comes back by itself."""
    most_share: float = Field(0.5, ge=0, le=1)
    """Largest share of the replicas that is ejected at one time."""


class RoutingSettings(Section):
    """How a replica is chosen, and what is tried when one fails."""

    policy: Literal["p2c", "weighted", "least_outstanding", "prefix", "cost"] = "p2c"
    """p2c: the better of two at random by expected waiting time; prefix: the one that has seen the
    conversation's beginning, unless it is much busier than the others; cost: the cheapest that keeps
    `cost_wait_s`."""
    cost_wait_s: float = Field(1, ge=0)
    """Policy `cost`: how much longer than at the quickest replica a request may be expected to wait for the
    head of its answer at a cheaper one (seconds)."""
    attempt_timeout_s: float | None = Field(None, gt=0)
    """How long one replica may take to the head of its answer (without a stream: to its end) before another
    is asked (seconds); None: as long as the request may take."""
    attempts: int = Field(2, ge=1, le=10)
    """Most tries of one request, the first included."""
    retry_share: float = Field(0.2, ge=0, le=1)
    """Most retries as a share of all requests, so that a failing model is not stormed; one a second is always
    allowed, unless this is 0."""
    hedge_share: float = Field(0, ge=0, le=0.5)
    """Most requests that a second replica is asked for when the first is slower than 95 % of its answers. Of
    those whose replica answers nobody for a second more, one a second may be in any case."""
    breaker_failures: int = Field(5, ge=1)
    """After so many failures in a row a replica is left alone for a while."""
    breaker_pause_s: float = Field(1, gt=0)
    """For how long at first (seconds); doubles up to 30."""
    engine_load: bool = False
    """Ask vLLM's `/metrics` every second how many requests wait there and how full its cache is."""
    health: HealthSettings | None = None
    """Ask replicas for their health; None: only what calls end in is watched."""
    ejection: EjectionSettings | None = None
    """Leave replicas alone that do much worse than the others; None: only those that fail in a row."""


class RouteSettings(Section):
    """Sends some requests elsewhere. All given conditions must hold; without any, all requests go."""

    model: str | None = None
    """Another model of the same kind; it answers under its own policy and at its own price."""
    replicas: str | None = None
    """Or: only those replicas of this model that have this tag."""
    teams: tuple[str, ...] = ()
    """The caller's team is one of these."""
    keys: tuple[str, ...] = ()
    """The caller's key has one of these names."""
    tags: tuple[str, ...] = ()
    """The request's header `x-trilith-tags` (separated by commas) has one of these."""
    tools: bool | None = None
    """Whether the body offers tools."""
    stream: bool | None = None
    """Whether a stream is asked for."""
    max_tokens_above: int | None = Field(None, ge=0)
    """The longest answer that the caller allows is longer (tokens); one that is left open is the model's
    `max_output_tokens`."""
    max_tokens_below: int | None = Field(None, ge=1)
    """It is shorter."""
    body_bytes_above: int | None = Field(None, ge=0)
    """The body, as it came, is longer (bytes)."""
    body_bytes_below: int | None = Field(None, ge=1)
    """It is shorter."""
    hours: str | None = None
    """The time in UTC, such as `08:00-18:00`, the end not included; `22:00-06:00` goes over midnight."""
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    """The day in UTC."""

    @field_validator("hours")
    @classmethod
    def _times(cls, value: str | None) -> str | None:
        if value is not None and not _HOURS.fullmatch(value):
            raise ValueError("expected a time of the day in UTC from and to, such as 08:00-18:00")
        return value

    @model_validator(mode="after")
    def _one_target(self) -> RouteSettings:
        if (self.model is None) == (self.replicas is None):
            found = "neither" if self.model is None else "both"
            raise ValueError(f"expected either model or replicas; found {found}")
        return self


class CheckSettings(Section):
    """A predictor that reads a chat model's answer and says whether it will do."""

    model: str
    """Name of the predictor."""
    labels: tuple[str, ...] = Field(min_length=1)
    """Labels that let the answer pass."""
    confidence: float = Field(0.5, ge=0, le=1)
    """How sure it must be of the label."""
    input: str = "text"
    """The predictor's input (BYTES) that gets the text."""


class StepSettings(Section):
    """A model that is asked on the way, and what makes its answer good enough."""

    model: str
    """Name of a predictor that classifies texts, or of a chat model."""
    input: str = "text"
    """Predictor: its input (BYTES) that gets the caller's last message."""
    confidence: float = Field(0.9, ge=0, le=1)
    """Predictor: the probability of its label must be at least this."""
    abstain: tuple[str, ...] = ()
    """Predictor: labels that mean that it has no answer."""
    answers: dict[str, str] = {}
    """Predictor: what is said for a label; a label that is not here is said itself."""
    finish_reasons: tuple[str, ...] = ("stop",)
    """Chat model: the answer must have ended for one of these reasons."""
    mean_logprob: float | None = Field(None, le=0)
    """Chat model: the mean of its tokens' log probabilities must be at least this; asks for `logprobs`."""
    matches: str | None = None
    """Chat model: the answer must match this regular expression from beginning to end."""
    valid_json: bool = False
    """Chat model: the answer must be JSON."""
    check: CheckSettings | None = None
    """Chat model: a predictor must let the answer pass."""

    @field_validator("matches")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"expected a regular expression; {error}") from None
        return value
