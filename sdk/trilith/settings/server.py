"""Settings of the server itself: what it listens on, tells, and stores."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from trilith.settings.section import Section


class GatewaySettings(Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    max_body_bytes: int = Field(8 * 1024 * 1024, ge=1024)
    """Largest request body that is read (bytes)."""
    max_eval_run_bytes: int = Field(16 * 1024 * 1024, ge=1024)
    """Largest run of evals, and largest set of findings, that `/admin/v1/evals` takes (bytes)."""
    request_timeout_s: float = Field(600, gt=0)
    """Longest time that one request may take (seconds)."""
    drain_s: float = Field(20, ge=0)
    """How long a stopping gateway lets open answers finish (seconds)."""
    drain_notice_s: float = Field(0, ge=0, le=300)
    """How long a stopping gateway still takes requests while `/readyz` already says no (seconds); on
    Kubernetes a little more than the readiness probe's period."""
    head_timeout_s: float = Field(10, gt=0)
    """How long a caller may take to send a request's head (seconds)."""
    body_timeout_s: float = Field(60, gt=0)
    """How long a caller may take to send a request's body (seconds)."""
    write_timeout_s: float = Field(120, gt=0)
    """How long an answer may wait for a caller that does not read it (seconds)."""
    keep_alive_s: float = Field(75, gt=0)
    """How long an idle connection is kept (seconds)."""
    log: Literal["text", "json"] = "text"
    """How the log is written to standard error: plain text, or JSON lines without content or secrets."""
    cache_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """Most memory for kept answers, in each worker (bytes). With `store.redis_url`: what teams' shares are
    counted from; how much Redis takes in all is its own `maxmemory`."""
    cache_team_share: float = Field(0.5, gt=0, le=1)
    """Most of `cache_bytes` that one team's answers may take, so that no team drives out all others."""
    half_close: bool = False
    """Answer callers who have closed their sending side. Off: they are gone, and their work is stopped."""


class TelemetrySettings(Section):
    """Traces and metrics."""

    store_spans: bool = True
    """Keep finished spans in `<home>/traces.db`, for `trilith traces`."""
    otlp_endpoint: str | None = None
    """Also send spans to this OTLP/HTTP collector, for example `http://127.0.0.1:4318/v1/traces`."""
    content: bool = False
    """Record prompts and answers on spans. Off: no text of a caller is ever recorded."""


class StoreSettings(Section):
    """Where keys, ledger, audit and leases are kept."""

    url: str | None = Field(None, pattern=r"^postgres(ql)?://")
    """PostgreSQL (`postgresql://user:password@host/name`); none keeps everything in SQLite in `home`."""
    durability: Literal["strict", "batched"] = "batched"
    """`batched` survives the death of a process, `strict` of the machine: every charge waits for the disk."""
    redis_url: SecretStr | None = None
    """Redis or Valkey (`redis://host:6379/0`): rate limits and cached answers that several machines share.
    None: each machine has its own."""
    redis_away: Literal["open", "closed"] = "open"
    """When Redis does not answer: `open` keeps rate limits on each machine alone, `closed` refuses requests
    of keys that have limits with 503."""


class BatchSettings(Section):
    """Files that callers upload, and the batches that are made of them."""

    max_file_bytes: int = Field(100 * 1024 * 1024, ge=1024)
    """Largest file that is taken (bytes)."""
    team_bytes: int = Field(1024 * 1024 * 1024, ge=1024)
    """Most that one team's files may come to (bytes)."""
    keep_days: float = Field(30, gt=0)
    """How long a file is kept when its owner does not say (days)."""
    max_lines: int = Field(50_000, ge=1)
    """Most requests of one batch."""
    concurrency: int = Field(4, ge=1, le=256)
    """How many lines of one batch are under way at once."""
    yield_above: int = Field(16, ge=1)
    """With so many other requests open in this process, batches wait."""
