"""Trains one model: contract, split, fit, ONNX, parity, registry; the alias moves only to one no worse."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl

from trilith.errors import DataError, IntegrityError
from trilith.settings.schema import TrainingSettings
from trilith.types import RegisteredModel
from trilith_classical import conversion, metric, pipeline
from trilith_classical.conformance import check
from trilith_classical.contract import read_contract
from trilith_classical.dataset import Dataset, features, feeds, prepare, read_table, target_values
from trilith_classical.manifest import ONNX, SKOPS, Manifest, Parity, file_digest, read_manifest
from trilith_classical.predictor import OnnxPredictor
from trilith_classical.recipe import recipe, recipe_digest
from trilith_classical.registry import MlflowRegistry
from trilith_classical.tracking import Run, track

RECIPE_TAG = "trilith.recipe"

# Two fits of one recipe may differ in the last bits; that is not being worse.
_NOISE = 1e-6

_ROWS_PER_THREAD = 50_000


class Outcome(StrEnum):
    """What became of a training run."""

    PROMOTED = "promoted"
    """The alias names the new version."""
    UNCHANGED = "unchanged"
    """The alias already names a version from the same data, contract, settings and code."""
    REFUSED = "refused"
    """The alias stays where it was."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Challenger and champion on the same rows, none of which either was trained on."""

    champion: str
    """The champion's version."""
    metric: str
    """Smaller is better."""
    rows: int
    challenger_score: float
    champion_score: float

    @property
    def worse(self) -> bool:
        """Whether the challenger is worse by more than noise."""
        return self.challenger_score > self.champion_score * (1 + _NOISE)


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run did."""

    name: str
    alias: str
    outcome: Outcome
    reason: str
    """Why, in one sentence."""
    manifest: Manifest
    version: str | None
    """In the registry; None when nothing was registered."""
    digest: str
    """sha256 of `model.onnx`, hexadecimal."""
    comparison: Comparison | None
    """With the version that had the alias; None when there was none to compare with."""
    seconds: float


def train(
    name: str,
    settings: TrainingSettings,
    *,
    home: Path,
    alias: str = "champion",
    accept_worse: bool = False,
) -> TrainingReport:
    """Train, register and, if it is no worse than the present one, crown a model. Blocking.

    Doing it again with the same data, contract, settings and code changes nothing.

    Args:
        name: Registered model, and MLflow's experiment.
        settings: What to train from; absolute paths.
        home: The platform's folder; made if it is missing.
        alias: What the winner is called.
        accept_worse: Move the alias also to a model that is worse, or cannot be compared.

    Raises:
        ContractViolation: the data breaks its contract; nothing was trained.
        DataError: a file or a column cannot be used.
        SettingsError: the contract is wrong.
    """
    started = time.perf_counter()
    for path in (settings.data, settings.contract):
        if not path.is_file():
            raise DataError(f"training.{name}: {path} is not a file; correct the path in the settings")
    registry = MlflowRegistry(home)
    made_from = recipe(settings)
    model = _intact(registry, name, recipe_digest(made_from))

    def report(
        outcome: Outcome, reason: str, manifest: Manifest, against: Comparison | None
    ) -> TrainingReport:
        version = model.version if model else None
        digest = manifest.digests[ONNX]
        seconds = time.perf_counter() - started
        return TrainingReport(name, alias, outcome, reason, manifest, version, digest, against, seconds)

    if model is not None and registry.alias_version(name, alias) == model.version:
        reason = "same data, contract, settings and code as the present version"
        return report(Outcome.UNCHANGED, reason, read_manifest(Path(model.path)), None)
    data = _load(name, settings)
    if model is None:
        model, manifest = _fit(name, settings, data, made_from, home)
        if model is None:
            return report(Outcome.REFUSED, _unlike(manifest.parity), manifest, None)
    challenger = OnnxPredictor(model)
    allowed, reason, against = _judge(registry, challenger, data, alias)
    if not allowed and not accept_worse:
        reason = f"{reason}; move the alias all the same with --accept-worse"
        return report(Outcome.REFUSED, reason, challenger.manifest, against)
    registry.set_alias(name, alias, model.version)
    return report(Outcome.PROMOTED, reason, challenger.manifest, against)


def _intact(registry: MlflowRegistry, name: str, digest: str) -> RegisteredModel | None:
    """Return the version of this recipe; one whose files are damaged does not count, so it is made anew."""
    try:
        return registry.find(name, RECIPE_TAG, digest)
    except IntegrityError:
        return None


def _load(name: str, settings: TrainingSettings) -> Dataset:
    contract = read_contract(settings.contract)
    table = read_table(settings.data)
    check(table, contract, data=settings.data, source=settings.contract)
    return prepare(table, contract, settings, name=name)


def _fit(
    name: str, settings: TrainingSettings, data: Dataset, made_from: dict[str, str], home: Path
) -> tuple[RegisteredModel | None, Manifest]:
    """Fit, convert, compare and register; nothing is registered when ONNX and scikit-learn disagree."""
    with track(home, name) as run, tempfile.TemporaryDirectory() as temporary:
        _record_start(run, settings, data, made_from)
        folder = Path(temporary)
        fitted = pipeline.build(data.columns, data.task, seed=settings.seed)
        with _threads(data.train.height):  # after `build`, which loads the library that it limits
            fitted.fit(features(data.train, data.columns), target_values(data.train, data.target, data.task))
            manifest = _write(name, fitted, folder, settings, data, made_from)
        run.record(metrics=_figures(manifest), tags={"trilith.parity": _verdict(manifest.parity)})
        if not manifest.parity.passed:
            return None, manifest
        tags = {
            RECIPE_TAG: recipe_digest(made_from),
            "trilith.data_sha256": made_from["data_sha256"],
            "trilith.contract_sha256": made_from["contract_sha256"],
            "trilith.parity": _verdict(manifest.parity),
            "trilith.parity.max_difference": f"{manifest.parity.max_difference:.3g}",
        }
        return MlflowRegistry(home).register(name, temporary, tags=tags, run_id=run.id), manifest


def _threads(rows: int) -> AbstractContextManager[object]:
    """Let scikit-learn use one thread per so many rows, within what it would take by itself.

    On a small table its threads mostly wait for each other, and they spin while they wait: beside other work
    on two cores, 14,000 rows took 50 s with two threads and 21 s with one.
    """
    from threadpoolctl import threadpool_limits

    least = max(1, rows // _ROWS_PER_THREAD)
    cores = len(os.sched_getaffinity(0))
    return cast(AbstractContextManager[object], threadpool_limits(min(least, cores), user_api="openmp"))


def _write(
    name: str,
    fitted: pipeline.Pipeline,
    folder: Path,
    settings: TrainingSettings,
    data: Dataset,
    made_from: dict[str, str],
) -> Manifest:
    """Write the three files of a version; what is measured is what was read back from them."""
    trusted = pipeline.save(fitted, folder / SKOPS)
    converted = conversion.convert(fitted, data.columns, data.task)
    (folder / ONNX).write_bytes(converted)
    digests = {file: file_digest(folder / file) for file in (ONNX, SKOPS)}
    session = conversion.open_session(converted)
    tensors = feeds(data.test, data.columns)
    truth = target_values(data.test, data.target, data.task)
    spread = float(np.std(truth)) if data.task == "regression" else 1.0
    parity = conversion.compare(
        pipeline.load(folder / SKOPS, digest=digests[SKOPS], trusted=trusted),
        session,
        features(data.test, data.columns),
        tensors,
        task=data.task,
        scale=spread or 1.0,
        limit=settings.max_abs_difference,
    )
    outputs = conversion.outputs(fitted, data.task)
    baseline_name, baseline = metric.baseline(data)
    manifest = Manifest(
        name=name,
        task=data.task,
        target=data.target,
        time_column=data.time_column,
        inputs=data.columns,
        outputs=outputs,
        split=data.split,
        metrics=metric.score(data.task, truth, session.run(None, tensors), outputs[-1].classes),
        baseline=baseline,
        baseline_name=baseline_name,
        parity=parity,
        recipe=made_from,
        trusted=trusted,
        digests=digests,
    )
    manifest.write(folder)
    return manifest


def _judge(
    registry: MlflowRegistry, challenger: OnnxPredictor, data: Dataset, alias: str
) -> tuple[bool, str, Comparison | None]:
    """Say whether the alias may move, why, and by which figures."""
    name = challenger.model.name
    present = registry.alias_version(name, alias)
    if present is None:
        return True, f"no version had the alias {alias!r}", None
    try:
        champion = OnnxPredictor(registry.resolve(name, alias))
    except IntegrityError:
        return True, f"the files of version {present}, which had the alias, are damaged", None
    fresh = data.test_order > champion.manifest.split.trained_until
    if not _same_question(champion.manifest, data):
        return False, f"version {present} predicts something else, so they cannot be compared", None
    if not fresh.any():
        return False, f"version {present} was trained on all held-out rows, so they cannot be compared", None
    rows = data.test.filter(fresh)
    try:
        against = Comparison(
            champion=present,
            metric=metric.DECISIVE[data.task],
            rows=rows.height,
            challenger_score=_score(challenger, rows, data),
            champion_score=_score(champion, rows, data),
        )
    except pl.exceptions.PolarsError:
        return (
            False,
            f"version {present} reads columns that the data no longer has, so they cannot be compared",
            None,
        )
    scores = f"{against.challenger_score:.4g} against {against.champion_score:.4g}"
    figures = f"{against.metric} {scores} of version {present}"
    return not against.worse, f"{figures} on the same {against.rows} rows", against


def _same_question(champion: Manifest, data: Dataset) -> bool:
    asked = (champion.task, champion.target, champion.time_column)
    return asked == (data.task, data.target, data.time_column)


def _score(predictor: OnnxPredictor, rows: pl.DataFrame, data: Dataset) -> float:
    manifest = predictor.manifest
    outputs = predictor.run(feeds(rows, manifest.inputs))
    truth = target_values(rows, data.target, data.task)
    scores = metric.score(data.task, truth, outputs, manifest.outputs[-1].classes)
    return scores[metric.DECISIVE[data.task]]


def _record_start(run: Run, settings: TrainingSettings, data: Dataset, made_from: dict[str, str]) -> None:
    params = settings.model_dump(mode="json", exclude={"data", "contract"}) | {
        "task": data.task,
        "train_rows": data.split.train_rows,
        "test_rows": data.split.test_rows,
        "test_from": data.split.test_from,
    }
    run.record(params=params, tags={f"trilith.{key}": value for key, value in made_from.items()})
    run.keep(settings.contract)


def _figures(manifest: Manifest) -> dict[str, float]:
    return {
        **manifest.metrics,
        **{f"baseline_{name}": value for name, value in manifest.baseline.items()},
        "parity_max_difference": manifest.parity.max_difference,
        "parity_share_over": manifest.parity.share_over,
    }


def _verdict(parity: Parity) -> str:
    return "passed" if parity.passed else "failed"


def _unlike(parity: Parity) -> str:
    return (
        f"ONNX and scikit-learn differ by up to {parity.max_difference:.2g}, more than max_abs_difference "
        f"{parity.limit:g} allows, on {parity.share_over:.2%} of {parity.rows} rows; nothing was registered"
    )
