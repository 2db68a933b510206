"""What applying a blueprint changes, or would change."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rackflow_cli.columns import Column
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import paint, talk
from rackflow_cli.words import counted

NOUNS = ("clusters", "datastores", "networks", "images", "hosts", "instances")
MARKS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red"), "differs": ("!", "red")}
PLAN = (
    Column("ACTION", "action"),
    Column("NOUN", "noun"),
    Column("NAME", "name"),
    Column("WHERE", "host", rare=True),
    Column("WHY", "why", rare=True),
)


def changes(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per thing: action, noun, name, and for instances where and why."""
    raise NotImplementedError


def show_changes(answer: Mapping[str, Any]) -> None:
    """Tell what is done, one line each, and how much stays as it is."""
    rows = changes(answer)
    for row in rows:
        if row["action"] in MARKS:
            mark, style = MARKS[row["action"]]
            talk(f"{paint(mark, style, sys.stderr)} {row['noun']} {row['name']}{_why(row)}")
    same = sum(1 for row in rows if row["action"] == "unchanged")
    if same:
        talk(f"{counted(same, 'thing')} unchanged")


def show_plan(answer: Mapping[str, Any], output: Format) -> None:
    """Print what would be done, and where."""
    rows: Sequence[dict[str, Any]] = [row for row in changes(answer) if row["action"] != "unchanged"]
    if not rows:
        talk("nothing to do: all is as the blueprint says")
    else:
        show_list(rows, "change", output, columns=PLAN)


def _why(row: Mapping[str, Any]) -> str:
    return f": {row['why']}" if row.get("why") else ""
