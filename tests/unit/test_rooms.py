"""The shape of the code: sizes, what flows may hold, names that would hide the standard library's, import rules."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [
    "core", "blueprints", "drivers", "control", "analytics", "tasks", "flows", "api", "daemon", "lab", "clients/cli",
]  # fmt: skip
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
WRITTEN_ONCE = "migrations/versions"  # a migration is a list of changes, and is not edited again
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if WRITTEN_ONCE not in str(path))
FLOWS = sorted((ROOT / "flows").glob("*.py"))
SQL = ("select ", "insert into ", "update ", "delete from ")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def test_rooms_are_there() -> None:
    assert all((ROOT / room).is_dir() for room in ROOMS)
    assert len(FILES) > 50


def test_files_are_small() -> None:
    sizes = {name(path): len(path.read_text().splitlines()) for path in FILES}
    assert {path: lines for path, lines in sizes.items() if lines > MAX_FILE_LINES} == {}


def test_functions_are_small() -> None:
    """A function that only holds others (a router's or a command group's factory) is measured without them."""
    large = {}
    for path in FILES:
        for node in functions(path):
            own = lines_of(node)
            for inner in ast.walk(node):
                if inner is not node and isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    own -= lines_of(inner)
            if len(own) > MAX_FUNCTION_LINES:
                large[f"{name(path)}:{node.lineno} {node.name}"] = len(own)
    assert large == {}


@pytest.mark.parametrize("path", FLOWS, ids=name)
def test_flows_hold_order_only(path: Path) -> None:
    """No class, no SQL, no argv (a list that begins with a command's name)."""
    for node in ast.walk(tree(path)):
        where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.ClassDef), where
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not node.value.lower().startswith(SQL), where
        if isinstance(node, ast.List) and len(node.elts) > 1:
            assert not all(isinstance(e, ast.Constant) and isinstance(e.value, str) for e in node.elts), where


def test_flow_files_hide_no_module() -> None:
    """Prefect may put a flow's folder first on the path: a file named like a module would be imported in its place."""
    taken = sys.stdlib_module_names | requirements()
    assert [name(path) for path in FLOWS if path.stem != "__init__" and path.stem in taken] == []


def requirements() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return {text.split("[")[0].replace("-", "_").lower() for text in asked}


def test_requirements_are_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].replace("-", "_").lower() for line in lines if "==" in line}
    assert requirements() <= pinned


def test_import_rules() -> None:
    """import-linter's contracts in pyproject.toml: layers of rooms, and libraries in their rooms only."""
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(tool), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.partition("Broken contracts")[2] or done.stderr
