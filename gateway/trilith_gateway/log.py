"""Logs: one record a line, JSON or text, with fields from a closed list and secrets blotted out."""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from typing import TextIO

FIELDS = frozenset(
    {"request", "operation", "model", "release", "team", "key", "status", "code", "ms", "upstream"}
)
"""What a record's `extra` may add to a line; anything else is left out, content above all."""

_SECRET = re.compile(
    r"""tl_[0-9a-z]+_[\w-]{16,}              # a gateway's key
    |\b(?:sk|pk|rk|hf|ghp|gho|xox[abp])[-_][\w-]{12,}  # providers' keys
    |(?<=bearer\s)[^\s"',]+|(?<=basic\s)[^\s"',]+
    |(?<=://)[^/\s:@]+:[^/\s@]+(?=@)       # a password in an address
    |\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*""",  # a signed token
    re.IGNORECASE | re.VERBOSE,
)


def redact(text: str) -> str:
    """Return `text` with everything that looks like a secret replaced."""
    return _SECRET.sub("[secret]", text)


class JsonFormatter(logging.Formatter):
    """Makes one line of JSON out of a record: time (UTC), level, logger, message, and listed fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without secrets and without the values that an exception carries."""
        return json.dumps(self.fields(record))

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """Return what the line tells."""
        line: dict[str, object] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        for name in sorted(FIELDS & record.__dict__.keys()):
            value = record.__dict__[name]
            line[name] = value if isinstance(value, int | float | None) else redact(str(value))
        if record.exc_info and (kind := record.exc_info[0]) is not None:
            line["error"] = kind.__name__  # its text may quote what a caller wrote
            line["where"] = [
                f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return line


class TextFormatter(JsonFormatter):
    """Makes one line of text out of a record, with the same fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without secrets and without the values that an exception carries."""
        line = self.fields(record)
        places = line.pop("where", [])
        head = " ".join(str(line.pop(name)) for name in ("at", "level", "logger", "message"))
        more = "".join(f" {name}={value}" for name, value in line.items())
        last = f" at {places[-1]}" if isinstance(places, list) and places else ""
        return f"{head}{more}{last}".replace("\n", "\\n")


def configure(stream: TextIO, *, level: int = logging.WARNING, text: bool = False) -> None:
    """Send every log of the process to `stream`, as JSON lines or as text, in place of all other handlers."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
