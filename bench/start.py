"""Measures what it costs to import the SDK, with its peers beside it; run with `make bench`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

RUNS = 5
PROBE = """
import json, sys, time
before = len(sys.modules)
started = time.process_time()
import {module}
print(json.dumps([len(sys.modules) - before, time.process_time() - started]))
"""
# litellm asks the network for its price list while it is imported, unless it is told not to.
ENVIRONMENT = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def main() -> None:
    """Print modules and CPU seconds of an import in a fresh process, median of five."""
    print(f"import in a fresh process, median of {RUNS}, Python {sys.version.split()[0]}\n")
    print(f"{'':<18}{'modules':>8}{'CPU s':>8}")
    for module in ("trilith", "trilith.settings", "trilith_evals", "openai", "litellm"):
        modules, seconds = zip(*(measure(module) for _ in range(RUNS)), strict=True)
        print(f"{module:<18}{statistics.median(modules):>8.0f}{statistics.median(seconds):>8.2f}")


def measure(module: str) -> tuple[int, float]:
    """Import `module` in a new process; returns modules and CPU seconds."""
    command = [sys.executable, "-c", PROBE.format(module=module)]
    said = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    modules, seconds = json.loads(said.splitlines()[-1])
    return modules, seconds


if __name__ == "__main__":
    main()
