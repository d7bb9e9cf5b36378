"""The package stays light: what is heavy comes in when a scorer needs it."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json, sys, time
started = time.process_time()
import trilith_evals, trilith_evals.command
spent = time.process_time() - started
heavy = {"ragas", "torch", "langchain", "langchain_core", "numpy", "scipy", "sklearn", "mlflow", "jinja2",
         "yaml", "sentence_transformers", "pyarrow", "pandas"}
print(json.dumps({"cpu_s": spent, "heavy": sorted(heavy & set(sys.modules))}))
"""


def test_the_import_is_quick_and_loads_nothing_heavy() -> None:
    tries = []
    for _ in range(3):  # the best of three: the machine may be busy
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
        tries.append(json.loads(done.stdout))
    assert tries[0]["heavy"] == []
    assert min(t["cpu_s"] for t in tries) <= 0.2
