"""Who has a local port: a claim that lives exactly as long as an engine's launcher.

Every engine of a user claims its port in `<data>/run`. A platform that was killed leaves an engine that still
answers while its launcher ends it; the claim is how the next platform tells that one from a healthy engine.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from trilith_gateway.engines import place


class PortClaim:
    """The lock on one port's file; the launcher inherits it."""

    def __init__(self, fd: int, path: Path) -> None:
        """Take a locked file; `claim` makes one."""
        self.fd = fd
        self._path = path

    def renew(self) -> None:
        """Say that this process stands behind the engine; the launcher replaces that by "stopping"."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let go, once no launcher of ours runs any more."""
        self._path.unlink(missing_ok=True)
        os.close(self.fd)


def claim(port: int) -> PortClaim | None:
    """Claim a port; None while another launcher, or the platform behind it, has it."""
    path = _path(port)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if not _is(fd, path):  # released, and so removed, between our two steps
        os.close(fd)
        return None
    made = PortClaim(fd, path)
    made.renew()
    return made


def stopping(port: int) -> bool:
    """Say whether the engine that has the port is ending, or about to because its platform is dead."""
    try:
        said = _path(port).read_bytes()
    except FileNotFoundError:
        return False
    return not (said.isdigit() and _alive(int(said)))


def free(port: int) -> bool:
    """Say whether a server could listen on the port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections do not count
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _is(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _alive(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _path(port: int) -> Path:
    return place.data_home() / "run" / f"port-{port}.lock"
