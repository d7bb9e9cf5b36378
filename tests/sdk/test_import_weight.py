"""What `import trilith` costs: few modules, and nothing that only some programs need."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import trilith

SDK = Path(trilith.__file__).parent
HEAVY = {
    "aiohttp",
    "asyncio",
    "fastapi",
    "httpx",
    "numpy",
    "opentelemetry.sdk",
    "pandas",
    "polars",
    "qdrant_client",
    "sklearn",
    "starlette",
    "trilith_gateway",
    "yaml",
}
MEASURE = """
import json, sys
import trilith
print(json.dumps({"modules": sorted(sys.modules)}))
"""


def measure(code: str = MEASURE) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_importing_it_loads_few_modules_and_none_that_is_heavy() -> None:
    modules = measure()["modules"]
    assert isinstance(modules, list)
    assert len(modules) < 350
    assert HEAVY.intersection(modules) == set()


def test_httpx_is_imported_by_its_client_and_its_transport_only() -> None:
    importers = [
        path.relative_to(SDK).as_posix()
        for path in SDK.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(name.name.startswith("httpx") for name in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("httpx"))
    ]
    assert set(importers) == {"client/http.py", "client/line.py"}
