"""docs/cli.md out of the tree of commands: `python -m rackflow_cli.docs > docs/cli.md`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from typing import Any

import typer

from rackflow_cli.tree import TREE, leaves

INTRO = """\
# The command line

Made by `python -m rackflow_cli.docs`; do not edit.

`rackflow NOUN VERB`, or one of the verbs that need no noun. Data goes to standard output, talk to standard error.

| `-o` | prints |
| --- | --- |
| `table`, `wide` | a table; `wide` with more columns |
| `json`, `yaml` | an array for lists, an object for one thing; times are RFC 3339 in UTC, sizes integers in the unit \
of their name, absent values null |
| `name` | one name a line |

What changes something waits until it is done and shows each step with its time; `--no-wait` returns at once with the
operations, `--timeout` bounds the waiting (1800 s unless said otherwise; what was asked for goes on). With `-o json` a
verb that waits prints what it made, as `show` does; `delete`, and all with `--no-wait`, print the operations. Every
command takes `-q` (nothing but data and errors), `--no-color` and `-h`.

| exit code | means |
| --- | --- |
| 0 | done |
| 1 | failed |
| 2 | usage: the command line or a blueprint is wrong |
| 3 | not found |
| 4 | denied |
| 5 | conflict |
| 6 | no capacity: it fits nowhere |
| 7 | timed out: it is still going on |
| 8 | the front-end cannot be reached |
| 130 | Ctrl-C: what was asked for goes on |

| variable | says |
| --- | --- |
| `RACKFLOW_URL` | where the front-end is; by default what `rackflow up` wrote into its run folder |
| `RACKFLOW_TOKEN`, `RACKFLOW_TOKEN_FILE` | the token; by default that of the local front-end |
| `RACKFLOW_RUN_DIR` | the run folder, where it is not the default |
| `NO_COLOR` | no colours |
| `RACKFLOW_DEBUG` | `1`: show where a command broke |
"""
COMMON = {  # options that many commands share, by their help; "" for those that all have
    "How to print.": "-o",
    "Wait until it is done, or return at once.": "--wait/--no-wait",
    "How long to wait at most.": "--timeout",
    "Say nothing but data and errors.": "",
    "No colours (as NO_COLOR does).": "",
    "Show this message and exit.": "",
}


def pages() -> Iterator[str]:
    """Yield the parts of the document: introduction, then each command under its section."""
    yield INTRO
    commands = leaves()
    section = ""
    for full, command in commands.items():
        entry = TREE[full.split()[0]]
        if entry.section != section:
            section = entry.section
            yield f"\n## {section}\n"
        yield from _command(full, command)


def _command(full: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=f"rackflow {full}")
    yield f"\n### rackflow {full}\n"
    yield f"```\n{' '.join(command.get_usage(context).removeprefix('Usage: ').split())}\n```\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    params = command.get_params(context)
    records = [param.get_help_record(context) for param in params if getattr(param, "help", "") not in COMMON]
    rows = [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in (r for r in records if r)]
    if rows:
        yield "\n".join(["\n| | |", "| --- | --- |", *rows]) + "\n"
    also = [COMMON[param.help] for param in params if COMMON.get(getattr(param, "help", ""))]
    if also:
        yield f"\nAlso {', '.join(f'`{name}`' for name in also)}.\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def main() -> None:
    """Print the document, the same on every terminal."""
    os.environ["COLUMNS"] = "1000"
    print("".join(pages()), end="")


if __name__ == "__main__":
    main()
