"""Who may write in a home: one gateway at a time, and each of its workers in a journal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from pathlib import Path
from typing import IO

from trilith.errors import SettingsError

_WAIT_S = 15.0
"""How long a new worker waits for its journal: a sibling may be about to finish reading it."""


class HomeLock:
    """The right to run a gateway on a home; held by the gateway's first process.

    Its workers are started with `token`, and prove with it that they belong to the gateway that runs. They
    hold a share of a second lock, so that a new gateway waits for workers whose parent was killed.
    """

    def __init__(self, home: Path) -> None:
        """Take the lock.

        Raises:
            SettingsError: another gateway runs on this home, or workers of one that was killed still do.
        """
        home.mkdir(parents=True, exist_ok=True)
        self._file = _locked(home / "gateway.lock", fcntl.LOCK_EX, home)
        try:
            with _locked(home / "workers.lock", fcntl.LOCK_EX, home):
                pass
        except SettingsError:
            self._file.close()
            raise
        self.token = secrets.token_hex(16)
        self._file.truncate(0)
        self._file.write(f"{os.getpid()} {self.token}")
        self._file.flush()

    def close(self) -> None:
        """Let another gateway run here."""
        self._file.close()


def join(home: Path, token: str) -> IO[str]:
    """Take a worker's share of the home; close what is returned to leave.

    Raises:
        SettingsError: the gateway that the token belongs to does not run any more.
    """
    words = (home / "gateway.lock").read_text(encoding="utf-8").split()
    if words[1:] != [token]:
        raise SettingsError(f"another gateway runs on {home} than the one that this worker belongs to")
    return _locked(home / "workers.lock", fcntl.LOCK_SH, home)


def instance(home: Path) -> str:
    """Return the home's name among all homes that use one database; made on first use."""
    path = home / "instance"
    with contextlib.suppress(FileExistsError):
        temporary = home / f"instance.{os.getpid()}.{secrets.token_hex(4)}"
        temporary.write_text(secrets.token_hex(8), encoding="utf-8")
        try:
            os.link(temporary, path)  # whole or not at all, and the first one wins
        finally:
            temporary.unlink()
    return path.read_text(encoding="utf-8")


def claim(folder: Path, *, wait: bool) -> IO[str] | None:
    """Lock one worker's journal; None when its worker lives. A death frees it, whatever the cause.

    Raises:
        SettingsError: `wait` was asked for and the journal was not free in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "lock").open("a", encoding="utf-8")
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if not wait:
                file.close()
                return None
            if time.monotonic() > until:
                file.close()
                raise SettingsError(
                    f"another process writes the journal {str(folder)!r}: two workers have one name"
                ) from error
            time.sleep(0.05)


def _locked(path: Path, kind: int, home: Path) -> IO[str]:
    handle = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise SettingsError(
            f"another gateway runs on {home}, and a ledger has one writer. "
            "Stop that gateway, or give this one a `home` of its own"
        ) from error
    return handle
