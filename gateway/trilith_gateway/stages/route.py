"""Stage 5, route: release -> the call that its upstream understands."""

from __future__ import annotations

from typing import Any

from trilith.seams import Call
from trilith.types import Kind
from trilith_gateway import sse
from trilith_gateway.exchange import Api, Exchange

_PATHS = {
    Api.CHAT: "/v1/chat/completions",
    Api.COMPLETION: "/v1/completions",
    Api.EMBEDDING: "/v1/embeddings",
}


class Route:
    """Prepares the upstream's call."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    async def __call__(self, exchange: Exchange) -> None:
        """Set `exchange.call`; refuses when the release is not ready to answer."""
        if exchange.answer is not None:
            return
        body = _rewritten(exchange)
        exchange.call = Call(
            path=_PATHS.get(exchange.api, exchange.path),
            body=sse.dump(body),
            headers={"content-type": "application/json", "x-request-id": exchange.id},
            timeout_s=self._timeout_s,
            shield=exchange.protection if exchange.target.kind is Kind.RAG else None,
        )


def _rewritten(exchange: Exchange) -> dict[str, Any]:
    """Return the caller's body with the upstream's model name, a bounded answer, and usage in streams."""
    if exchange.api is Api.PREDICT:
        return exchange.body
    release, body = exchange.target, {**exchange.body}
    body["model"] = release.upstream_model
    if exchange.api is Api.EMBEDDING:
        return body
    if body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
        body["max_tokens"] = release.max_output_tokens
    if exchange.stream:
        options = {**(body.get("stream_options") or {}), "include_usage": True}
        if release.counts_stream_usage:
            options["continuous_usage_stats"] = True  # so that a stream which is given up is charged exactly
        body["stream_options"] = options
    return body
