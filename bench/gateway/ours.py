"""Our own rows: the gateway with more and more switched on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.gateway.process import ROOT
from bench.gateway.target import BIN, Place, Target

PRICED = "price: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}"


def commit(peers: Path) -> str:
    """Return the commit that is measured, with a mark when files differ from it."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=7"],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def make_key(folder: Path, *limits: str) -> str:
    """Make a key for the gateway whose settings are in `folder`."""
    made = [str(BIN / "trilith"), "keys", "create", "bench", "--quiet", *limits]
    return subprocess.run(made, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def trilith(
    name: str, *, spans: bool, model: str = PRICED, policies: str = "", limits: bool = True
) -> Target:
    """Return a row of our own."""

    def command(place: Place) -> list[str]:
        shutil.rmtree(place.folder / "home", ignore_errors=True)
        (place.folder / "trilith.yaml").write_text(
            f"home: home\ngateway: {{port: {place.port}}}\n"
            f"telemetry: {{store_spans: {str(spans).lower()}}}\n{policies}"
            f'models:\n  m: {{kind: chat, upstream: {{url: "{place.upstream}/v1"}}, {model}}}\n'
        )
        return [str(BIN / "trilith"), "serve"]

    given = ("--budget-usd", "1000000", "--requests-per-minute", "100000000") if limits else ()
    return Target(
        name,
        commit,
        command,
        lambda folder: make_key(folder, *given),
        ready_s=60,
        ready_path="/readyz",
    )


OURS = (
    trilith("trilith bare", spans=False, model="max_output_tokens: 1024", limits=False),
    trilith("trilith full", spans=False),
    trilith("trilith full + tracing", spans=True),
    trilith(
        "trilith full + PII",
        spans=False,
        model=f"{PRICED}, policy: private",
        policies="policies: {private: {}}\n",
    ),
)
