"""Every `rackflow …` that the documentation prints, or a message names, is a command that the real tree takes."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

import lab.__main__
from daemon.__main__ import _parser as daemon_parser
from rackflow_cli.tree import TREE, load

REPOSITORY = Path(__file__).parents[3]
ROOMS = ("core", "blueprints", "drivers", "control", "analytics", "tasks", "flows", "api", "daemon", "lab", "clients")
GENERATED = REPOSITORY / "docs" / "cli.md"  # its usage lines are made out of the tree
PAGES = [page for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))) if page != GENERATED]
_MENTIONED = re.compile(r"`(rackflow [a-z][^`]*)`")
_PRINTED = re.compile(r"^(?:\$ )?(rackflow [a-z].*)$", re.MULTILINE)
_FENCED = re.compile(r"^ *```\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_TOLD = re.compile(r"\brackflow ([a-z][a-z-]*)(?: ([a-z][a-z-]*|X))?(?: X| '[^']*'| --?[a-z][a-z-]*)*")
_NO_SUCH = re.compile(r"\bno_such\(\"(\w+)\"")  # which tells to do `rackflow NOUN list`
_SHELL = ("|", ">", "&&", ";")


def words(line: str) -> list[str]:
    """Return a line's words without `rackflow`, the brackets of what may be left out, and what the shell takes."""
    found: list[str] = []
    for word in shlex.split(line.replace("\\|", "|"), comments=True):
        if word in _SHELL:
            break
        if word != "…" or found[-1].startswith("--"):  # of an option it is the value, else what may follow
            found.append(word.strip("[]"))
    return found[1:]


def against(line: str, *, whole: bool) -> str:
    """Return what the tree has against a command line, "" for nothing. whole: values and missing words count, too."""
    first, *rest = words(line)
    if first not in TREE:
        return f"there is no command {first!r}"
    if TREE[first].module == "local" and first not in ("schema", "completion"):
        return _against_here(first, rest)
    command: Any = load(first)
    try:
        if hasattr(command, "commands") and rest:
            context = command.make_context(first, rest)
            _, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        if hasattr(command, "commands"):
            return "" if not whole else "a noun needs a verb"
        if whole:
            command.make_context(first, rest)
        else:
            command.make_parser(typer.Context(command, info_name=first)).parse_args(
                [*rest, "X"]
            )  # X: `apply -f` may end there
    except Exception as error:
        return getattr(error, "message", None) or repr(error)
    return ""


def _against_here(first: str, rest: list[str]) -> str:
    """As `against`, for what becomes a process of the rooms: `lab` has a tree of its own, the others a parser."""
    if first == "lab":
        tree: Any = get_command(lab.__main__.app)
        known = not rest or rest[0] in tree.commands
        return "" if known else f"there is no `lab {rest[0]}`"
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
        daemon_parser().parse_args([first, *rest])
    return said.getvalue()


def printed() -> Iterator[Any]:
    """Yield each line of a page that is there to be typed, and each command that its prose mentions."""
    for page in PAGES:
        text, name = page.read_text().replace("\\\n", " "), str(page.relative_to(REPOSITORY))
        lines = [line for block in _FENCED.findall(text) for line in _PRINTED.findall(block)]
        yield from (pytest.param(line, True, id=f"{name}: {line}") for line in dict.fromkeys(lines))
        said = dict.fromkeys(_MENTIONED.findall(_FENCED.sub("", text)))
        yield from (pytest.param(line, False, id=f"{name}: {line}") for line in said)


def told() -> Iterator[Any]:
    """Yield each command, with its options, that a string of the code names (messages, fixes, help)."""
    for file in sorted(file for room in ROOMS for file in (REPOSITORY / room).rglob("*.py")):
        code, name = file.read_text(), str(file.relative_to(REPOSITORY))
        lines = [line for text in _strings(ast.parse(code)) for line in _named(text)]
        lines += [f"rackflow {noun} list" for noun in _NO_SUCH.findall(code)]
        yield from (pytest.param(line, id=f"{name}: {line}") for line in dict.fromkeys(lines))


def _strings(tree: ast.AST) -> Iterator[str]:
    """Yield all strings, with X for what is filled in."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def _named(text: str) -> Iterator[str]:
    yield from _MENTIONED.findall(text)
    for found in _TOLD.finditer(_MENTIONED.sub("", text)):
        if found[1] in TREE and found[2] != "X":  # prose ("rackflow is up"), or the verb is filled in
            yield found[0]


@pytest.mark.parametrize(("line", "whole"), list(printed()))
def test_what_the_documentation_prints_can_be_typed(line: str, whole: bool) -> None:
    assert against(line, whole=whole) == ""


@pytest.mark.parametrize("line", list(told()))
def test_what_a_message_tells_to_do_can_be_typed(line: str) -> None:
    assert against(line, whole=False) == ""


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("rackflow zebra", False), ("rackflow host zebra", False), ("rackflow host show h1 --zebra", False),
        ("rackflow host show", True), ("rackflow instance create web -i tiny --count many", True),
        ("rackflow lab zebra", False), ("rackflow logs --zebra", False),
    ],
)  # fmt: skip
def test_what_cannot_be_typed_is_found(line: str, whole: bool) -> None:
    assert against(line, whole=whole)
