"""What must not stand in the code at all: SQL made of data, digests compared in the open, pickle, shells."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("sdk", "gateway", "rag", "classical", "evals", "governance")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
_SQL = ("execute", "executemany", "executescript")
PARTS = {
    "marks": "as many question marks as there are values",
    "', '.join('?' * len(part))": "the same",
    "rows": "the same, for several rows",
    "table": "a table's name, from the schema",
    "names": "its columns' names, from the schema",
    "column": "one of two columns' names",
    "statement": "a constant with one more condition",
    "', '.join((str(n + 1) for n in range(len(groups))))": "their numbers",
    "schema.newest(postgres=False)": "the schema itself",
    "chosen": "columns that a command's options choose from a fixed list",
}
"""What a statement may be put together of beside constants. None of it is a value, let alone a caller's."""


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def parts(statement: ast.expr) -> Iterator[str]:
    """Yield what is not constant in a statement that is put together where it is run."""
    if isinstance(statement, ast.JoinedStr):
        for value in statement.values:
            if isinstance(value, ast.FormattedValue):
                yield ast.unparse(value.value)
    elif isinstance(statement, ast.BinOp):
        for side in (statement.left, statement.right):
            if not isinstance(side, ast.Constant):
                yield from list(parts(side)) or [ast.unparse(side)]
    elif isinstance(statement, ast.Call) and name(statement) in ("format", "join"):
        yield ast.unparse(statement)


def made(path: Path) -> list[str]:
    return [part for call in calls(path) if name(call) in _SQL and call.args for part in parts(call.args[0])]


def test_statements_are_constant_or_made_of_what_was_looked_at() -> None:
    assert {(path.name, part) for path in FILES for part in made(path) if part not in PARTS} == set()


def test_what_reads_requests_makes_no_statements() -> None:
    gateway = ROOT / "gateway" / "trilith_gateway"
    reading = [
        gateway / folder for folder in ("routes", "stages", "wire", "dialect", "inference", "upstream")
    ]
    assert [path.name for path in FILES if path.parent in reading and made(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        'c.execute(f"select {token}")',
        'c.execute("select " + token)',
        'c.execute("select %s" % token)',
        'c.executemany("select {}".format(token), rows)',
    ],
)
def test_a_statement_made_of_data_would_be_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.py").write_text(line, "utf-8")
    (part,) = made(tmp_path / "x.py")
    assert "token" in part


def test_a_keys_digest_is_compared_in_constant_time_and_nowhere_else() -> None:
    compared, direct = [], []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and name(node) == "compare_digest":
                compared.append(path.name)
            if isinstance(node, ast.Compare) and "secret_sha256" in ast.unparse(node):
                direct.append(path.name)
    assert "key.py" in compared
    assert direct == []


def test_nothing_unpickles_or_evaluates_or_opens_a_shell() -> None:
    forbidden = {"eval", "exec", "system", "popen", "Unpickler"}
    faults = []
    for path in FILES:
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                if {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"} & {
                    m.partition(".")[0] for m in modules
                }:
                    faults.append(f"{path.name}:{node.lineno} imports {modules}")
            if isinstance(node, ast.Call):
                shell = any(k.arg == "shell" and not _false(k.value) for k in node.keywords)
                if shell or (isinstance(node.func, ast.Name) and node.func.id in forbidden):
                    faults.append(f"{path.name}:{node.lineno} {ast.unparse(node)[:60]}")
    assert faults == []


def _false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


DIALLING = {
    "opening.py",  # upstreams of the settings
    "inference/remote.py",  # the same, for predictors
    "upstream/http.py",  # the client itself
    "upstream/provider.py",  # the worker's socket
    "engines/supervised.py",  # an engine on this machine
}


def test_the_gateway_dials_only_what_the_settings_name() -> None:
    """An address that comes from data goes through `egress`; nothing else makes a connection."""
    clients = {"HttpUpstream", "create_connection", "AsyncClient", "ClientSession", "urlopen"}
    folder = ROOT / "gateway" / "trilith_gateway"
    dialling = {
        str(path.relative_to(folder))
        for path in FILES
        if path.is_relative_to(folder) and any(name(call) in clients for call in calls(path))
    }
    assert dialling == DIALLING
