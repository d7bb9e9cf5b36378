"""Reads from vLLM's own metrics how full a replica is: other gateways' requests count there as well."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Sequence

from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.upstream.http import HttpUpstream
from trilith_gateway.upstream.renamed import served

_EVERY_S = 1.0
_SAMPLE = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc)(?:\{[^}]*\})? (\S+)$", re.M
)


def pressure(metrics: bytes) -> float:
    """Return 1 for an engine with room, more for one where requests wait or the cache is nearly full.

    Args:
        metrics: vLLM's `/metrics`.
    """
    found = dict.fromkeys((b"num_requests_running", b"num_requests_waiting", b"kv_cache_usage_perc"), 0.0)
    for name, value in _SAMPLE.findall(metrics):
        number = float(value)
        if 0 < number < math.inf:  # what is no number would put every replica out of order
            found[name] += number
    full = max(0.0, found[b"kv_cache_usage_perc"] - 0.8) * 10
    return 1 + found[b"num_requests_waiting"] + full


async def follow(endpoints: Sequence[Endpoint]) -> None:
    """Keep every endpoint's pressure up to date, until cancelled; who does not tell counts as having room."""
    while True:
        await asyncio.gather(*(_read(endpoint) for endpoint in endpoints))
        await asyncio.sleep(_EVERY_S)


async def _read(endpoint: Endpoint) -> None:
    upstream = served(endpoint.upstream)
    if isinstance(upstream, HttpUpstream):
        found = 1.0  # what it was stays until the answer is there: a busy engine is slow to tell
        with contextlib.suppress(Exception):  # whatever it is: the other replicas go on being asked
            status, body = await upstream.fetch("/metrics", timeout_s=2)
            if status == 200:
                found = pressure(body)
        endpoint.pressure = found
