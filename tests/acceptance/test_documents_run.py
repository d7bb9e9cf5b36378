"""What the documents show runs as it stands, but for the address and the key."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.installed import Platform

ROOT = Path(__file__).resolve().parents[2]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def here(text: str, platform: Platform, key: str) -> str:
    """Put this platform's address and key in; the embedded gateway's place takes the one that runs."""
    text = re.sub(r'Client\.embedded\("[^"]*"\)', "Client()", text)
    text = text.replace("http://127.0.0.1:8080", platform.url)
    return re.sub(r'api_key="[^"]*"', f'api_key="{key}"', text).replace("API_KEY=...", f"API_KEY={key}")


@pytest.mark.parametrize(
    ("document", "shows"),
    [
        ("README.md", "super_bowl_50.md"),
        ("docs/quickstart.md", "Paris"),
        ("sdk/README.md", "super_bowl_50.md"),
        ("docs/how-to/use-the-client-you-have.md", ""),
        ("docs/how-to/run-without-a-server.md", "bike-demand"),
        ("docs/how-to/trace-an-app.md", ""),
    ],
)
def test_the_python_of_a_document_runs(platform: Platform, key: str, document: str, shows: str) -> None:
    environment = platform.environment | {"TRILITH_BASE_URL": platform.url, "TRILITH_API_KEY": key}
    for text in blocks(document, "python"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", here(text, platform, key)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert shows in done.stdout


@pytest.mark.parametrize("document", ["docs/quickstart.md", "docs/how-to/use-the-client-you-have.md"])
def test_the_curl_of_a_document_gets_an_answer(platform: Platform, key: str, document: str) -> None:
    (text,) = (text for text in blocks(document, "bash") if "curl" in text)
    script = "set -euo pipefail\n" + here(text, platform, key).replace("curl ", "curl -sS --fail-with-body ")
    environment = platform.environment | {"TRILITH_API_KEY": key}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_of_the_quickstart_run(platform: Platform) -> None:
    shown = [platform.command(*line.split()) for line in ("models", "costs", "audit list", "traces")]
    assert all(shown)
