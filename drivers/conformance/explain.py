"""Words for what failed: an assert in a case says by itself neither what it checked nor what it saw."""

from __future__ import annotations

import ast
import linecache
from pathlib import Path
from types import FrameType, TracebackType

_LONGEST = 160  # characters of a value
HERE, RUNNER = str(Path(__file__).parent), str(Path(__file__).with_name("run.py"))


def explain(error: BaseException) -> str:
    """Return what went wrong, where in the kit, and what the names in that statement stood for."""
    what = str(error) or type(error).__name__
    if not isinstance(error, AssertionError):
        what = f"{type(error).__name__}: {what}"
    found = _frame(error.__traceback__)
    if found is None:
        return what
    frame, line = found
    where = f"{Path(frame.f_code.co_filename).name}:{line}"
    if str(error):
        return f"{what} ({where})"
    statement = _statement(frame.f_code.co_filename, line)
    return f"{ast.unparse(statement)} ({where}){_values(statement, frame)}" if statement else f"{what} ({where})"


def _frame(trace: TracebackType | None) -> tuple[FrameType, int] | None:
    """Return the innermost frame of a case, and the line it was at."""
    found = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(HERE) and file != RUNNER:
            found = (trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _statement(file: str, line: int) -> ast.AST | None:
    """Return the assert at a line, None if there is another statement."""
    tree = ast.parse("".join(linecache.getlines(file)))
    around = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Assert) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]  # fmt: skip
    return min(around, key=lambda node: (node.end_lineno or 0) - node.lineno, default=None)


def _values(statement: ast.AST, frame: FrameType) -> str:
    names = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    known = {name: frame.f_locals[name] for name in dict.fromkeys(names) if name in frame.f_locals}
    plain = {name: repr(value)[:_LONGEST] for name, value in known.items() if not callable(value) and name != "rig"}
    return "; " + ", ".join(f"{name}={value}" for name, value in plain.items()) if plain else ""
