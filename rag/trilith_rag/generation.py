"""Generations of an index on disk: one is built while another is read; a pointer file names the present one.

<home>/indexes/<name>/current              number of the generation that readers open
<home>/indexes/<name>/generations/<number> shard/, ledger.db, open (held by readers while they read)
<home>/indexes/<name>/embeddings.db        vectors by the hash of their text, for all generations
<home>/indexes/<name>/ingest.lock          held by the one process that builds
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from trilith.errors import EngineError

_BLOCK = 1 << 20


class Generations:
    """The generations of one index."""

    def __init__(self, folder: Path) -> None:
        """Take the index's folder, which need not exist yet."""
        self.folder = folder
        self._all = folder / "generations"
        self._pointer = folder / "current"

    def current(self) -> Path | None:
        """Return the present generation's folder; None when nothing was published or it is gone."""
        with suppress(FileNotFoundError):
            found = self._all / self._pointer.read_text(encoding="ascii").strip()
            return found if found.is_dir() and found != self._all else None
        return None

    def stamp(self) -> str | None:
        """Return what changes whenever another generation is published; None when there is none."""
        with suppress(FileNotFoundError):
            number = self._pointer.read_text(encoding="ascii").strip()
            return f"{number}-{self._pointer.stat().st_mtime_ns}"
        return None

    def create(self, copy_of: Path | None) -> Path:
        """Return a new generation's folder, with the contents of another one in it.

        It is nobody's until `publish`; a build that dies leaves it behind for `sweep`.
        """
        self._all.mkdir(parents=True, exist_ok=True)
        number = max((int(path.name) for path in self._all.iterdir() if path.name.isdecimal()), default=0) + 1
        made = self._all / f"{number:08d}"
        made.mkdir()
        if copy_of is not None:
            copy_sparse(copy_of, made)
        (made / "open").touch()
        return made

    def publish(self, generation: Path) -> None:
        """Make a generation the present one, in one step that a crash cannot halve."""
        temporary = self._pointer.with_suffix(".new")
        with temporary.open("w", encoding="ascii") as file:
            file.write(generation.name + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._pointer)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def sweep(self) -> None:
        """Remove every generation but the present one that no reader holds. Only for the builder."""
        if not self._all.is_dir():
            return
        current = self.current()
        for path in self._all.iterdir():
            if path == current:
                continue
            with suppress(BlockingIOError), _flocked(path / "open", fcntl.LOCK_EX, create=True):
                shutil.rmtree(path)

    def hold(self) -> tuple[Path, int] | None:
        """Take hold of the present generation for reading, so that it is not swept away.

        Returns:
            Its folder, and a file descriptor that holds it until it is closed; None when nothing is
            published.
        """
        while (found := self.current()) is not None:
            try:
                held = os.open(found / "open", os.O_RDONLY)
            except FileNotFoundError:
                if self.current() == found:  # not swept under our hands, but damaged
                    return None
                continue
            with suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if self.current() == found:
                    return found, held
            os.close(held)
        return None


def index_folder(home: Path, name: str) -> Path:
    """Return where an index's files are; any name gives one folder, no two names the same."""
    return home / "indexes" / quote(name, safe="").replace(".", "%2E")


@contextmanager
def building(folder: Path, name: str) -> Iterator[None]:
    """Be the one process that builds an index.

    Raises:
        EngineError: another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _flocked(folder / "ingest.lock", fcntl.LOCK_EX, create=True):
            yield
    except BlockingIOError as error:
        raise EngineError(
            f"another `trilith ingest` is at work on the index {name!r}; wait until it is done"
        ) from error


@contextmanager
def _flocked(path: Path, operation: int, *, create: bool) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a folder's contents, leaving holes where a file has only zeros.

    The engine preallocates about 100 MB a shard of which a small index uses 1; a plain copy writes it all.
    """
    for folder, _, files in os.walk(source):
        into = target / Path(folder).relative_to(source)
        into.mkdir(exist_ok=True)
        for name in files:
            with (Path(folder) / name).open("rb") as read, (into / name).open("wb") as written:
                while block := read.read(_BLOCK):
                    if block.count(0) == len(block):
                        written.seek(len(block), os.SEEK_CUR)
                    else:
                        written.write(block)
                written.truncate()
