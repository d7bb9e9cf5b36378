"""A judge's certificate: what came of holding it against people, kept by the judge's fingerprint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trilith.errors import DataError
from trilith_evals import atomic
from trilith_evals.report import JudgeMark

_FORM = 1


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known of one judge."""

    fingerprint: str
    """Of the judge that was calibrated."""
    model: str
    labelled: int
    """Rows that it was held against people on."""
    agreement: str
    """What came of it, in one line."""
    data: str
    """The dataset's file name."""
    digest: str
    """The dataset's sha256."""
    made: str
    """When, in UTC."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """All figures with their intervals."""

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        told = {"form": _FORM, **asdict(self)}
        atomic.write(path, json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def read(path: Path) -> Certificate:
    """Read a certificate.

    Raises:
        DataError: the file cannot be read, or is no certificate.
    """
    try:
        told = json.loads(path.read_text("utf-8"))
        form = told.pop("form")
        if form != _FORM:
            raise DataError(
                f"{path}: a certificate of form {form!r}, expected {_FORM}; calibrate the judge again"
            )
        return Certificate(**told)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise DataError(
            f"{path}: cannot read the certificate: {why}; `trilith eval calibrate` writes it"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: no certificate of a judge; `trilith eval calibrate` writes one") from error


def mark(metric: str, fingerprint: str, certificate: Certificate | None) -> JudgeMark:
    """Return what a report says of a judge: calibrated only where the certificate is of this very judge."""
    if certificate is None:
        return JudgeMark(metric, fingerprint, False, "never held against people's verdicts")
    if certificate.fingerprint != fingerprint:
        was, now = certificate.fingerprint[:12], fingerprint[:12]
        return JudgeMark(
            metric, fingerprint, False, f"changed since it was calibrated (judge {now}, certificate of {was})"
        )
    return JudgeMark(metric, fingerprint, True, certificate.agreement)
