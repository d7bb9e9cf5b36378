"""The journal of one run: every answer and paid judgement as a line, on disk before it counts."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from trilith.errors import DataError
from trilith_evals.spend import Ledger, Payer


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value, hexadecimal; equal values have equal ones."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_BEGINNING = b'{"journal":'


class Journal:
    """An append-only JSONL file that one run at a time writes; a kill may tear its last line only."""

    def __init__(self, path: Path, run: str, *, fresh: bool = False) -> None:
        """Open the journal of a run, or begin one.

        Args:
            path: The file; its folder is made.
            run: Digest of what the answers depend on: data, target, scorers.
            fresh: Forget what is there.

        Raises:
            DataError: the file is another run's, is no journal, cannot be written, or is in use.
        """
        self.path = path
        self._answers: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, list[dict[str, Any]]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise DataError(f"cannot open the journal {path}: {error.strerror}") from error
        try:
            self._lock()
            self._refuse_foreign()
            if fresh:
                self._file.truncate(0)
            self._read(run)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"the journal {self.path} is in use by another run; wait, or name another"
            ) from None

    def _refuse_foreign(self) -> None:
        """Leave alone what is no journal: mending a torn line, or starting anew, would cut it off."""
        self._file.seek(0)
        begun = self._file.read(len(_BEGINNING))
        if begun != _BEGINNING[: len(begun)]:
            raise DataError(f"{self.path} is no journal of trilith eval; name another file")

    def _read(self, run: str) -> None:
        self._file.seek(0)
        raw = self._file.read()
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):  # torn by a kill
            os.truncate(self._file.fileno(), whole)
        lines = raw[:whole].splitlines()
        if not lines:
            self._write({"journal": 1, "run": run})
            return
        try:
            head, *records = [json.loads(line) for line in lines]
            found = head["run"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{self.path} is no journal of trilith eval; name another file") from None
        if found != run:
            raise DataError(
                f"the journal {self.path} is of another suite (run {found[:12]}, expected {run[:12]}): data, "
                "target or scorers differ; name another file, or start anew with --fresh"
            )
        for record in records:
            if "begun" in record:
                self._begun.setdefault(record["begun"], []).append(record)
            elif "ended" in record:
                self._close(record["ended"])
                if record["cost"]:
                    self._begun.setdefault("", []).append({"payer": record["payer"], "held": record["cost"]})
            else:
                self._answers[record["key"]] = record
                self._close(record["key"])

    def _close(self, key: str) -> None:
        if self._begun.get(key):
            self._begun[key].pop()

    def count(self, ledger: Ledger) -> None:
        """Count what was paid before, and what may have been, towards the cap."""
        for record in self._answers.values():
            ledger.recall(record["payer"], record["cost"])
        for calls in self._begun.values():
            for call in calls:
                ledger.owe(call["payer"], call["held"])

    def kept(self, key: str) -> dict[str, Any] | None:
        """Return the record of an answer: `value` and `cost`; None when there is none."""
        return self._answers.get(key)

    @property
    def answers(self) -> dict[str, dict[str, Any]]:
        """All records of answers, by key."""
        return self._answers

    def begin(self, key: str, payer: Payer, held: int) -> None:
        """Note that a call goes out for which so much is set aside."""
        self._write({"begun": key, "payer": payer, "held": held})

    def end(self, key: str, payer: Payer, cost: int) -> None:
        """Note that a call failed, and what it may have cost."""
        self._write({"ended": key, "payer": payer, "cost": cost})

    def add(self, key: str, payer: Payer, value: Any, cost: int | None) -> None:
        """Keep an answer."""
        record = {"key": key, "payer": payer, "value": value, "cost": cost}
        self._write(record)
        self._answers[key] = record

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def close(self, *, remove: bool = False) -> None:
        """Close the file, and remove it when nothing is left to resume."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()
