"""ragas 0.4.3 with a language model behind a server that fails in every way that servers do."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from trilith.errors import MissingExtra, SettingsError
from trilith_evals import Case, Output, State
from trilith_evals.scorers.ragas_metric import Ragas

pytestmark = [
    # Third parties' own deprecations, met while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*ragas/uuid.json"),
]


class Judge:
    """Answers ragas's two questions of faithfulness; what the statement says decides how it fails."""

    def __init__(self) -> None:
        self.calls = 0
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.delay_s = 0.0
        self.url = ""

    def answer(self, prompt: str) -> tuple[int, str]:
        if "[down]" in prompt:
            return 500, "{}"
        if "[hang]" in prompt:
            time.sleep(3)
        if "[broken]" in prompt:
            return 200, '{"statements": ["cut sho'
        if "[silent]" in prompt:
            return 200, json.dumps({"statements": []})
        verdict = {"statement": "s", "reason": "r", "verdict": 1}
        if '"statements": {' in prompt or "verdict" in prompt:
            return 200, json.dumps({"statements": [verdict]})
        return 200, json.dumps({"statements": ["The tower opened in 1889."]})


@pytest.fixture
def judge() -> Iterator[Judge]:
    state = Judge()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the standard library's naming
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with state.lock:
                state.calls += 1
                state.running += 1
                state.most = max(state.most, state.running)
            time.sleep(state.delay_s)
            status, text = state.answer(json.dumps(body["messages"]))
            with state.lock:
                state.running -= 1
            raw = json.dumps(_completion(body["model"], text)).encode()
            try:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.send_header("x-trilith-cost-usd", "0.000002")
                self.end_headers()
                self.wfile.write(raw)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def _completion(model: str, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def rows(*marks: str) -> list[tuple[Case, Output]]:
    return [
        (
            Case(str(i), "When?", fields={"contexts": "It opened in 1889."}),
            Output(f"It opened in 1889. {mark}"),
        )
        for i, mark in enumerate(marks)
    ]


def faithfulness(judge: Judge, **params: Any) -> Ragas:
    columns = {"retrieved_contexts": "contexts"}
    return Ragas("Faithfulness", columns=columns, model="m", base_url=judge.url, max_retries=0, **params)


def test_every_row_is_accounted_for_whatever_the_server_does(judge: Judge) -> None:
    marks = ["ok"] * 16 + ["[down]", "[down]", "[broken]", "[hang]", "[silent]"]
    scores = faithfulness(judge, timeout_s=1.5).score_all(rows(*marks))
    assert [score.state for score in scores] == [State.SCORED] * 16 + [State.UNSCORED] * 5
    assert {score.value for score in scores[:16]} == {1.0}
    down, _, broken, hung, silent = scores[16:]
    assert (down.infrastructure, broken.infrastructure, hung.infrastructure) == (True, False, True)
    assert silent.reason == "ragas gave NaN"


def test_what_the_calls_cost_is_on_the_row_also_where_nothing_came_of_it(judge: Judge) -> None:
    good, silent = faithfulness(judge).score_all(rows("ok", "[silent]"))
    assert good.cost_pico_usd == 2 * 2_000_000
    assert silent.cost_pico_usd > 0
    assert good.cost_pico_usd + silent.cost_pico_usd == judge.calls * 2_000_000


def test_no_more_rows_are_under_way_than_allowed(judge: Judge) -> None:
    judge.delay_s = 0.02
    faithfulness(judge, concurrency=3).score_all(rows(*["ok"] * 12))
    assert judge.most <= 3


def test_it_leaves_a_running_event_loop_as_it_is(judge: Judge) -> None:
    async def notebook() -> State:
        (score,) = faithfulness(judge).score_all(rows("ok"))
        await asyncio.sleep(0)
        return score.state

    assert asyncio.run(notebook()) is State.SCORED
    assert "nest_asyncio" not in asyncio.run.__module__


def test_a_metric_with_a_model_needs_one_and_another_takes_none() -> None:
    with pytest.raises(SettingsError, match=r"Faithfulness needs params\.model"):
        Ragas("Faithfulness")
    with pytest.raises(SettingsError, match="asks no language model"):
        Ragas("ExactMatch", model="m")


def test_a_model_needs_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRILITH_BASE_URL", raising=False)
    with pytest.raises(SettingsError, match=r"params\.base_url"):
        Ragas("Faithfulness", model="m").score_all(rows("ok"))


def test_a_library_that_ragas_would_miss_in_the_middle_is_missed_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sacrebleu" else object())
    with pytest.raises(MissingExtra, match="sacrebleu"):
        Ragas("BleuScore")


def test_a_ragas_that_cannot_be_imported_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ragas")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "langchain_community.chat_models.vertexai", None)
    with pytest.raises(MissingExtra, match=r"langchain-community<0\.4\.2"):
        Ragas("ExactMatch").score_all(rows("ok"))


def test_embeddings_are_made_in_one_batch() -> None:
    batches: list[list[str]] = []

    class Counting:
        def embed(self, texts: Any) -> list[list[float]]:
            batches.append(list(texts))
            return [[1.0, float(len(text))] for text in texts]

    pairs = [(Case(str(i), "q", "gold"), Output(f"answer {i}")) for i in range(3)]
    scores = Ragas("SemanticSimilarity", embedder=Counting()).score_all(pairs)
    assert len(batches) == 1
    assert all(score.state is State.SCORED for score in scores)


def test_quoted_spans_are_checked_without_a_model() -> None:
    columns = {"retrieved_contexts": "contexts"}
    case = Case("1", "q", fields={"contexts": ["The tower opened in the year 1889."]})
    (score,) = Ragas("QuotedSpansAlignment", columns=columns).score_all(
        [(case, Output('It "opened in the year 1889" they say.'))]
    )
    assert score.value == 1
