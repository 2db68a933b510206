"""The end of enrolling machines: all that came of it as a table, then each failure with its reason and next step."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from rackflow_cli.errors import CliError, from_operation
from rackflow_cli.operations import exit_code, watch
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import complain, paint, session, talk
from rackflow_cli.words import counted

Operation = Mapping[str, Any]
_IN_FULL = 3  # failures told with what was seen; of more, a line each


def see_through(
    operations: list[dict[str, Any]], names: Sequence[str], output: Format, *, wait: bool, timeout_s: float
) -> None:
    """Follow enrollments to their end. Raise typer.Exit when one of them did not end well."""
    if not wait:
        show_list(operations, "operation", output)
        return
    ended = watch(operations, timeout_s) if operations else []
    wanted = set(names)
    show_list([row for row in session.api().items("machines") if row["name"] in wanted], "machine", output)
    failed = [op for op in ended if op["state"] != "done"]
    tell(failed, len(ended))
    if failed:
        raise typer.Exit(exit_code(ended))


def tell(failed: Sequence[Operation], total: int) -> None:
    """Say why each failed, and what to do next."""
    if not failed:
        return
    if len(failed) <= _IN_FULL:
        for op in failed:
            complain(from_operation(op))
        return
    lines = [f"{paint('error:', 'red', sys.stderr)} {len(failed)} of {counted(total, 'machine')} failed:"]
    for (reason, fix), ops in _by_reason(failed).items():
        who = ", ".join(f"{op['name']} ({stage(op)})" if stage(op) else str(op["name"]) for op in ops)
        lines += [f"  {who}: {reason}", *([f"    what to do: {fix}"] if fix else [])]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _by_reason(failed: Sequence[Operation]) -> dict[tuple[str, str], list[Operation]]:
    """Put together what failed for the same reason, but for its own name."""
    found: dict[tuple[str, str], list[Operation]] = {}
    for op in failed:
        error: CliError = from_operation(op)
        name = str(op["name"])
        whole = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
        said = error.message.removeprefix(f"{op['verb']} {name}: ")
        found.setdefault((re.sub(whole, "it", said), re.sub(whole, "NAME", error.fix)), []).append(op)
    return found


def stage(op: Operation) -> str:
    """Return the stage in which it failed, "" where that is not known."""
    return next((str(s["name"]) for s in reversed(op.get("steps", ())) if s.get("state") == "failed"), "")


def changes(names: Sequence[str], output: Format) -> None:
    """Show what the last inspection of each machine found otherwise than the one before."""
    from rackflow_cli.connection import part

    rows = []
    for name in names:
        seen = session.api().get(f"machines/{part(name)}/inventory")
        rows += [{"machine": name, **one} for one in (seen[0]["changes"] if seen else [])]
    if rows or output not in (Format.TABLE, Format.WIDE):
        show_list(rows, "change", output)
    else:
        talk("nothing has changed since the last inspection")


