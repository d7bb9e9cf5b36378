"""Schemathesis over a running gateway's OpenAPI page for as long as one likes: `make fuzz`."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import httpx
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from support.fuzz import SEED, aimed, schemathesis
from support.world import TARGETS, world


def main() -> int:
    """Run, print what was found, and return schemathesis' exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=300, help="random requests to each operation")
    parser.add_argument("--seed", type=int, default=SEED, help="where the random numbers begin")
    chosen = parser.parse_args()
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, world(Path(folder) / "home") as gateway:
        page = httpx.get(f"{gateway.url}/openapi.json").json()
        code, said = schemathesis(
            gateway.url,
            aimed(page, TARGETS),
            Path(folder),
            key=gateway.token,
            examples=chosen.examples,
            seed=chosen.seed,
        )
    if code:
        print(said)
    cases = re.search(r"([\d,]+) generated", said)
    sent, took = cases[1] if cases else "?", time.monotonic() - began
    print(
        f"{sent} requests to {len(page['paths'])} paths in {took:.0f} s, "
        f"seed {chosen.seed}: {'something was found' if code else 'nothing was found'}"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
