"""list and show, which every noun has, and delete for those that go at once."""

import sys
from typing import Annotated, Any

import typer

from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.names import names_of
from rackflow_cli.options import Output
from rackflow_cli.output import Format, show_list, show_one
from rackflow_cli.session import session, talk


def reads(app: typer.Typer, noun: str, *parts: str) -> None:
    """Add `list` and `show` to a noun's group; parts: fields that `show` draws as tables of their own."""
    name = typer.Argument(
        metavar=noun.upper(), help="Name or id.", autocompletion=names_of(f"{noun}s"), show_default=False
    )

    @app.command("list", help=f"List the {noun}s.")
    def list_(output: Output = Format.TABLE) -> None:
        show_list(session.api().items(f"{noun}s"), noun, output)

    @app.command("show", help=f"Show one {noun}.")
    def show(name: Annotated[str, name], output: Output = Format.TABLE) -> None:
        found = session.api().get(f"{noun}s/{part(name)}")
        show_one(found, noun, output, {field: found.get(field) or [] for field in parts})


def deletes(app: typer.Typer, noun: str) -> None:
    """Add `delete` to the group of a noun that goes at once."""
    names = typer.Argument(
        metavar=noun.upper() + "...", help="Names or ids.", autocompletion=names_of(f"{noun}s"), show_default=False
    )

    @app.command("delete", help=f"Delete {noun}s that nothing uses.")
    def delete(names: Annotated[list[str], names]) -> None:
        for name in names:
            session.api().delete(f"{noun}s/{part(name)}")
            talk(f"{noun} {name} deleted")


def agreed(question: str, yes: bool, *, said: bool = False) -> None:
    """Ask before something is lost, unless told not to or nobody could answer; a no ends the command.

    said: where nobody could answer, it must have been said. Raise CliError then.
    """
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)
    elif not yes and said:
        raise CliError(f"{question} Nobody can be asked here", ExitCode.USAGE, fix="say --yes")


def create(noun: str, spec: dict[str, Any], output: Format) -> None:
    """Create one of a noun that is there at once, and show it."""
    made = session.api().post(f"{noun}s", spec)
    talk(f"{noun} {spec['name']} created")
    if output not in (Format.TABLE, Format.WIDE):
        show_one(made, noun, output)
