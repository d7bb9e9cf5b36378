"""Judges a model from an environment that holds `trilith[evals]` and none of the platform's other parts.

Builds the wheel, installs it with one extra into a fresh environment, and runs a suite file and `evals.run`
there against a scripted OpenAI-compatible server. Prints what the import costs and what is loaded.

    python bench/evals/alone.py [--extra evals] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.scripted_server import Scripted, ScriptedServer

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "ragas torch langchain langchain_core pandas sklearn numpy scipy mlflow fastapi uvicorn yaml pyarrow "
    "sentence_transformers jinja2"
).split()
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "tiny",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
SUITE = """\
suites:
  - name: capitals
    target: {model: tiny}
    data: cases.jsonl
    scorers: [{scorer: exact}, {scorer: contains}, {scorer: f1}]
    thresholds: [{metric: exact, min: 0.9}]
"""
IMPORT = f"""
import json, sys, time
before = time.process_time()
import trilith_evals
spent = time.process_time() - before
heavy = sorted(set({HEAVY!r}) & set(sys.modules))
print(json.dumps({{"cpu_s": round(spent, 3), "modules": len(sys.modules), "heavy": heavy}}))
"""
RUN = """
import json, sys, trilith_evals as evals
rows = [{"input": "Capital of France?", "expected": "Paris"}] * 5
rows = [{"id": i, **row} for i, row in enumerate(rows)]
found = evals.run("tiny", rows, ["exact"], base_url=sys.argv[1], api_key="k")
parts = [m for m in sys.modules if m.startswith(("trilith_gateway", "trilith_rag", "trilith_classical"))]
exact = found.suites[0].figures[0].estimate.value
print(json.dumps({"exact": exact, "outcome": found.outcome, "parts": parts}))
"""


def main() -> int:
    """Build, install, run; 0 when all of it works."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--extra", default="evals", help="the optional part to install; empty for none")
    parser.add_argument("--keep", type=Path, help="make the environment here and leave it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        python = installed(work, arguments.keep or work / "venv", arguments.extra)
        return judged(python, work)


def installed(work: Path, venv: Path, extra: str) -> Path:
    """Return the interpreter of a fresh environment with the wheel, at the versions of the lock."""
    call([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(work)], cwd=ROOT)
    (wheel,) = work.glob("*.whl")
    lock = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition(" ")[0] for line in lock if line[:1].isalnum()]
    (work / "constraints.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    uv = shutil.which("uv") or str(Path(sys.prefix).parent / ".uv" / "bin" / "uv")
    call([uv, "venv", "-q", "--clear", "--python", sys.executable, str(venv)])
    python = venv / "bin" / "python"
    options = ["-c", str(work / "constraints.txt")]
    if found := os.environ.get("PIP_FIND_LINKS"):
        options += ["--find-links", found]
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    call([uv, "pip", "install", "-q", "--python", str(python), *options, wanted])
    return python


def judged(python: Path, work: Path) -> int:
    """Run the suite file and the function there."""
    row = {"input": "Capital of France?", "expected": "Paris"}
    rows = [json.dumps({"id": i, **row}) + "\n" for i in range(5)]
    (work / "cases.jsonl").write_text("".join(rows), encoding="utf-8")
    (work / "evals.yaml").write_text(SUITE, encoding="utf-8")
    call([str(python), "-c", IMPORT], cwd=work)  # compiles
    imported = json.loads(call([str(python), "-c", IMPORT], cwd=work))
    print(f"import trilith_evals: {imported}")
    with ScriptedServer([Scripted(body=ANSWER, headers={"content-type": "application/json"})]) as server:
        called = json.loads(call([str(python), "-c", RUN, server.url], cwd=work))
        print(f"evals.run: {called}")
        command = [str(python.with_name("trilith")), "eval", "run", "evals.yaml", "--base-url", server.url]
        outputs = ["--json", "out.json", "--junit", "out.xml", "--report", "out.html", "--api-key", "k"]
        print(call([*command, *outputs], cwd=work))
    good = called["exact"] == 1 and not called["parts"] and not imported["heavy"]
    print("works alone" if good else "DOES NOT WORK ALONE")
    return 0 if good else 1


def call(command: list[str], cwd: Path | None = None) -> str:
    """Run a command that must succeed; returns what it printed."""
    ours = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # an installed package has its bytecode
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} left with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
