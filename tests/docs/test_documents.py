"""The documents tell the truth: links lead somewhere, commands exist, generated pages are current."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from itertools import groupby
from pathlib import Path
from typing import NoReturn

import pytest

from trilith.cli import Command
from trilith.settings import load_settings
from trilith.settings.reference import json_schema, reference_page, settings_table
from trilith_evals import catalogue
from trilith_evals.judging.certificate import Certificate
from trilith_evals.judging.document import read_judge
from trilith_evals.online.watching import Watching
from trilith_evals.suite import read_plans

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
COMMANDS = {point.name: point for point in entry_points(group="trilith.commands")}
# Documents that are data, and folders that are no part of the project.
_OTHERS = {"documents", "node_modules", "dist", "build"}


def documents() -> list[Path]:
    """Return the project's Markdown files."""
    found = sorted(ROOT.glob("*.md"))
    for folder in sorted(path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")):
        found += sorted(path for path in folder.rglob("*.md") if not _outside(path))
    return found


def _outside(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return bool(_OTHERS & set(parts)) or any(part.startswith(".") for part in parts)


every_document = pytest.mark.parametrize(
    "document", documents(), ids=lambda path: str(path.relative_to(ROOT))
)


def prose(document: Path) -> str:
    """Return a document without its code."""
    text = document.read_text(encoding="utf-8")
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class StrictParser(argparse.ArgumentParser):
    """Fails the test, and not the process, on what it does not know."""

    def error(self, message: str) -> NoReturn:
        raise AssertionError(f"{self.prog}: {message}")


def blocks(document: Path, language: str) -> list[str]:
    """Return a document's code blocks in one language."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def command_lines(document: Path) -> Iterator[list[str]]:
    """Yield the words of every `trilith ...` command in a document's shell blocks."""
    text = document.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            # `a && b | c > file` is four runs of words; the shell's signs stand between them.
            runs = groupby(words, key=lambda word: not set(word) <= set("&|;<>()"))
            commands = [list(run) for is_words, run in runs if is_words]
            yield from (command[1:] for command in commands if command[0] == "trilith")


@every_document
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@every_document
def test_every_command_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^|\$ )trilith ([a-z]+)", text, re.MULTILINE))
    assert named - set(COMMANDS) == set()


@every_document
def test_every_make_target_that_a_document_names_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:`|^)make ([a-z-]+)\b", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) - targets == set()


@every_document
def test_every_command_line_in_a_document_is_accepted(document: Path) -> None:
    for name, *arguments in command_lines(document):
        command: Command = COMMANDS[name].load()
        parser = StrictParser(prog=f"trilith {name}")
        command.configure(parser)
        if arguments != ["--help"]:
            parser.parse_args(arguments)


@every_document
def test_every_settings_file_in_a_document_is_accepted(document: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(document, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text, encoding="utf-8")
        if text.startswith("suites:"):
            row = '{"question": "q", "answers": ["a"], "document": "d", "language": "de"}\n'
            (tmp_path / "cases.jsonl").write_text(row, encoding="utf-8")
            read_plans(file)
        elif text.startswith("judge:"):
            (tmp_path / "judge.yaml").write_text(text, encoding="utf-8")
            read = read_judge(tmp_path / "judge.yaml")
            Certificate(read.settings.fingerprint(), "m", 2, "", "", "", "").write(read.certificate)
        elif re.search(r"^sources:", text, re.MULTILINE):
            Watching.opened(file)
        else:
            load_settings(file, environ=dict.fromkeys(re.findall(r"\$\{(\w+)", text), "x"))


@every_document
def test_every_python_example_in_a_document_is_python(document: Path) -> None:
    for text in blocks(document, "python"):
        compile(text, str(document), "exec")


def test_the_example_of_governance_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = blocks(ROOT / "governance" / "README.md", "python")
    exec(compile(text, "governance/README.md", "exec"), {})
    assert capsys.readouterr().out == "Write to Anna Schmidt at anna@example.org\n"


def test_the_reference_of_settings_is_current() -> None:
    assert (REFERENCE / "settings.md").read_text(encoding="utf-8") == reference_page(), "run `make docs`"
    assert (REFERENCE / "settings.schema.json").read_text(encoding="utf-8") == json_schema(), (
        "run `make docs`"
    )


def test_the_reference_of_scorers_is_current() -> None:
    assert (REFERENCE / "scorers.md").read_text(encoding="utf-8") == catalogue.reference_page(), (
        "run `make docs`"
    )


def test_every_scorer_and_all_that_it_takes_is_written_down() -> None:
    missing = [entry.name for entry in catalogue.entries() if not entry.meaning]
    missing += [
        f"{entry.name}.{parameter.name}"
        for entry in catalogue.entries()
        for parameter in entry.parameters
        if not parameter.meaning
    ]
    assert missing == []


def test_every_setting_has_a_heading() -> None:
    page = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ `(\S+)`$", page, re.MULTILINE)
    assert [s.key for s in settings_table() if headings.count(s.key) != 1] == []


def test_every_make_target_says_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    helped = re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE)
    assert phony.split() == helped


def test_the_documents_name_no_python_but_the_one_that_runs() -> None:
    named = {
        version
        for d in documents()
        for version in re.findall(r"Python (3\.\d+)", d.read_text(encoding="utf-8"))
    }
    assert named == {".".join(map(str, sys.version_info[:2]))}
