"""What a connection may take of the server, in size and in time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What a connection may take of the server."""

    head_bytes: int = 64 * 1024
    """Longest head of a request."""
    headers: int = 128
    """Most headers of a request."""
    head_s: float = 10.0
    """Longest time until a head is complete (seconds)."""
    body_s: float = 60.0
    """Longest time until a body is complete (seconds)."""
    write_s: float = 120.0
    """Longest time that an answer waits for its reader (seconds)."""
    keep_alive_s: float = 75.0
    """Longest rest between two requests (seconds)."""
    half_close: bool = False
    """Whether a caller that has closed its sending side still gets the answer. Off, because a caller that has
    gone away looks just the same."""
