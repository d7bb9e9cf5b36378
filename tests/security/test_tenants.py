"""Two teams on one gateway: on every route, B sees and changes nothing that is A's.

The test is metamorphic: whatever A has done before, B's answers are those that B gets on a fresh gateway.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.eval_run import FINDING, told
from support.gateway import Gateway
from support.installed import until
from support.world import LINES, MODELS, Speaker, begin, upload, world

CHAT = {"messages": [{"role": "user", "content": "what is the plan"}]}
TENSOR = {"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1]}]}
HIDDEN = "chat"
"""A's own model; B's key does not name it."""
ORDER = {"model": "sorter", "query": "the plan", "documents": ["a", "b"]}
BATCH = {"input_file_id": "FILE", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
SOUND = {"file": ("a.mp3", b"ID3 la la")}
PICTURE = {"image": ("a.png", b"PNG a picture")}
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "the list of models": ("GET", "/v1/models", None),
    "a hidden model": ("GET", f"/v1/models/{HIDDEN}", None),
    "a chat with a hidden model": ("POST", "/v1/chat/completions", {"model": HIDDEN, **CHAT}),
    "a message to a hidden model": ("POST", "/v1/messages", {"model": HIDDEN, "max_tokens": 5, **CHAT}),
    "a completion by a hidden model": ("POST", "/v1/completions", {"model": HIDDEN, "prompt": "x"}),
    "a response of a hidden model": ("POST", "/v1/responses", {"model": HIDDEN, "input": "x"}),
    "a hidden response": ("GET", "/v1/responses/resp_1", None),
    "what a hidden response answered": ("GET", "/v1/responses/resp_1/input_items", None),
    "cancelling a hidden response": ("POST", "/v1/responses/resp_1/cancel", None),
    "deleting a hidden response": ("DELETE", "/v1/responses/resp_1", None),
    "an answer that A has in the cache": ("POST", "/v1/chat/completions", {"model": "kept", **CHAT}),
    "a stream that A has in the cache": (
        "POST",
        "/v1/chat/completions",
        {"model": "kept", "stream": True, **CHAT},
    ),
    "vectors": ("POST", "/v1/embeddings", {"model": "vectors", "input": "the plan"}),
    "a document's answer": ("POST", "/v1/chat/completions", {"model": "library", **CHAT}),
    "the server": ("GET", "/v2", None),
    "the repository": ("POST", "/v2/repository/index", {}),
    "a hidden predictor": ("GET", "/v2/models/bikes", None),
    "whether a hidden predictor is ready": ("GET", "/v2/models/bikes/ready", None),
    "a version of a hidden predictor": ("GET", "/v2/models/bikes/versions/1", None),
    "a configuration": ("GET", "/v2/models/bikes/config", None),
    "a version's configuration": ("GET", "/v2/models/bikes/versions/1/config", None),
    "whether a version is ready": ("GET", "/v2/models/bikes/versions/1/ready", None),
    "a hidden prediction": ("POST", "/v2/models/bikes/infer", TENSOR),
    "a hidden version's prediction": ("POST", "/v2/models/bikes/versions/1/infer", TENSOR),
    "loading a hidden predictor": ("POST", "/v2/repository/models/bikes/load", {}),
    "unloading a hidden predictor": ("POST", "/v2/repository/models/bikes/unload", {}),
    "an invocation": ("POST", "/invocations", {"instances": [[1]]}),
    "a named invocation": ("POST", "/models/bikes/invocations", {"instances": [[1]]}),
    "the version": ("GET", "/version", None),
    "counting for a hidden model": ("POST", "/v1/messages/count_tokens", {"model": HIDDEN, **CHAT}),
    "an order by a hidden model": ("POST", "/v1/rerank", ORDER),
    "an order by a hidden model, the other way": ("POST", "/v2/rerank", ORDER),
    "a judgement by a hidden model": ("POST", "/v1/moderations", {"model": "judge", "input": "x"}),
    "a hidden model's picture": ("POST", "/v1/images/generations", {"model": "painter", "prompt": "x"}),
    "a hidden model's change": ("POST", "/v1/images/edits", ("painter", PICTURE)),
    "a hidden model's variation": ("POST", "/v1/images/variations", ("painter", PICTURE)),
    "a hidden model's voice": ("POST", "/v1/audio/speech", {"model": "voice", "input": "x"}),
    "a hidden model's transcript": ("POST", "/v1/audio/transcriptions", ("voice", SOUND)),
    "a hidden model's translation": ("POST", "/v1/audio/translations", ("voice", SOUND)),
    "the list of files": ("GET", "/v1/files", None),
    "files after A's": ("GET", "/v1/files?after=FILE", None),
    "A's hidden file": ("GET", "/v1/files/FILE", None),
    "what stands in A's hidden file": ("GET", "/v1/files/FILE/content", None),
    "deleting A's hidden file": ("DELETE", "/v1/files/FILE", None),
    "A's hidden output": ("GET", "/v1/files/OUTPUT/content", None),
    "uploading nothing": ("POST", "/v1/files", None),
    "the list of batches": ("GET", "/v1/batches", None),
    "batches after A's": ("GET", "/v1/batches?after=BATCH", None),
    "A's hidden batch": ("GET", "/v1/batches/BATCH", None),
    "cancelling A's hidden batch": ("POST", "/v1/batches/BATCH/cancel", None),
    "a batch over A's hidden file": ("POST", "/v1/batches", BATCH),
    "keeping a run": ("POST", "/admin/v1/evals/runs", {}),
    "the list of runs": ("GET", "/admin/v1/evals/runs", None),
    "a run": ("GET", "/admin/v1/evals/runs/RUN", None),
    "a run's page": ("GET", "/admin/v1/evals/runs/RUN/report", None),
    "a comparison": ("GET", "/admin/v1/evals/compare?baseline=RUN&candidate=RUN", None),
    "deleting a run": ("DELETE", "/admin/v1/evals/runs/RUN", None),
    "keeping findings": ("POST", "/admin/v1/evals/monitors", FINDING),
    "the list of findings": ("GET", "/admin/v1/evals/monitors", None),
}
NOBODYS = {
    "FILE": "file-" + "0" * 24,
    "BATCH": "batch_" + "0" * 32,
    "OUTPUT": "file-" + "1" * 24,
    "RUN": "evalrun_" + "0" * 32,
}
ADMIN = frozenset(what for what, (_, path, _) in REQUESTS.items() if path.startswith("/admin/"))
ALLOWED = frozenset({"kept", "guarded", "vectors", "library"})
assert frozenset(MODELS) >= ALLOWED


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with world(tmp_path / "shared", Speaker()) as running:
        yield running


def own(gateway: Gateway, token: str) -> dict[str, str]:
    """Make a file and a batch that has ended, and return their ids by the words that stand for them."""
    with gateway.client(token=token) as client:
        file = upload(client)
        batch = begin(client, file)

        def seen() -> Any:
            return client.get(f"/v1/batches/{batch}").json()

        until(lambda: seen()["status"] == "completed", what="the batch being done")
        return NOBODYS | {"FILE": file, "BATCH": batch, "OUTPUT": seen()["output_file_id"]}


def kept(gateway: Gateway, word: str = "") -> str:
    """Keep a run and a finding with an admin key, and return the run's id."""
    with gateway.client(token=gateway.mint(team="ops", admin=True)) as client:
        client.post("/admin/v1/evals/monitors", json={**FINDING, "message": word}).raise_for_status()
        made = client.post("/admin/v1/evals/runs", json=told({1}, word=word, target=word or "support"))
        return str(made.raise_for_status().json()["id"])


def ask(
    gateway: Gateway, token: str, what: str, ids: Mapping[str, str] = NOBODYS, **headers: str
) -> httpx.Response:
    method, path, body = REQUESTS[what]
    for word, id in ids.items():
        path = path.replace(word, id)
    with gateway.client(token=token, headers=headers) as client:
        if isinstance(body, tuple):
            return client.request(method, path, data={"model": body[0]}, files=body[1])
        if body is BATCH:
            body = BATCH | {"input_file_id": ids["FILE"]}
        return client.request(method, path, json=body)


def seen(response: httpx.Response) -> tuple[Any, ...]:
    """Return what a caller can learn from an answer, but for what differs from call to call."""
    text = re.sub(r'"created": ?\d+', "", response.text)
    told = {"x-trilith-cache", "x-trilith-saved-usd", "x-trilith-cost-usd", "x-trilith-release"}
    return response.status_code, text, {name: response.headers.get(name) for name in told}


def test_b_gets_what_b_would_get_if_a_had_never_been(gateway: Gateway, tmp_path: Path) -> None:
    a, b = gateway.mint(team="a"), gateway.mint(team="b", models=ALLOWED)
    name = {"idempotency-key": "the-same-for-both"}
    harmless = [what for what in REQUESTS if not what.startswith("deleting")]
    ids = own(gateway, a) | {"RUN": kept(gateway)}
    for what in harmless:
        ask(gateway, a, what, ids)
        ask(gateway, a, what, ids, **name)

    def answers(running: Gateway, token: str) -> dict[str, list[tuple[Any, ...]]]:
        return {
            what: [seen(ask(running, token, what, ids)), seen(ask(running, token, what, ids, **name))]
            for what in REQUESTS
        }

    after = answers(gateway, b)
    with world(tmp_path / "alone", Speaker()) as fresh:
        never = answers(fresh, fresh.mint(team="b", models=ALLOWED))
    assert after == never
    hidden = {what for what in REQUESTS if "hidden" in what or "a version" in what or "invocation" in what}
    assert {after[what][0][0] for what in hidden} == {404}
    assert {after[what][0][0] for what in ADMIN} == {403}
    for what in (
        "A's hidden file",
        "what stands in A's hidden file",
        "A's hidden output",
        "A's hidden batch",
    ):
        assert ask(gateway, a, what, ids).status_code == 200, "what b tried has changed it"


def test_a_key_of_the_same_team_sees_what_b_does_not(gateway: Gateway) -> None:
    """So that what B is refused is refused for the team, and not because nobody would get it."""
    a, other, b = gateway.mint(team="a"), gateway.mint(team="a"), gateway.mint(team="b")
    ids = own(gateway, a)
    requests = [what for what in REQUESTS if "A's" in what and not what.startswith("cancelling")]
    requests.sort(key=lambda what: what.startswith("deleting"))
    refused = {ask(gateway, b, what, ids).status_code for what in requests}
    assert refused == {400, 404}  # 400: a page cannot begin after what is not there
    assert {what: ask(gateway, other, what, ids).status_code for what in requests} == dict.fromkeys(
        requests, 200
    )
    with gateway.client(token=b) as client:
        assert client.get("/v1/files").json()["data"] == client.get("/v1/batches").json()["data"] == []


def test_the_table_of_requests_leaves_no_route_out(gateway: Gateway) -> None:
    paths = httpx.get(f"{gateway.url}/openapi.json").json()["paths"]
    known = {(method, path.partition("?")[0]) for method, path, _ in REQUESTS.values()}
    for path, operations in paths.items():
        for method, operation in operations.items():
            if "security" in operation and path != "/v1/feedback":
                pattern = re.escape(path).replace(r"\{name\}", r"[\w]+").replace(r"\{version\}", "1")
                pattern = pattern.replace(r"\{id\}", "(FILE|BATCH|RUN|resp_1)")
                assert any(m == method.upper() and re.fullmatch(pattern, p) for m, p in known), path


def test_what_every_other_key_is_refused_an_admin_key_gets(gateway: Gateway) -> None:
    """So that the refusals are about the key, and not because nobody would get it. Admins are of no team."""
    ids = NOBODYS | {"RUN": kept(gateway)}
    refused = {what: ask(gateway, gateway.mint(team="ops"), what, ids) for what in ADMIN}
    assert {what: one.status_code for what, one in refused.items()} == dict.fromkeys(ADMIN, 403)
    assert {one.json()["error"]["code"] for one in refused.values()} == {"admin_key_required"}
    admin = gateway.mint(team="another", admin=True)
    asked = sorted(ADMIN, key=lambda what: what.startswith("deleting"))
    statuses = {what: ask(gateway, admin, what, ids).status_code for what in asked}
    assert statuses == dict.fromkeys(ADMIN, 200) | {"keeping a run": 400}


def test_a_refused_upload_is_not_even_read(gateway: Gateway) -> None:
    """The answer to a key that may not ask is there before a byte of the body has been sent."""
    host, port = gateway.url.removeprefix("http://").split(":")
    for path in ("/admin/v1/evals/runs", "/admin/v1/evals/monitors"):
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.token}\r\n"
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(f"{head}content-length: 100\r\n\r\n".encode())
            assert connection.recv(13) == b"HTTP/1.1 403 "


def test_b_can_say_nothing_about_as_answers(gateway: Gateway) -> None:
    a, b = gateway.mint(team="a"), gateway.mint(team="b")
    id = ask(gateway, a, "a chat with a hidden model").headers["x-request-id"]
    statuses = {}
    for token in (b, a):
        with gateway.client(token=token) as client:
            body = {"request_id": id, "score": 1.0, "comment": "mine"}
            statuses[token] = client.post("/v1/feedback", json=body).status_code
    assert statuses == {b: 404, a: 201}
    assert len(gateway.rows("select * from feedback")) == 1


def test_what_a_spends_and_asks_is_not_bs(gateway: Gateway) -> None:
    a = gateway.mint(team="a", requests_per_minute=2)
    b = gateway.mint(team="b", requests_per_minute=2)
    assert [ask(gateway, a, "vectors").status_code for _ in range(3)] == [200, 200, 429]
    assert ask(gateway, b, "vectors").status_code == 200
    a, b = gateway.mint(team="a", budget_pico_usd=1), gateway.mint(team="b", budget_pico_usd=10**15)
    assert ask(gateway, a, "a chat with a hidden model").status_code == 429
    assert ask(gateway, b, "a chat with a hidden model").status_code == 200
    assert {row["team"] for row in gateway.ledger()} == {"a", "b"}
    assert [row["team"] for row in gateway.ledger()].count("b") == 2


def test_a_callers_own_request_id_does_not_shadow_anothers(gateway: Gateway) -> None:
    a, b = gateway.mint(team="a"), gateway.mint(team="b")
    for token in (a, b):
        ask(gateway, token, "vectors", NOBODYS, **{"x-request-id": "shared-name"})
    with gateway.client(token=b) as client:
        assert client.post("/v1/feedback", json={"request_id": "shared-name"}).status_code == 201
    rows = [row for row in gateway.ledger() if row["request_id"] == "shared-name"]
    assert [row["team"] for row in rows] == ["a", "b"]
    assert len({row["id"] for row in rows}) == 2


def test_no_answer_of_bs_holds_a_word_of_as(gateway: Gateway) -> None:
    word = secrets.token_hex(8)
    a, b = gateway.mint(team=f"team-{word}"), gateway.mint(team="b", models=ALLOWED)
    with gateway.client(token=a) as client:
        for model in ("chat", "kept", "guarded", "library"):
            body = {"model": model, "messages": [{"role": "user", "content": word}], "user": word}
            assert word in client.post("/v1/chat/completions", json=body).text
        file = upload(client, LINES.replace(b"question", word.encode()))
        assert word in client.get(f"/v1/files/{file}/content").text
        ids = NOBODYS | {"FILE": file, "BATCH": begin(client, file), "RUN": kept(gateway, word)}
    for what in REQUESTS:
        answered = ask(gateway, b, what, ids)
        assert word not in answered.text + json.dumps(dict(answered.headers))
    with httpx.Client(base_url=gateway.url) as stranger:
        for path in ("/metrics", "/readyz", "/openapi.json"):
            assert word not in stranger.get(path).text
