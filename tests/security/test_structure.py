"""What must not stand in the code at all: SQL made of data, digests compared in the open, pickle, shells."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("sdk", "gateway", "rag", "classical", "evals", "governance")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
_SQL = ("execute", "executemany", "executescript")
PARTS: dict[str, tuple[str, str]] = {
    "marks": (
        "as many question marks as there are values",
        "apply.py cache.py costs_detail.py feature.py group.py key.py shelf.py",
    ),
    "', '.join('?' * len(part))": ("the same", "apply.py"),
    "', '.join('?' * len(models))": ("the same", "enginecost.py"),
    "rows": ("the same, for several rows", "sqlite.py"),
    "table": (
        "a table's name: from the schema, or one of the two that `teams` and `orgs` manage",
        "group.py lease.py postgres.py sqlite.py store.py teams.py",
    ),
    "self._table": ("the same", "teams.py"),
    "names": ("a table's columns' names, from the schema", "postgres.py sqlite.py"),
    "columns": ("the same, from the fields of a file's row", "shelf.py"),
    "', '.join(row)": ("the same, from the fields of a key's, a team's or an org's terms", "group.py key.py"),
    "terms": ("the same, each with a question mark", "group.py keys.py"),
    "total('amount_pico_usd')": ("a column's sum", "costs.py costs_detail.py enginecost.py lease.py"),
    "total('saved_pico_usd')": ("the same", "costs.py"),
    "MOST": ("the most that a column holds", "lease.py"),
    "kept": ("a constant condition, or none", "lease.py"),
    "column": ("one of a few columns' names, by an account's kind", "costs_detail.py lease.py"),
    "chosen": ("columns that a command's options choose from a fixed list", "costs.py"),
    "', '.join((str(n + 1) for n in range(len(groups))))": ("their numbers", "costs.py"),
    "focus.statement(day)": ("a constant around the database's expression for a day", "costs.py"),
    "query": ("the answer that a scorer judges, on a database of its own that can only be read", "sql.py"),
    "case.fields.get(self.setup)": ("the script by which a dataset makes that database, in memory", "sql.py"),
    "schema.newest(postgres=False)": ("the schema itself", "sqlite.py"),
    "statement": (
        "a constant: with one more condition, or handed on by another method of the same class",
        "lease.py registry.py sqlite.py",
    ),
    "text('select pg_advisory_xact_lock(724910)')": ("a constant", "env.py"),
    "statement.replace('%', '%%').replace('?', '%s')": (
        "the connection itself, which marks parameters in the database's way",
        "postgres.py",
    ),
}
"""What a statement may be put together of beside constants, and the files where that was looked at. None of
it is a value, let alone a caller's."""


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def names(path: Path) -> dict[str, list[ast.expr]]:
    """Return what is assigned to each name anywhere in a file."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            for target in targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
    return found


def parts(statement: ast.expr, known: Mapping[str, list[ast.expr]]) -> Iterator[str]:
    """Yield what is not constant in a statement, also where it was put together before it is run."""
    if isinstance(statement, ast.JoinedStr):
        for value in statement.values:
            if isinstance(value, ast.FormattedValue) and not constant(value.value, known):
                yield ast.unparse(value.value)
    elif isinstance(statement, ast.BinOp):
        yield from parts(statement.left, known)
        yield from parts(statement.right, known)
    elif isinstance(statement, ast.IfExp):
        yield from parts(statement.body, known)
        yield from parts(statement.orelse, known)
    elif isinstance(statement, ast.Name) and statement.id in known:
        for value in known[statement.id]:
            yield from parts(value, {name: known[name] for name in known if name != statement.id})
    elif not isinstance(statement, ast.Constant):
        yield ast.unparse(statement)


def constant(part: ast.expr, known: Mapping[str, list[ast.expr]]) -> bool:
    values = known.get(part.id, []) if isinstance(part, ast.Name) else [part]
    return bool(values) and all(isinstance(value, ast.Constant) for value in values)


def made(path: Path) -> list[str]:
    known = names(path)
    return [
        part
        for call in calls(path)
        if name(call) in _SQL and call.args
        for part in parts(call.args[0], known)
    ]


def test_statements_are_constant_or_made_of_what_was_looked_at() -> None:
    found = {(part, path.name) for path in FILES for part in made(path)}
    assert found == {(part, file) for part, (_, files) in PARTS.items() for file in files.split()}


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
        'made = f"select {token}"\nc.execute(made)',
        'made = "select "\nmade += token\nc.execute(made)',
        "c.execute(token)",
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
    "commands/costs_detail.py",  # the server that an operator names to `costs fit --url`
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
