"""Images, audio and moderation: what is read of such requests, and what they use.

The bodies pass through; read are the model, the text, and what a price is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trilith.errors import PermissionDeniedError
from trilith.types import Usage
from trilith_gateway import multipart, request
from trilith_gateway.usage import read_usage

Body = dict[str, Any]

_MOST_IMAGES = 100
_BYTES_A_SECOND = 1000
"""Speech is hardly ever stored in fewer: 8 kbit/s."""
_TOKENS_A_SECOND = 25
"""More than models make of a second of sound (10 to 12.5), or say about it."""
_TOKENS_A_CHARACTER = 8
"""More sound than a character takes: at 20 tokens a second, nearly half a second."""
_WAV = re.compile(rb"RIFF....WAVE.{0,256}?fmt .{4}(?:\x01\0|\x03\0|\xfe\xff)(..)(....).{6}(..)", re.DOTALL)
"""Channels, samples a second, and bits a sample, which decoders go by; the rate in bytes may say anything."""


def parse_image(raw: bytes, headers: Mapping[str, str]) -> Body:
    """Read a request for new images."""
    body = request.decode(raw)
    request.check_model(body)
    request.check_prompt(body)
    request.check_generation(body)
    _check_count(body)
    return body


def parse_image_form(raw: bytes, headers: Mapping[str, str]) -> Body:
    """Read a request that sends an image along."""
    body = multipart.read(raw, headers)
    request.check_model(body)
    if not any(name in body for name in ("image", "image[]")):
        request.refuse("`image` is missing, expected a file.", "image")
    _read_count(body)
    _read_flag(body, "stream")
    body["files"] = sum(part.filename is not None for part in multipart.parts(raw, headers["content-type"]))
    return body


def parse_audio_form(raw: bytes, headers: Mapping[str, str]) -> Body:
    """Read a request that sends a recording along."""
    body = multipart.read(raw, headers)
    request.check_model(body)
    if not isinstance(place := body.get("file"), tuple):
        request.refuse("`file` is missing, expected a recording.", "file")
    _read_flag(body, "stream")
    body["file"] = {"bytes": place[1] - place[0], "seconds": _seconds(raw, *place)}
    return body


def parse_speech(raw: bytes, headers: Mapping[str, str]) -> Body:
    """Read a request for speech."""
    body = request.decode(raw)
    request.check_model(body)
    if type(body.get("input")) is not str or not body["input"]:
        request.refuse("`input` is missing or empty, expected a text.", "input")
    return body


def _check_count(body: Body) -> None:
    if (count := body.get("n")) is not None and (type(count) is not int or not 1 <= count <= _MOST_IMAGES):
        request.refuse(f"`n` is expected to be a whole number from 1 to {_MOST_IMAGES}.", "n")


def _read_count(body: Body) -> None:
    given = body.get("n")
    if isinstance(given, str):
        body["n"] = int(given) if given.isdecimal() and len(given) < 5 else 0
    _check_count(body)


def _read_flag(body: Body, name: str) -> None:
    """Form fields are texts; a flag among them is read as JSON's."""
    if isinstance(given := body.get(name), str):
        if given.lower() not in ("true", "false"):
            request.refuse(f"`{name}` is expected to be true or false.", name)
        body[name] = given.lower() == "true"


def _seconds(raw: bytes, start: int, end: int) -> int | None:
    """Return how long a recording is, begun seconds counted; None where only the upstream can tell."""
    found = _WAV.match(raw[start : min(end, start + 512)])
    if found is None:
        return None
    channels, samples, bits = (int.from_bytes(part, "little") for part in found.groups())
    rate = channels * samples * bits // 8
    return -(-(end - start) // rate) if rate else None


def most_images(body: Body, size: int, most_output: int) -> Usage:
    """Return the most that a request for images can use; tokens are not known before."""
    return Usage(input_tokens=_prompt_bytes(body), images=body.get("n") or 1)


def most_heard(body: Body, size: int, most_output: int) -> Usage:
    """Return the most that a recording can use."""
    return heard(body, b"")


def spoken(body: Body, answer: bytes) -> Usage:
    """Return what a text to be spoken uses."""
    return Usage(characters=len(body["input"]))


def most_spoken(body: Body, size: int, most_output: int) -> Usage:
    """Return the same; it is known before."""
    return spoken(body, b"")


def heard(body: Body, answer: bytes) -> Usage:
    """Return how long a recording is at most, for answers that do not tell."""
    known = body["file"]["seconds"]
    return Usage(seconds=known if known is not None else -(-body["file"]["bytes"] // _BYTES_A_SECOND))


def images_asked(body: Body, answer: bytes) -> Usage:
    """Return how many images were asked for, for answers that do not show them."""
    return Usage(images=body.get("n") or 1)


def tokens_of_images(body: Body, each: int) -> Usage:
    """Return the most that images come to where they are priced by the token, `each` of them to so many."""
    return Usage(body.get("files", 0) * each, (body.get("n") or 1) * max(1, each), requests=0)


def tokens_of_speech(body: Body, each: int) -> Usage:
    """Return the most that a text and its sound come to where they are priced by the token."""
    words = f"{body['input']}{body.get('instructions', '')}"
    return Usage(len(words.encode("utf-8", "replace")), len(body["input"]) * _TOKENS_A_CHARACTER, requests=0)


def tokens_of_recording(body: Body, each: int) -> Usage:
    """Return the most that a recording and its text come to where they are priced by the token."""
    most = heard(body, b"").seconds * _TOKENS_A_SECOND
    return Usage(most + _prompt_bytes(body), most, requests=0)


def _prompt_bytes(body: Body) -> int:
    return len(str(body.get("prompt", "")).encode("utf-8", "replace"))


def image_usage(answer: Body) -> Usage | None:
    """Read usage from an answer with images, or from the last event of a stream of one."""
    tokens = _tokens(answer.get("usage"))
    data = answer.get("data")
    images = len(data) if isinstance(data, list) else int(str(answer.get("type", "")).endswith(".completed"))
    if tokens is None and not images:
        return None
    return Usage(
        input_tokens=tokens.input_tokens if tokens else 0,
        output_tokens=tokens.output_tokens if tokens else 0,
        images=images,
    )


def audio_usage(answer: Body) -> Usage | None:
    """Read usage from a transcript: seconds or tokens, or the length that a verbose one tells."""
    told = answer.get("usage")
    duration = told.get("seconds") if isinstance(told, dict) else answer.get("duration")
    if isinstance(duration, str):
        duration = float(duration) if re.fullmatch(r"\d{1,9}(\.\d+)?", duration) else None
    if isinstance(duration, int | float) and not isinstance(duration, bool) and 0 <= duration < 1e9:
        return Usage(seconds=int(-(-duration // 1)))
    return _tokens(told)


def _tokens(told: object) -> Usage | None:
    if not isinstance(told, dict) or "input_tokens" not in told:
        return None
    return read_usage(
        {"prompt_tokens": told.get("input_tokens"), "completion_tokens": told.get("output_tokens")}
    )


def refuse_protected(body: Body, protection: object) -> Body:
    """Refuse content that protection cannot look into.

    Raises:
        PermissionDeniedError: always.
    """
    raise PermissionDeniedError(
        "This model's policy keeps personal data from it, and cannot look into images and recordings. "
        "Use a model without a policy for them.",
        status_code=403,
        code="policy_unsupported",
        type="permission_error",
    )
