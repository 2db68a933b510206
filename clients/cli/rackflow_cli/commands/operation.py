"""rackflow operation …"""

from __future__ import annotations

from typing import Annotated

import typer

from rackflow_cli.columns import with_took
from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.names import OperationId, OperationIds
from rackflow_cli.operations import carry_out, read
from rackflow_cli.options import WAIT_TIMEOUT_S, Output, Timeout, Wait
from rackflow_cli.output import Format, show_list, show_one
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group

app = group("What was asked for, and how far it is.")

STATES = ("pending", "running", "done", "failed", "compensating", "compensated", "held", "cancelled")


@app.command("list")
def list_(
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only in that state.", autocompletion=lambda: list(STATES))
    ] = None,
    verb: Annotated[str | None, typer.Option(metavar="VERB", help="Only of that verb, e.g. deploy.")] = None,
    subject: Annotated[str | None, typer.Option(metavar="NAME", help="Only about the thing of that name.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also looks at hosts that went well; one a minute.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, metavar="N", help="How many, the newest first.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """List the newest operations, but for looks at hosts that went well."""
    wanted = {"state": state, "verb": verb, "subject": subject, "limit": limit, "looks": every or bool(state or verb)}
    rows = session.api().get("operations", wanted)
    show_list(rows if output in (Format.JSON, Format.YAML) else [with_took(row) for row in rows], "operation", output)


@app.command()
def show(operation_id: OperationId, output: Output = Format.TABLE) -> None:
    """Show one operation with its steps."""
    found = session.api().get(f"operations/{part(operation_id)}")
    show_one(found, "operation", output, parts={"steps": [with_took(step) for step in found.get("steps", ())]})


@app.command()
def watch(operation_ids: OperationIds, timeout: Timeout = WAIT_TIMEOUT_S, output: Output = Format.TABLE) -> None:
    """Follow operations to their end."""
    found = read(session.api(), operation_ids)
    missing = set(operation_ids) - {op["id"] for op in found}
    if missing:
        raise CliError(f"there is no operation {', '.join(sorted(missing))}", ExitCode.NOT_FOUND)
    carry_out({"operations": found}, output, wait=True, timeout_s=timeout)


@app.command()
def cancel(operation_ids: OperationIds) -> None:
    """Ask for operations to be ended; what they did is undone."""
    for operation_id in operation_ids:
        session.api().post(f"operations/{part(operation_id)}/cancel", {})
        talk(f"operation {operation_id}: asked to end")


def _again(word: str, help: str) -> None:
    @app.command(word, help=help)
    def again(
        operation_ids: OperationIds, wait: Wait = True, timeout: Timeout = WAIT_TIMEOUT_S, output: Output = Format.TABLE
    ) -> None:
        opened = [session.api().post(f"operations/{part(one)}/{word}", {}) for one in operation_ids]
        carry_out({"operations": opened}, output, wait=wait, timeout_s=timeout)


_again("retry", "Let operations that are held, or failed for a reason that may pass, go on where they stopped.")
_again("abandon", "Give up operations that are held: what they did is undone.")
