"""The protocols as clients speak them, on a running gateway with the real bike model behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
from support.gateway import Gateway

from trilith_classical.registry import MlflowRegistry

pytestmark = [
    # MLflow's own models use what SQLAlchemy 2.1 and Python deprecate; nothing of ours can change that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    # geventhttpclient leaves its last socket to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Serve = Callable[..., Gateway]


@pytest.fixture
def gateway(serve: Serve) -> Gateway:
    return serve(versions=["2"], control=True)


def post(gateway: Gateway, path: str, **body: Any) -> httpx.Response:
    with gateway.client() as client:
        return client.post(path, json=body)


def get(gateway: Gateway, path: str) -> httpx.Response:
    with gateway.client() as client:
        return client.get(path)


def column(answer: httpx.Response) -> list[float]:
    data: list[float] = answer.json()["outputs"][0]["data"]
    return data


class TestOpenInference:
    """Version 2 of the protocol, in JSON."""

    def test_the_server_and_the_model_describe_themselves(self, gateway: Gateway) -> None:
        assert "binary_tensor_data" in get(gateway, "/v2").json()["extensions"]
        described = get(gateway, "/v2/models/bike").json()
        assert (described["name"], described["versions"]) == ("bike", ["1", "2"])
        assert get(gateway, "/v2/models/bike/versions/2").json()["versions"] == ["2"]

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/v2/health/live", 200),
            ("/v2/health/ready", 200),
            ("/v2/models/bike/ready", 200),
            ("/v2/models/bike/versions/2/ready", 200),
            ("/v2/models/bike/versions/9/ready", 404),
            ("/v2/models/nobody/ready", 404),
            ("/v2/models/nobody", 404),
        ],
    )
    def test_readiness_is_told_by_the_status(self, gateway: Gateway, path: str, status: int) -> None:
        answer = get(gateway, path)
        assert answer.status_code == status
        assert status == 200 or isinstance(answer.json()["error"], str)

    def test_an_inference_names_its_version_and_echoes_its_id(self, gateway: Gateway, inputs: Any) -> None:
        one = post(gateway, "/v2/models/bike/infer", id="7", inputs=inputs(1)).json()
        two = post(gateway, "/v2/models/bike/versions/2/infer", id="8", inputs=inputs(1)).json()
        assert [(a["model_name"], a["model_version"], a["id"]) for a in (one, two)] == [
            ("bike", "1", "7"),
            ("bike", "2", "8"),
        ]

    def test_nested_data_and_asked_for_outputs_are_understood(self, gateway: Gateway, inputs: Any) -> None:
        nested = [
            {**tensor, "shape": [2, 1], "data": [[value] for value in tensor["data"]]} for tensor in inputs(2)
        ]
        asked = {"inputs": nested, "outputs": [{"name": "predict"}]}
        flat = post(gateway, "/v2/models/bike/infer", inputs=inputs(2))
        assert column(post(gateway, "/v2/models/bike/infer", **asked)) == column(flat)

    def test_a_wrong_request_is_answered_with_a_text(self, gateway: Gateway, inputs: Any) -> None:
        answer = post(gateway, "/v2/models/bike/infer", inputs=inputs(1), outputs=[{"name": "what"}])
        assert (answer.status_code, "what" in answer.json()["error"]) == (400, True)

    def test_a_version_in_the_ledger_is_charged_by_rows(self, gateway: Gateway, inputs: Any) -> None:
        post(gateway, "/v2/models/bike/versions/2/infer", inputs=inputs(3))
        (row,) = gateway.ledger()
        assert (row["rows"], row["amount_pico_usd"]) == (3, 3_000_000_000)

    def test_the_index_lists_versions_and_unloading_shows(self, gateway: Gateway, inputs: Any) -> None:
        listed = post(gateway, "/v2/repository/index").json()
        assert [(entry["version"], entry["state"]) for entry in listed] == [("1", "READY"), ("2", "READY")]
        assert post(gateway, "/v2/repository/models/bike/unload").status_code == 200
        assert post(gateway, "/v2/models/bike/infer", inputs=inputs(1)).status_code == 503
        assert post(gateway, "/v2/repository/index").json()[0]["state"] == "UNAVAILABLE"
        assert post(gateway, "/v2/repository/index", ready=True).json() == []
        assert post(gateway, "/v2/repository/index", ready="yes").status_code == 400
        assert post(gateway, "/v2/repository/models/bike/load").status_code == 200
        assert post(gateway, "/v2/models/bike/infer", inputs=inputs(1)).status_code == 200

    def test_a_new_champion_takes_over_without_a_failed_request(self, serve: Serve, inputs: Any) -> None:
        gateway = serve(alias_poll_s=0.02)
        versions = [post(gateway, "/v2/models/bike/infer", inputs=inputs(1)).json()["model_version"]]
        MlflowRegistry(gateway.home).set_alias("bike-demand", "champion", "2")
        with gateway.client() as client:
            while versions[-1] == "1":
                answer = client.post("/v2/models/bike/infer", json={"inputs": inputs(1)})
                assert answer.status_code == 200
                versions.append(answer.json()["model_version"])
        assert set(versions) == {"1", "2"}

    @pytest.mark.parametrize("path", ["/v2", "/v2/models/bike", "/v2/models/bike/versions/1/ready"])
    def test_without_a_key_nothing_is_told(self, gateway: Gateway, path: str) -> None:
        answer = httpx.get(gateway.url + path)
        assert (answer.status_code, isinstance(answer.json()["error"], str)) == (401, True)

    def test_another_keys_model_can_neither_be_seen_nor_unloaded(self, gateway: Gateway) -> None:
        token = gateway.mint(models=frozenset({"another"}))
        with gateway.client(token=token) as client:
            assert client.post("/v2/repository/index").json() == []
            assert client.post("/v2/repository/models/bike/unload").status_code == 404
            assert client.get("/v2/models/bike").status_code == 404


class TestTriton:
    """NVIDIA's own client."""

    @pytest.fixture
    def client(self, gateway: Gateway) -> Any:
        made = triton.InferenceServerClient(gateway.url.removeprefix("http://"))
        yield made
        made.close()

    @pytest.mark.parametrize("sent", [True, False])
    @pytest.mark.parametrize("returned", [True, False])
    def test_arrays_go_and_come_in_bytes_and_in_json(
        self, gateway: Gateway, client: Any, inputs: Any, sent: bool, returned: bool
    ) -> None:
        tensors = []
        for tensor in inputs(5):
            array = np.array(tensor["data"], dtype=triton.triton_to_np_dtype(tensor["datatype"]))
            tensors.append(triton.InferInput(tensor["name"], [5], tensor["datatype"]))
            tensors[-1].set_data_from_numpy(array, binary_data=sent)
        wanted = [triton.InferRequestedOutput("predict", binary_data=returned)]
        headers = {"authorization": f"Bearer {gateway.token}"}
        result = client.infer(
            "bike", tensors, model_version="2", outputs=wanted, request_id="x", headers=headers
        )
        expected = column(post(gateway, "/v2/models/bike/versions/2/infer", inputs=inputs(5)))
        assert result.as_numpy("predict").tolist() == expected
        assert result.get_response()["id"] == "x"

    def test_questions_are_answered(self, gateway: Gateway, client: Any) -> None:
        headers = {"authorization": f"Bearer {gateway.token}"}
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("bike", "2", headers=headers)
        assert client.get_server_metadata(headers=headers)["name"] == "trilith"
        assert client.get_model_metadata("bike", headers=headers)["platform"] == "onnxruntime_onnx"
        assert len(client.get_model_repository_index(headers=headers)) == 2
        client.load_model("bike", headers=headers)

    def test_an_error_is_the_clients_exception(self, gateway: Gateway, client: Any) -> None:
        headers = {"authorization": f"Bearer {gateway.token}"}
        with pytest.raises(triton.InferenceServerException, match="nobody"):
            client.get_model_metadata("nobody", headers=headers)


class TestMlflow:
    """`POST /invocations` as MLflow's scoring server has it."""

    def bodies(self, inputs: Any) -> dict[str, Any]:
        columns = {tensor["name"]: tensor["data"] for tensor in inputs(2)}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return {
            "dataframe_split": {"columns": list(columns), "data": [list(row.values()) for row in rows]},
            "dataframe_records": rows,
            "inputs": columns,
            "instances": rows,
        }

    @pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "inputs", "instances"])
    @pytest.mark.parametrize("path", ["/models/bike/invocations", "/invocations?model=bike", "/invocations"])
    def test_every_form_is_answered_with_predictions(
        self, gateway: Gateway, inputs: Any, form: str, path: str
    ) -> None:
        expected = column(post(gateway, "/v2/models/bike/infer", inputs=inputs(2)))
        answer = post(gateway, path, **{form: self.bodies(inputs)[form]})
        assert answer.json() == {"predictions": expected}
        assert gateway.ledger()[-1]["rows"] == 2

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({}, "expected exactly one"),
            ({"inputs": {}, "instances": []}, "expected exactly one"),
            ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "1 values"),
            ({"instances": [{"a": 1}, {"b": 1}]}, "same columns"),
            ({"inputs": {"hr": [1]}}, "missing inputs"),
        ],
    )
    def test_what_cannot_be_read_is_said_in_mlflows_words(
        self, gateway: Gateway, body: dict[str, Any], said: str
    ) -> None:
        answer = post(gateway, "/models/bike/invocations", **body)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")
        assert said in answer.json()["message"]

    def test_without_a_key_there_is_no_prediction(self, gateway: Gateway) -> None:
        answer = httpx.post(f"{gateway.url}/models/bike/invocations", json={"instances": [[1]]})
        assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")


class TestRemote:
    """A gateway in front of another one: any server of the protocol will do."""

    @pytest.fixture
    def front(self, gateway: Gateway, serve: Serve) -> Gateway:
        place = {"url": f"{gateway.url}/v2", "model": "bike", "api_key": gateway.token}
        return serve("rides/hourly", upstream=place)

    def test_answers_and_charges_are_as_if_it_were_here(
        self, gateway: Gateway, front: Gateway, inputs: Any
    ) -> None:
        near = post(gateway, "/v2/models/bike/infer", inputs=inputs(4))
        far = post(front, "/v2/models/rides/hourly/versions/1/infer", inputs=inputs(4))
        assert (far.json()["model_name"], column(far)) == ("rides/hourly", column(near))
        assert front.ledger()[-1]["rows"] == 4

    def test_its_description_and_readiness_come_through(self, front: Gateway) -> None:
        assert get(front, "/v2/models/rides/hourly").json()["name"] == "rides/hourly"
        assert get(front, "/v2/models/rides/hourly/ready").json()["ready"] is True
        assert get(front, "/v2/models/rides/hourly/versions/9/ready").status_code == 404
        assert [entry["version"] for entry in post(front, "/v2/repository/index").json()] == ["1", "2"]

    def test_bytes_pass_through_it(self, gateway: Gateway, front: Gateway, inputs: Any) -> None:
        near = post(gateway, "/v2/models/bike/infer", inputs=inputs(3))
        asked = {"inputs": inputs(3), "outputs": [{"name": "predict", "parameters": {"binary_data": True}}]}
        far = post(front, "/v2/models/rides%2Fhourly/infer", **asked)
        tail = far.content[int(far.headers["inference-header-content-length"]) :]
        assert np.frombuffer(tail, dtype="<f4").tolist() == column(near)

    def test_a_version_cannot_smuggle_a_request(self, front: Gateway) -> None:
        answer = get(front, "/v2/models/rides/hourly/versions/1%20HTTP%2F1.1%0D%0Ax:%20y/ready")
        assert answer.status_code == 404
