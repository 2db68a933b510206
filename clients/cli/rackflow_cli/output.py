"""Data to standard output: table, wide, json, yaml or name. rich and yaml are loaded only when they draw."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rackflow_cli import words
from rackflow_cli.columns import COLUMNS, STATE_STYLES, Column, Row
from rackflow_cli.session import session, talk

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# the rest comes as it is
NAMED = ("instance", "host", "image", "network", "datastore", "cluster", "foreign", "machine")
BY_ID = ("operation",)  # their names are those of their subjects
NOTHING = {  # what is said where there is none, but for "no instances"
    "foreign": "no foreign instances", "drift": "no drift", "found": "no BMC answers by Redfish there",
    "tried": "no machines",
    "proposal": "no cluster runs out within 30 days", "log-entry": "no log entries", "rule": "no rules that classify",
}  # fmt: skip
_PIPE_WIDTH = 100_000  # into a pipe or file nothing is cut


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def show_list(rows: Sequence[Row], noun: str, form: Format, *, columns: Sequence[Column] | None = None) -> None:
    """Print many of a noun: json and yaml as an array, name as one name a line."""
    if form in (Format.JSON, Format.YAML):
        dump(list(rows), form)
        return
    rows = sorted(rows, key=_by_name) if noun in NAMED else rows
    if form is Format.NAME:
        for row in rows:
            _print(_name(row, noun))
    elif rows:
        draw(rows, columns or COLUMNS[noun], wide=form is Format.WIDE)
    else:
        talk(NOTHING.get(noun, f"no {noun}s"))


def show_one(row: Row, noun: str, form: Format, parts: Mapping[str, Sequence[Row]] | None = None) -> None:
    """Print one of a noun: json and yaml as an object; parts: tables of its own below it, by noun."""
    if form is Format.NAME:
        _print(_name(row, noun))
    elif form in (Format.JSON, Format.YAML):
        dump(row, form)
    else:
        draw_fields({key: value for key, value in row.items() if key not in (parts or {})})
        for title, rows in (parts or {}).items():
            if rows:
                _print("")
                draw(rows, COLUMNS.get(f"{noun}-{title}") or COLUMNS[title.removesuffix("s")], wide=form is Format.WIDE)


def dump(value: Any, form: Format) -> None:
    """Print a value as JSON or YAML."""
    if form is Format.YAML:
        import yaml

        _print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n"))
    else:
        _print(json.dumps(value, indent=2, ensure_ascii=False))


def draw(rows: Sequence[Row], columns: Sequence[Column], *, wide: bool) -> None:
    """Print rows as a table."""
    put(table_of(rows, columns, wide=wide))


def table_of(rows: Sequence[Row], columns: Sequence[Column], *, wide: bool = False) -> Table:
    """Return rows as a table to draw."""
    shown = [c for c in columns if wide or not c.wide]
    shown = [c for c in shown if not c.rare or any(c.value(row) for row in rows)]
    table = _table()
    for column in shown:
        table.add_column(column.header, justify="right" if column.right else "left", no_wrap=not column.rare)
    for row in rows:
        table.add_row(*(_cell(column, row) for column in shown))
    return table


def draw_fields(row: Row) -> None:
    """Print an object's fields, one a line; what lies inside a field follows indented."""
    table = _table(header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in row.items():
        said = _field(key, value)
        label = key.removesuffix("_mib").removesuffix("_bytes").removesuffix("_at").replace("_", " ")
        table.add_row(label, _styled_state(said) if key == "state" else said)
    put(table)


def put(table: Table | str) -> None:
    """Print a table without the blanks that fill its last column."""
    console = _console()
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        _print(line.rstrip())


def _console() -> Console:
    """Return a console on standard output in the colours of this session; nothing is cut in a pipe."""
    from rich.console import Console

    colors = session.colors(sys.stdout)
    return Console(
        file=sys.stdout, no_color=not colors, force_terminal=colors, highlight=False, markup=False, emoji=False,
        soft_wrap=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH,
    )  # fmt: skip


def _table(*, header: bool = True) -> Table:
    from rich.table import Table

    return Table(box=None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _cell(column: Column, row: Row) -> Any:
    said = column.form(column.value(row))
    return _styled_state(said) if column.state else said


def _styled_state(state: str) -> Any:
    from rich.text import Text

    return Text(state, style=STATE_STYLES.get(state, ""))


def _field(key: str, value: Any) -> str:
    if key.endswith("_mib") and isinstance(value, int | float):
        return words.mib(value)
    if key.endswith("_bytes") and isinstance(value, int | float):
        return words.size_bytes(value)
    if key.endswith("_at") and isinstance(value, str):
        left = words.until(value)
        return f"{value} ({left})" if left != "now" else f"{value} ({words.age(value)} ago)"
    value = _without_nothing(value)
    if _deep(value):
        import yaml

        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None)).rstrip("\n")
    return words.text(value)


def _without_nothing(value: Any) -> Any:
    """Leave out what is not there, at any depth."""
    if isinstance(value, Mapping):
        kept = {key: _without_nothing(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in (None, "", [], {})}
    return [_without_nothing(inner) for inner in value] if isinstance(value, list) else value


def _deep(value: Any) -> bool:
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(isinstance(v, Mapping | list) and v for v in inside)


def _by_name(row: Row) -> list[tuple[int, str]]:
    """Order web-2 before web-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", _name(row))]


def _name(row: Row, noun: str = "") -> str:
    """Return what other commands know it by."""
    return str((row.get("name") if noun not in BY_ID else None) or row.get("id") or "")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
