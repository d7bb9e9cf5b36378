"""The scorer `judge`: a model scores answers by a rubric, and every report says how far it is known."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from trilith import AsyncClient
from trilith.errors import SettingsError
from trilith_evals.case import Case, Output
from trilith_evals.judging import certificate as certificates
from trilith_evals.judging.asking import Asker
from trilith_evals.judging.calibration import label
from trilith_evals.judging.correction import Corrected, ppi_mean
from trilith_evals.judging.document import read_judge, settings_of
from trilith_evals.judging.judge import Judge, Judgement
from trilith_evals.judging.material import human, material
from trilith_evals.judging.rubric import Kind
from trilith_evals.report import JudgeMark
from trilith_evals.score import Score, abstained, scored, unscored


class JudgeScorer:
    """Asks a judge about every answer; what it costs is on the scores."""

    paths: ClassVar[tuple[str, ...]] = ("file", "rubric_file", "certificate")
    """Params that are files; in a suite they count from its folder."""

    def __init__(
        self,
        model: str | None = None,
        rubric: str | None = None,
        scale: Literal["binary"] | int = "binary",
        criteria: dict[str, str] | None = None,
        kind: Kind = "answer",
        panel: tuple[str, ...] = (),
        repeats: int = 1,
        combine: Literal["majority", "mean"] | None = None,
        inconsistent: Literal["tie", "abstain"] = "tie",
        expected: bool = True,
        passages: str | None = None,
        columns: tuple[str, ...] = (),
        parameters: dict[str, Any] | None = None,
        timeout_s: float = 60.0,
        rubric_file: str | None = None,
        file: str | None = None,
        certificate: str | None = None,
        require_calibrated: bool = False,
        human: str | tuple[str, ...] = (),
        other: str | None = None,
        *,
        client: AsyncClient | None = None,
    ) -> None:
        """Say what the judge is made of (see `JudgeSettings`), here or in a file; nothing is called yet.

        Args:
            model: The judging model.
            rubric: What an answer must be or do.
            scale: `binary`, or the number of steps.
            criteria: What each step stands for.
            kind: answer, or pair: the answer against the one in the column `other`.
            panel: More models.
            repeats: How often each is asked.
            combine: majority or mean.
            inconsistent: What a pair is on which the orders disagree.
            expected: Whether the right answer is shown.
            passages: Column with passages, else those that the answer cites.
            columns: More columns that are shown.
            parameters: Sent with every call.
            timeout_s: Longest time for one call (seconds).
            rubric_file: File with the rubric, in place of `rubric`.
            file: The judge's file, in place of all of the above.
            certificate: Its certificate; None takes the one that the judge's file names.
            require_calibrated: Refuse a judge without a certificate, or that has changed since.
            human: Column with people's label where a row has one, or one column a person: the figure is then
                corrected by them.
            other: Column with the answer that a pair's is held against.
            client: Open client for the calls; it stays its owner's to close.

        Raises:
            SettingsError: the judge's settings are wrong, or it is not calibrated and had to be.
            DataError: the certificate cannot be read.
        """
        if file is not None:
            if model is not None or rubric is not None or rubric_file is not None:
                raise SettingsError(
                    "params: file names the whole judge; leave out model, rubric and rubric_file"
                )
            read = read_judge(Path(file))
            self.settings = read.settings
            known = Path(certificate) if certificate else read.certificate
            given = certificate is not None or known.is_file()
        else:
            self.settings = settings_of(
                {
                    "model": model or "",
                    "rubric": _rubric(rubric, rubric_file),
                    "scale": scale,
                    "criteria": criteria or {},
                    "kind": kind,
                    "panel": panel,
                    "repeats": repeats,
                    "combine": combine,
                    "inconsistent": inconsistent,
                    "expected": expected,
                    "passages": passages,
                    "columns": columns,
                    "parameters": parameters or {},
                    "timeout_s": timeout_s,
                }
            )
            known, given = Path(certificate or ""), certificate is not None
        if (self.settings.kind == "pair") != (other is not None):
            raise SettingsError("params: kind pair and other (the column with the other answer) go together")
        self.name = "judge"
        self._scale = self.settings.made().scale
        self._human = (human,) if isinstance(human, str) else tuple(human)
        self._other = other
        self._certificate = certificates.read(known) if given else None
        self._given, self._client = client, client
        self._address: tuple[str | None, str | None] = (None, None)
        self._judge: Judge | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        found = self.mark(self.name)
        if require_calibrated and not found.calibrated:
            raise SettingsError(
                f"params.require_calibrated: the judge is not calibrated: {found.agreement}; "
                "hold it against people with `trilith eval calibrate`"
            )

    def connect(self, base_url: str | None, api_key: str | None) -> None:
        """Say where the judge's calls go, unless a client was given; None: as `AsyncClient`."""
        self._address = (base_url, api_key)

    async def __call__(self, case: Case, output: Output) -> Score:
        """Judge one answer; whatever the judge does, the row has a value or a reason, and its cost."""
        judge = self._opened()
        shown = material(case, output, self.settings)
        if self._other is None:
            return _score(await judge.answer(case.id, shown))
        against = case.fields.get(self._other)
        if against is None:
            return unscored(f"the case has no other answer in {self._other!r}")
        return _score(await judge.pair(case.id, shown, (output.text or dict(output.values), against)))

    def mark(self, metric: str) -> JudgeMark:
        """Return what a report says of this judge."""
        found = certificates.mark(metric, self.settings.fingerprint(), self._certificate)
        tally = self._judge.tally.text if self._judge else ""
        return replace(found, agreement=f"{found.agreement}; {tally}") if tally else found

    def corrected(
        self, judged: Sequence[tuple[Case, float]], clusters: Sequence[Hashable] | None
    ) -> Corrected | None:
        """Return what people would say of all rows, from the judge's verdicts and the labels that there are.

        Args:
            judged: Cases with the judge's value.
            clusters: What each came from.

        Returns:
            The figure; None where no column of labels is named.

        Raises:
            ValueError: fewer than two rows are labelled, or a label is not on the scale.
        """
        if not self._human:
            return None
        graded = self._scale.graded
        labels = [
            label(human(case.fields, self._human, self._scale), binary=not graded) for case, _ in judged
        ]
        return ppi_mean(labels, [value for _, value in judged], clusters, bounds=self._scale.bounds)

    async def aclose(self) -> None:
        """Close what was opened here."""
        if self._client is not None and self._client is not self._given:
            await self._client.aclose()
            self._client = None
        self._loop = None

    def _opened(self) -> Judge:
        """Return the judge on the running loop: a client serves one loop only, and runs may have several."""
        loop = asyncio.get_running_loop()
        if self._judge is None or self._loop is not loop:
            if self._given is None:
                self._client = AsyncClient(*self._address, timeout_s=self.settings.timeout_s)
            assert self._client is not None  # given, or opened just now
            self._judge = Judge(self.settings, Asker(self._client, timeout_s=self.settings.timeout_s))
            self._loop = loop
        return self._judge


def _rubric(rubric: str | None, file: str | None) -> str:
    if (rubric is None) == (file is None):
        raise SettingsError("params: expected rubric or rubric_file, or the judge's whole file")
    if file is None:
        return rubric or ""
    try:
        return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"params.rubric_file: {file}: cannot be read as text: {error}") from None


def _score(found: Judgement) -> Score:
    if found.value is not None:
        score = scored(found.value, detail=found.reasons)
    elif found.abstained:
        score = abstained(found.problem)
    else:
        details = "\n".join(sample.detail for sample in found.samples if sample.detail)
        score = unscored(found.problem, detail=details, infrastructure=found.infrastructure)
    return replace(score, cost_pico_usd=found.cost_pico_usd)
