"""How vLLM is started: what the settings say, on this machine, with nothing of ours in its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from trilith.errors import EngineError
from trilith.settings.engine import EngineSettings
from trilith.settings.schema import Settings
from trilith_gateway.engines import Engines, place
from trilith_gateway.engines.vllm import command, environment, model_path


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_the_settings_reach_the_command_line() -> None:
    settings = EngineSettings(port=8109, dtype="bfloat16", max_model_len=512, kv_cache_gib=0.5)
    words = command("tiny", settings, "cpu", "/models/tiny")
    assert option(words, "--model") == "/models/tiny"
    assert option(words, "--served-model-name") == "tiny"
    assert option(words, "--host") == "127.0.0.1"
    assert option(words, "--port") == "8109"
    assert option(words, "--dtype") == "bfloat16"
    assert option(words, "--max-model-len") == "512"
    assert option(words, "--kv-cache-memory-bytes") == str(512 * 1024**2)


def test_further_arguments_come_last_and_win() -> None:
    words = command("tiny", EngineSettings(args=("--dtype", "half")), "cpu", "/models/tiny")
    assert words[-2:] == ["--dtype", "half"]


def test_prompts_are_not_logged_unless_asked_for_by_name() -> None:
    words = command("tiny", EngineSettings(), "cpu", "/models/tiny")
    assert not [word for word in words if word.startswith("--") and "log" in word]


def test_the_number_format_fits_the_processor() -> None:
    words = command("tiny", EngineSettings(), "cpu", "/models/tiny")
    assert option(words, "--dtype") == ("bfloat16" if place.has_bfloat16() else "float32")
    assert option(command("tiny", EngineSettings(), "gpu", "/models/tiny"), "--dtype") == "auto"


def test_the_child_gets_no_secret_of_ours_and_no_path_to_our_packages() -> None:
    ours = {"TRILITH_API_KEY": "sk", "PYTHONPATH": "/x", "VIRTUAL_ENV": "/v", "HOME": "/h"}
    given = environment(ours, local=True)
    assert given["HOME"] == "/h"
    assert given.keys().isdisjoint({"TRILITH_API_KEY", "PYTHONPATH", "VIRTUAL_ENV"})
    assert given["HF_HUB_OFFLINE"] == given["DO_NOT_TRACK"] == given["VLLM_NO_USAGE_STATS"] == "1"
    assert "HF_HUB_OFFLINE" not in environment(ours, local=False)


def test_a_model_is_bundled_a_folder_or_a_hub_id(tmp_path: Path) -> None:
    assert model_path(str(tmp_path)) == str(tmp_path)
    assert model_path("org/model") == "org/model"
    with pytest.raises(EngineError, match="is not a folder; expected one, a hub id, or a bundled model"):
        model_path(str(tmp_path / "absent"))
    with pytest.raises(EngineError, match="is not installed; install it with: trilith engines install vllm"):
        model_path("smollm2-135m-instruct")


async def test_engines_that_are_not_installed_say_how_to_install_them(tmp_path: Path) -> None:
    engines = Engines(Settings(engines={"tiny": EngineSettings(port=8109)}), tmp_path)
    assert engines.url("tiny") == "http://127.0.0.1:8109/v1"
    with pytest.raises(EngineError, match="install it with: trilith engines install vllm"):
        await engines.start_all()
