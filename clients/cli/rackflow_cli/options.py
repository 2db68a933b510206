"""Options that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.output import Format

WAIT_TIMEOUT_S = 1800.0

NewName = Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)]
Output = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done, or return at once.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait at most.")]
LabelsOption = Annotated[
    list[str] | None, typer.Option("-l", "--label", metavar="KEY=VALUE", help="Label; repeatable.")
]


def pairs(texts: list[str] | None, option: str, form: str = "KEY=VALUE") -> dict[str, str]:
    """Return KEY=VALUE texts as a mapping; form: what the option calls them. Raise CliError (usage)."""
    found: dict[str, str] = {}
    for text in texts or ():
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise CliError(f"{option} {text!r} is not {form}", ExitCode.USAGE)
        found[key] = value
    return found


def given(**values: object) -> dict[str, object]:
    """Return only the values that were given: not None, not empty; the front-end knows the defaults."""
    return {key: value for key, value in values.items() if value is not None and value not in ("", [], {}, ())}
