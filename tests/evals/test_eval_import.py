"""The package stays light: what is heavy comes in when a scorer needs it."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json, sys
import trilith_evals, trilith_evals.command
heavy = {"ragas", "torch", "langchain", "langchain_core", "numpy", "scipy", "sklearn", "mlflow", "jinja2",
         "yaml", "sentence_transformers", "pyarrow", "pandas"}
print(json.dumps({"modules": len(sys.modules), "heavy": sorted(heavy & set(sys.modules))}))
"""


def test_the_import_loads_few_modules_and_none_that_is_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["heavy"] == []
    assert found["modules"] < 450
