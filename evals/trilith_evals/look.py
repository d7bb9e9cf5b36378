"""How often a held-out dataset was looked at: a test that is asked again and again is tuned on in the end.

The count is a file beside the data, one line per run, so that it goes where the data goes. It has no content.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from trilith_evals import table
from trilith_evals.dataset import Dataset


def counted(path: Path) -> Path:
    """Return where a dataset's looks are."""
    return path.with_name(f"{table.stem(path)}.looks.jsonl")


def note(data: Dataset, suite: str, target: str) -> int:
    """Note that a run saw a held-out dataset; returns how often its part was seen, this time included.

    Rows in memory, data that is not held out, and a folder that cannot be written to are not counted: 0.
    """
    if data.path is None or not data.held_out:
        return 0
    look = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "suite": suite,
        "target": target,
        "split": data.split,
        "content_digest": data.content_digest,
    }
    try:
        with counted(data.path).open(
            "a", encoding="utf-8"
        ) as file:  # one short write: safe between processes
            file.write(json.dumps(look, ensure_ascii=False) + "\n")
    except OSError:
        return 0
    return seen(data)


def seen(data: Dataset) -> int:
    """Return how often runs saw this part of the file, whatever its rows were then."""
    if data.path is None or not counted(data.path).is_file():
        return 0
    count = 0
    for line in counted(data.path).read_text(encoding="utf-8").splitlines():
        try:
            look = json.loads(line)
        except ValueError:  # a line that a crash cut off
            continue
        # A look at the whole saw every part of it.
        count += isinstance(look, dict) and look.get("split", "") in ("", data.split)
    return count
