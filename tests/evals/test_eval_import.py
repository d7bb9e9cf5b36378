"""The package stays light: what is heavy comes in when a scorer needs it."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

from support.scripted_server import Scripted, ScriptedServer

import trilith_evals

SCRIPT = """
import json, sys
import trilith_evals, trilith_evals.command
heavy = {"ragas", "torch", "langchain", "langchain_core", "numpy", "scipy", "sklearn", "mlflow", "jinja2",
         "yaml", "sentence_transformers", "pyarrow", "pandas", "fastapi", "uvicorn", "aiohttp", "orjson",
         "presidio_analyzer", "spacy", "jsonschema", "langchain_community", "opentelemetry.sdk"}
print(json.dumps({"modules": len(sys.modules), "heavy": sorted(heavy & set(sys.modules))}))
"""


def test_the_import_loads_few_modules_and_none_that_is_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["heavy"] == []
    assert found["modules"] < 450


def test_no_name_of_the_face_is_a_modules_name_too() -> None:
    # Importing a module puts it into its package under its own name, over whatever was there.
    modules = {module.name for module in pkgutil.iter_modules(trilith_evals.__path__)}
    assert not modules & set(trilith_evals.__all__)


ALONE = """
import importlib.abc, json, sys

ABSENT = set("fastapi uvicorn uvloop httptools alembic sqlalchemy psycopg prometheus_client orjson aiohttp "
             "redis qdrant_client litellm presidio_analyzer spacy torch ragas langchain mlflow".split())

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import trilith_evals as evals
from trilith.cli import main
rows = [{"id": i, "input": "Capital of France?", "expected": "Paris"} for i in range(3)]
assert evals.run("tiny", rows, ["exact", "f1"], base_url=sys.argv[1], api_key="k").exit_code == 0
outputs = ["--json", "o.json", "--junit", "o.xml", "--report", "o.html"]
sys.exit(main(["eval", "run", "evals.yaml", "--base-url", sys.argv[1], "--api-key", "k", *outputs]))
"""


def test_a_model_is_judged_where_nothing_of_the_gateway_is_installed(tmp_path: Path) -> None:
    row = {"id": 1, "input": "Capital of France?", "expected": "Paris"}
    (tmp_path / "cases.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    suite = "suites: [{name: s, target: {model: m}, data: cases.jsonl, scorers: [{scorer: exact}]}]"
    (tmp_path / "evals.yaml").write_text(suite, encoding="utf-8")
    message = {"role": "assistant", "content": "Paris"}
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    with ScriptedServer([Scripted(body=answer, headers={"content-type": "application/json"})]) as server:
        done = subprocess.run(
            [sys.executable, "-c", ALONE, server.url],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.html").stat().st_size > 1000
