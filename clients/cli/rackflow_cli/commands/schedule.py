"""rackflow schedule …"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from rackflow_cli import words
from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.names import InstanceName, names_of
from rackflow_cli.options import Output, given, pairs
from rackflow_cli.output import Format, show_list, show_one
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group

app = group("Verbs that are asked for at a time.")

ScheduleIds = Annotated[
    list[str],
    typer.Argument(metavar="SCHEDULE...", help="Ids.", autocompletion=names_of("schedules"), show_default=False),
]


def value_of(text: str) -> Any:
    """Return a number, true, false or null as what it is, anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def seconds(text: str | None, option: str) -> int | None:
    """Return the seconds of e.g. 90s, 15m, 2h, 1d. Raise CliError (usage)."""
    try:
        return None if text is None else words.seconds_of(text)
    except ValueError as error:
        raise CliError(f"{option}: {error}", ExitCode.USAGE, fix="e.g. 90s, 15m, 2h, 1d or 1w") from error


def moment(text: str | None, option: str = "--at") -> str | None:
    """Return a time as RFC 3339: as it is given, local where it has no zone, or +2h from now. Raise CliError."""
    try:
        return None if text is None else words.moment_of(text)
    except ValueError as error:
        raise CliError(f"{option}: {error}", ExitCode.USAGE, fix="e.g. 2026-12-24T18:00, or +2h") from error


@app.command("add")
def add_(
    instance: InstanceName,
    verb: Annotated[str, typer.Argument(metavar="VERB", help="E.g. backup, snapshot, shutdown.", show_default=False)],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="Of the verb; repeatable.")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Once at that time, or +2h from now.")] = None,
    every: Annotated[str | None, typer.Option(metavar="TIME", help="Again and again, e.g. 1d; first --at.")] = None,
    after_start: Annotated[str | None, typer.Option(metavar="TIME", help="So long after each start, e.g. 8h.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Ask for a verb on an instance at a time, again and again, or after each of its starts."""
    if not (at or every or after_start):
        raise CliError("when?", ExitCode.USAGE, fix="say --at TIME, --every TIME (or both) or --after-start TIME")
    parameters = {key: value_of(text) for key, text in pairs(parameter, "--parameter").items()}
    made = session.api().post("schedules", {"instance": instance, "verb": verb, **given(
        parameters=parameters, at=moment(at), every_s=seconds(every, "--every"),
        after_start_s=seconds(after_start, "--after-start"),
    )})  # fmt: skip
    talk(f"schedule {made['id']}: {made['verb']} {made['instance']}")
    if output not in (Format.TABLE, Format.WIDE):
        show_one(made, "schedule", output)


@app.command("list")
def list_(
    instance: Annotated[
        str | None,
        typer.Argument(
            metavar="[INSTANCE]", help="Only of this one.", autocompletion=names_of("instances"), show_default=False
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """List schedules."""
    show_list(session.api().get("schedules", {"instance": instance}), "schedule", output)


@app.command()
def remove(ids: ScheduleIds) -> None:
    """Take schedules away."""
    for one in ids:
        session.api().delete(f"schedules/{part(one)}")
        talk(f"schedule {one} removed")


def _switch(word: str, help: str, enabled: bool) -> None:
    @app.command(word, help=help)
    def switch(ids: ScheduleIds) -> None:
        for one in ids:
            session.api().patch(f"schedules/{part(one)}", {"enabled": enabled})
            talk(f"schedule {one} {word}d")


_switch("enable", "Let schedules run again; what they missed is not made up for.", True)
_switch("disable", "Let schedules rest.", False)
