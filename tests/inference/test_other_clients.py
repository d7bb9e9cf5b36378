"""kserve's client, in an environment of its own, and what else Triton's can ask, over every datatype."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
from support.gateway import Gateway, Running
from support.mlflow_server import Learned

from trilith_gateway.engines import place, uv

pytestmark = [
    # MLflow's own models use what SQLAlchemy 2.1 and Python deprecate; nothing of ours can change that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # geventhttpclient leaves its last socket to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

KSERVE = "kserve==0.21.0"
"""It wants another psutil than our lock has."""
ASKED = Path(__file__).parents[1] / "support" / "kserve_asked.py"


@pytest.fixture(scope="module")
def gateway(learned: Learned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("clients") / "home"
    with Running(learned.settings(home, control=True), {}) as running:
        yield running


@pytest.fixture(scope="module")
def predicted(gateway: Gateway) -> list[float]:
    body = {"inputs": {"area": [50.0, 70.5], "rooms": [2, 3], "city": ["Oslo", "Rome"], "furnished": [1, 0]}}
    with gateway.client() as client:
        found: list[float] = client.post("/models/flat/invocations", json=body).json()["predictions"]
    return found


class TestKserve:
    @pytest.fixture(scope="class")
    def interpreter(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        home = place.data_home() / "tests" / KSERVE
        made = home / "bin" / "python"
        try:
            if not (home / "complete").exists():
                shell = uv.Shell(tmp_path_factory.mktemp("kserve") / "uv.log", lambda line: None)
                command = uv.find(shell, lambda line: None)
                shell.run([*command, "venv", "--clear", "--python", "3.11", str(home)])
                options = ["--python", str(made), *uv.index_options(), KSERVE]
                shell.run([*command, "pip", "install", *options])
                (home / "complete").touch()
        except uv.IndexUnreachable as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"kserve is not installed, and cannot be: {error}")
        return made

    @pytest.fixture(scope="class")
    def told(self, interpreter: Path, gateway: Gateway) -> dict[str, Any]:
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(interpreter), str(ASKED), gateway.url, gateway.token]
        done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def test_it_hears_who_is_ready(self, told: dict[str, Any]) -> None:
        assert [told[name] for name in ("live", "ready", "model", "nobody")] == [True, True, True, False]

    @pytest.mark.parametrize("way", ["00", "01", "10", "11"])
    def test_it_sends_and_gets_json_and_bytes(
        self, told: dict[str, Any], predicted: list[float], way: str
    ) -> None:
        assert told[f"infer {way}"] == ["r1", predicted]

    def test_it_is_told_what_is_wrong(self, told: dict[str, Any]) -> None:
        status, message = told["error"]
        assert (status, "`inputs` is missing or empty" in message) == (400, True)


class TestTriton:
    @pytest.fixture
    def client(self, gateway: Gateway) -> Iterator[Any]:
        made = triton.InferenceServerClient(gateway.url.removeprefix("http://"))
        yield made
        made.close()

    @pytest.fixture
    def key(self, gateway: Gateway) -> dict[str, str]:
        return {"authorization": f"Bearer {gateway.token}"}

    def inputs(self, *, binary: bool, shape: list[int]) -> list[Any]:
        made = []
        for name, datatype, values in (
            ("area", "FP64", [50.0, 70.5]),
            ("rooms", "INT64", [2, 3]),
            ("city", "BYTES", ["Oslo", "Rome"]),
            ("furnished", "BOOL", [True, False]),
        ):
            array = np.array(values, dtype=triton.triton_to_np_dtype(datatype)).reshape(shape)
            made.append(triton.InferInput(name, shape, datatype))
            made[-1].set_data_from_numpy(array, binary_data=binary)
        return made

    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("shape", [[2], [2, 1]])
    def test_every_datatype_goes_in_either_shape(
        self, client: Any, key: dict[str, str], predicted: list[float], binary: bool, shape: list[int]
    ) -> None:
        result = client.infer("flat", self.inputs(binary=binary, shape=shape), headers=key)
        assert result.as_numpy("predict").tolist() == predicted

    @pytest.mark.parametrize("binary", [True, False])
    def test_labels_and_probabilities_come_back(self, client: Any, key: dict[str, str], binary: bool) -> None:
        tensors = []
        for name, number in (("a", 0.1), ("b", 0.2)):
            tensors.append(triton.InferInput(name, [1], "FP32"))
            tensors[-1].set_data_from_numpy(np.array([number], dtype=np.float32))
        names = ("predict", "predict_proba")
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        result = client.infer("leaf", tensors, outputs=wanted, headers=key)
        (label,) = result.as_numpy("predict").tolist()
        assert (label.decode() if binary else label) == "low"
        assert result.as_numpy("predict_proba").shape == (1, 3)

    def test_a_model_describes_itself_and_its_configuration(self, client: Any, key: dict[str, str]) -> None:
        metadata = client.get_model_metadata("flat", headers=key)
        config = client.get_model_config("flat", headers=key)
        assert [one["name"] for one in config["input"]] == [one["name"] for one in metadata["inputs"]]
        kinds = {one["name"]: (one["data_type"], one["dims"]) for one in config["input"]}
        assert kinds["city"] == ("TYPE_STRING", [-1, 1])
        assert (config["name"], config["max_batch_size"]) == ("flat", 0)
        version = metadata["versions"][0]
        assert client.get_model_config("flat", version, headers=key) == config
        assert "model_configuration" in client.get_server_metadata(headers=key)["extensions"]

    @pytest.mark.parametrize(
        "ask",
        [
            lambda client, key: client.get_model_config("nobody", headers=key),
            lambda client, key: client.get_model_config("flat", "99", headers=key),
            lambda client, key: client.get_inference_statistics("flat", headers=key),
            lambda client, key: client.get_trace_settings("flat", headers=key),
            lambda client, key: client.get_log_settings(headers=key),
            lambda client, key: client.get_system_shared_memory_status(headers=key),
        ],
    )
    def test_what_there_is_not_is_the_clients_own_error(
        self, client: Any, key: dict[str, str], ask: Any
    ) -> None:
        with pytest.raises(triton.InferenceServerException) as told:
            ask(client, key)
        assert told.value.status() == "404"

    def test_classes_in_tritons_own_form_are_refused_and_not_ignored(
        self, client: Any, key: dict[str, str]
    ) -> None:
        wanted = [triton.InferRequestedOutput("predict", class_count=2)]
        with pytest.raises(triton.InferenceServerException, match="classification"):
            client.infer("flat", self.inputs(binary=True, shape=[2]), outputs=wanted, headers=key)

    def test_a_tensor_in_shared_memory_is_refused(self, client: Any, key: dict[str, str]) -> None:
        tensors = self.inputs(binary=True, shape=[2])
        tensors[0].set_shared_memory("region", 16)
        with pytest.raises(triton.InferenceServerException, match="'area': `data` is missing"):
            client.infer("flat", tensors, headers=key)

    def test_loading_brings_no_model_of_the_callers_own(self, client: Any, key: dict[str, str]) -> None:
        client.unload_model("flat", headers=key)
        assert not client.is_model_ready("flat", headers=key)
        with pytest.raises(triton.InferenceServerException, match="registry alone"):
            client.load_model("flat", headers=key, config='{"backend": "python"}')
        with pytest.raises(triton.InferenceServerException, match="registry alone"):
            client.load_model("flat", headers=key, config="{}", files={"file:1/model.py": b"x"})
        assert not client.is_model_ready("flat", headers=key)
        client.load_model("flat", headers=key)
        assert client.is_model_ready("flat", headers=key)
