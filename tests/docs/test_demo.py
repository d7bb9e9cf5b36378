"""The demo names the step that failed, and stops what it started however it ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.installed import until

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "demo.py"


@pytest.fixture
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_under_test", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(module: Any, error: BaseException) -> SystemExit:
    made = module.Demo()
    made.home = Path("/nowhere")
    with pytest.raises(SystemExit) as left, made.step("Dance"):
        raise error
    return left.value


def test_a_step_that_fails_is_named_and_the_exit_code_is_1(demo: Any) -> None:
    failed = run(demo, demo.StepFailed("the model said nothing"))
    assert failed.code == "demo: step 1 (Dance) failed: the model said nothing"  # a text: exit code 1
    assert run(demo, OSError("disk")).code == "demo: step 1 (Dance) failed: OSError: disk"


def test_an_interrupted_step_is_named_and_the_exit_code_is_130(
    demo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(demo, KeyboardInterrupt()).code == 130
    assert "interrupted in step 1 (Dance)" in capsys.readouterr().err


def test_a_command_that_fails_fails_the_step(demo: Any) -> None:
    made = demo.Demo()
    made.home = Path("/nowhere")
    with pytest.raises(SystemExit) as left, made.step("Dance"):
        made.command("ingest", "nowhere")
    assert "step 1 (Dance) failed: `trilith ingest nowhere` ended with 2" in str(left.value.code)


def test_a_demo_that_is_told_to_end_ends_and_names_its_step(tmp_path: Path) -> None:
    # An installation that waits for another one: the demo stays in its first step.
    import fcntl

    (tmp_path / "install.lock").touch()
    with (tmp_path / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {**os.environ, "TRILITH_DATA_HOME": str(tmp_path)}
        child = subprocess.Popen(
            [sys.executable, str(DEMO)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None
        until(lambda: b"[1]" in child.stdout.readline(), what="the first step")  # type: ignore[union-attr]
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert b"interrupted in step 1" in said
