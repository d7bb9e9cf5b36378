"""One whole platform on real engines, started as a user starts it and shared by all acceptance tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.installed import Platform, free_port

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The demo's platform in a home of its own: vLLM, Qdrant, MLflow, Presidio, the gateway."""
    folder = tmp_path_factory.mktemp("platform")
    settings = yaml.safe_load((DEMO / "trilith.yaml").read_text(encoding="utf-8"))
    del settings["home"], settings["gateway"]
    settings["engines"]["smollm2"] |= {"port": free_port(), "args": ["--enable-log-requests"]}
    settings["indexes"]["encyclopedia"]["source"] = str(DEMO / "documents")
    for name in ("data", "contract"):
        settings["training"]["bike-demand"][name] = str(DEMO / settings["training"]["bike-demand"][name])
    made = Platform(folder, settings)
    made.environment["VLLM_LOGGING_LEVEL"] = "DEBUG"  # vLLM then logs prompts, which the privacy test reads
    for name in ("TMPDIR", "VLLM_CACHE_ROOT"):  # the privacy test searches every file that the run wrote
        (folder / name).mkdir()
        made.environment[name] = str(folder / name)
    made.command("engines", "install", "vllm")
    made.command("ingest")
    made.command("train")
    made.start("up", seconds=900)
    yield made
    assert made.stop(signal.SIGINT) == 0
    assert made.processes() == []


@pytest.fixture(scope="session")
def key(platform: Platform) -> str:
    """A key that every model answers."""
    return platform.command("keys", "create", "tests", "--team", "tests", "--quiet")
