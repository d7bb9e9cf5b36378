"""An in-memory predictor that speaks the Open Inference Protocol: the twin of a classifier of texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from trilith.seams import Call
from trilith.testing.upstream import MemoryReply, parts


class MemoryPredictor:
    """Says a label and how sure it is of it, for each text of a request's first input.

    Args:
        classify: Makes label and confidence from a text.
        fail_with: What the first calls end in: an HTTP status to answer with, or an error to raise.
    """

    def __init__(
        self, classify: Callable[[str], tuple[str, float]], *, fail_with: Sequence[int | Exception] = ()
    ) -> None:
        self.calls: list[Call] = []
        """Every call so far."""
        self._classify = classify
        self._failures = list(fail_with)

    async def send(self, call: Call) -> MemoryReply:
        """Answer one call."""
        self.calls.append(call)
        if self._failures:
            failure = self._failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return MemoryReply(failure, parts([b'{"error": "scripted"}']))
        found = [self._classify(text) for text in json.loads(call.body)["inputs"][0]["data"]]
        rows = len(found)
        shares = [share for _, sure in found for share in (sure, 1 - sure)]
        labels = [label for label, _ in found]
        outputs = [
            {"name": "predict", "datatype": "BYTES", "shape": [rows], "data": labels},
            {"name": "predict_proba", "datatype": "FP32", "shape": [rows, 2], "data": shares},
        ]
        reply = MemoryReply(200, parts([json.dumps({"model_name": "memory", "outputs": outputs}).encode()]))
        reply.headers = {**reply.headers, "x-trilith-rows": str(rows)}
        return reply

    async def ready(self) -> bool:
        """Return True."""
        return True

    async def aclose(self) -> None:
        """Do nothing."""
