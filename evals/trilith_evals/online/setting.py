"""What may stand in a monitor's file, `monitor.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MetricSettings(_Section):
    """A measurement that is watched: latency, cost, refusals, the score of a scorer or judge."""

    name: str
    """One of the records' `values`."""
    worse: Literal["higher", "lower"] = "higher"
    """Which way is a loss."""
    tolerance: float = Field(0.0, ge=0)
    """A change of the mean that is no harm (in the metric's own unit)."""


class AlarmSettings(_Section):
    """What else than a loss of performance is an alarm. Nothing is, unless it is stated."""

    unseen: float | None = Field(None, gt=0, lt=1)
    """More than this share of a feature's values in a window lies outside all that the reference has."""


class TextSettings(_Section):
    """Embeddings and topics of the inputs' texts."""

    embed: bool = False
    """Embed texts that come without an embedding, by MiniLM (takes CPU)."""
    topics: int = Field(8, ge=2)
    """Groups of the reference's embeddings, for the causes of an alarm."""
    words: bool = False
    """Call topics by frequent words that many tenants use. Off: by number."""


class MonitorSettings(_Section):
    """One monitor."""

    name: str = "monitor"
    """Shown on findings."""
    window_hours: float = Field(24, gt=0)
    """Windows begin at multiples of it since 1970 (UTC)."""
    reference_windows: int = Field(28, ge=4)
    """The first so many windows are the reference, unless a reference is given."""
    loss: Literal["error", "absolute", "none"] = "none"
    """Of a predictor: `error` of a classifier (cut at one half), `absolute` of a regressor."""
    tolerance: float = Field(0.0, ge=0)
    """A rise of the mean loss that is no harm (in the loss's own unit)."""
    label_wait_hours: float = Field(0, ge=0)
    """How long after its end a window waits for labels; those that come later count as never."""
    min_labelled: float = Field(0.5, gt=0, le=1)
    """Smallest share of a window's records that must have labels for its loss to count."""
    estimate: bool = True
    """Estimate the loss before labels come; an alarm may rest on it."""
    metrics: tuple[MetricSettings, ...] = ()
    """Also watched."""
    alarms_per_30_days: float = Field(1, gt=0)
    """False alarms that are put up with, all tests of the monitor together, in the mean."""
    alarm_on: AlarmSettings = AlarmSettings()
    """Stated conditions."""
    fdr: float = Field(0.05, gt=0, lt=1)
    """Share of false ones among the features that are said to have moved."""
    least_psi: float = Field(0.1, ge=0)
    """A feature that moved by less is not worth a notice."""
    notice_unseen: float = Field(0.5, gt=0, lt=1)
    """Also a notice: more than this share of a feature's values lies outside all that the reference has. One
    that never changed in the reference has no spread that a test could hold it against.
    """
    notice_share: float = Field(0.5, gt=0, le=1)
    """A notice of its own: so large a share of all features moved."""
    classifier: Literal["logistic", "trees"] | None = None
    """Also train a model to tell windows from the reference: it sees joint moves, and takes CPU."""
    text: TextSettings = TextSettings()
    """Texts."""
    seed: int = 0
    """Of random features and bootstraps."""

    @model_validator(mode="after")
    def _one_name_each(self) -> MonitorSettings:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError("metrics: a name stands twice, expected every name once")
        return self

    @property
    def window_s(self) -> float:
        """Seconds of a window."""
        return self.window_hours * 3600

    @property
    def tests(self) -> int:
        """How many sequential tests share the budget of alarms."""
        performance = 0 if self.loss == "none" else 1 + self.estimate
        return max(1, performance + len(self.metrics))

    @property
    def alpha(self) -> float:
        """Of each test: one false alarm in `1 / alpha` windows keeps all of them within the budget."""
        windows = 30 * 24 / self.window_hours
        return min(0.5, self.alarms_per_30_days / windows / self.tests)
