"""What applying a blueprint changes, or would change."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rackflow_cli.columns import Column
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import paint, talk
from rackflow_cli.words import counted

NOUNS = ("clusters", "datastores", "networks", "images", "hosts", "instances")
MARKS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "delete": ("-", "red"),
    "differs": ("!", "red"),
    "surplus": ("?", "yellow"),
}
PLAN = (
    Column("ACTION", "action"),
    Column("NOUN", "noun"),
    Column("NAME", "name"),
    Column("WHERE", "host", rare=True),
    Column("WHY", "why", rare=True),
)


def changes(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one row for each thing that does not stay as it is: action, noun, name, host, why."""
    placed = {one["name"]: one for one in plan["placements"]}
    for noun in NOUNS:
        found, single = plan[noun], noun.removesuffix("s")
        for name in found["create"]:
            where = placed.get(name, {}) if noun == "instances" else {}
            yield _row("create", single, name, _unplaced(where), host=where.get("host"))
        for one in found["update"]:
            yield _row("update", single, one["name"], ", ".join(one["fields"]))
        for name in found["delete"]:
            yield _row("delete", single, name)
        for one in found["differs"]:
            needs = f"; it needs {one['needs']}" if one.get("needs") else ""
            yield _row("differs", single, one["name"], f"{', '.join(one['fields'])} cannot change in place{needs}")
    for name in plan["surplus"]:
        yield _row("surplus", "instance", name, "beyond its count; --prune deletes it")


def _row(action: str, noun: str, name: str, why: str = "", host: str | None = None) -> dict[str, Any]:
    return {"action": action, "noun": noun, "name": name, "host": host, "why": why or None}


def _unplaced(placement: Mapping[str, Any]) -> str:
    error = placement.get("error") or {}
    return "; ".join([error["message"]] if error else placement.get("notes", ()))


_NOTHING = "nothing to do: all is as the blueprint says"


def show_changes(plan: Mapping[str, Any]) -> None:
    """Tell what is done, one line each, and how much stays as it is."""
    rows = list(changes(plan))
    for row in rows:
        mark, style = MARKS[row["action"]]
        why = f": {row['why']}" if row["why"] else ""
        talk(f"{paint(mark, style, sys.stderr)} {row['noun']} {row['name']}{why}")
    same = sum(len(plan[noun]["unchanged"]) for noun in NOUNS)
    if same:
        talk(f"{counted(same, 'thing')} unchanged")
    elif not rows:
        talk(_NOTHING)


def show_plan(plan: Mapping[str, Any], output: Format) -> None:
    """Print what would be done, and where."""
    rows = list(changes(plan))
    if rows:
        show_list(rows, "change", output, columns=PLAN)
    else:
        talk(_NOTHING)


def refuse_what_differs(plan: Mapping[str, Any]) -> None:
    """Raise CliError (conflict) when something could not be brought to what the blueprint says."""
    names = [f"{noun.removesuffix('s')}/{one['name']}" for noun in NOUNS for one in plan[noun]["differs"]]
    if names:
        some = " ".join(names[:5])
        raise CliError(
            f"{counted(len(names), 'thing')} could not be changed in place, the rest is done: {', '.join(names)}",
            ExitCode.CONFLICT, fix=f"`rackflow delete {some}`, then apply again",
        )  # fmt: skip
