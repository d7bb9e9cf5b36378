"""What lies beside a batch while it is open: its input under a name of its own, its outcomes, its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_NAME = re.compile(r"(batch_[0-9a-f]{32})\.(input|results|lock)")
_STALE_S = 3600.0
"""A batch that was not made within so long of its input being kept (seconds) was never made."""


class Drawer:
    """One batch's files. Its methods block."""

    def __init__(self, folder: Path, batch_id: str) -> None:
        """Take the folder, and whose files they are."""
        self.input = folder / f"{batch_id}.input"
        self.results = folder / f"{batch_id}.results"
        self.lock = folder / f"{batch_id}.lock"

    def keep(self, given: Path) -> None:
        """Give the input a name that stays when its file is deleted or expires; it may have one already.

        Raises:
            FileNotFoundError: the file is gone.
        """
        if self.input.exists():
            return
        try:
            os.link(given, self.input)
        except FileExistsError:
            return
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links
            part = given.with_name(f"part-{self.input.name}-{secrets.token_hex(4)}")
            shutil.copyfile(given, part)
            part.rename(self.input)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who works on the batch, in this process or another.

        Raises:
            BlockingIOError: somebody else is.
        """
        self.lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.lock.open("a", encoding="utf-8") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def clear(self) -> None:
        """Remove everything."""
        for path in (self.results, self.input, self.lock):
            path.unlink(missing_ok=True)


def sweep(folder: Path, ended: Callable[[str], bool | None]) -> None:
    """Remove what a kill has left of batches that have ended, or were never made.

    Args:
        folder: Where drawers are.
        ended: Says of a batch whether it has ended; None: there is none.
    """
    found: dict[str, float] = {}
    for path in folder.glob("batch_*"):
        if (name := _NAME.fullmatch(path.name)) is not None:
            with contextlib.suppress(FileNotFoundError):
                found[name[1]] = max(found.get(name[1], 0.0), path.stat().st_ctime)
    for id, at in found.items():
        over = ended(id)
        if over or (over is None and time.time() - at > _STALE_S):
            drawer = Drawer(folder, id)
            with contextlib.suppress(BlockingIOError), drawer.locked():  # whoever ended it may be clearing it
                drawer.clear()
