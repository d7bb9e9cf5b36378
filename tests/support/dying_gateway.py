"""Runs the gateway, and kills it (-9) before or after the n-th call of one function.

python dying_gateway.py trilith_gateway.batch.table:Batches.end after 1 serve
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from typing import Any

from trilith.cli import main


def kill_at(place: str, when: str, number: int) -> None:
    """Wrap the function that `place` names."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for step in owners:
        owner = getattr(owner, step)
    inner, calls = getattr(owner, name), 0

    @functools.wraps(inner)
    def wrapped(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        made = inner(*given, **named)
        if when == "after" and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    kill_at(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.argv[1:] = sys.argv[4:]
    sys.exit(main())
