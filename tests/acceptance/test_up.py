"""`trilith up` that is ended while vLLM is still starting leaves no process, however it is ended."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from support.installed import TRILITH, Platform, free_port, until


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_is_left_of_a_platform_that_is_ended_while_its_engine_starts(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    engine = {"model": "smollm2-135m-instruct", "port": free_port()}
    model = {"kind": "chat", "upstream": {"engine": "smollm2"}}
    made = Platform(tmp_path, {"engines": {"smollm2": engine}, "models": {"smollm2": model}})
    made.command("engines", "install", "vllm")
    with made.log.open("ab") as log:
        made.process = subprocess.Popen([TRILITH, "up"], env=made.environment, stdout=log, stderr=log)
    until(lambda: any("vllm.entrypoints" in line for line in made.processes()), what="vLLM being started")
    assert made.stop(number) == code
    until(lambda: made.processes() == [], seconds=20, what="the last process being gone")
