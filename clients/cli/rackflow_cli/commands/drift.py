"""rackflow drift …"""

from __future__ import annotations

from typing import Annotated

import typer

from rackflow_cli.connection import part
from rackflow_cli.names import HostOption, names_of
from rackflow_cli.options import Output
from rackflow_cli.output import Format, show_list, show_one
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group

app = group("Where the world differs from the record.")

POLICIES = ("repair", "adopt", "ignore", "alert")
STATES = ("open", "repaired", "gone", "all")
DriftId = Annotated[
    str, typer.Argument(metavar="DRIFT", help="Id.", autocompletion=names_of("drift"), show_default=False)
]


@app.command("list")
def list_(
    state: Annotated[
        str | None, typer.Option(metavar="|".join(STATES), help="By default open.", autocompletion=lambda: list(STATES))
    ] = None,
    host: HostOption = None,
    output: Output = Format.TABLE,
) -> None:
    """List where the world differs from the record."""
    show_list(session.api().get("drift", {"state": state, "host": host}), "drift", output)


@app.command()
def show(drift_id: DriftId, output: Output = Format.TABLE) -> None:
    """Show one difference: what should be, and what was found."""
    show_one(session.api().get(f"drift/{part(drift_id)}"), "drift", output)


@app.command("set-policy")
def set_policy(
    drift_id: DriftId,
    policy: Annotated[
        str,
        typer.Argument(
            metavar="|".join(POLICIES), help="What is done about it.", autocompletion=lambda: list(POLICIES),
            show_default=False,
        ),
    ],
) -> None:  # fmt: skip
    """Choose what is done about a difference."""
    session.api().patch(f"drift/{part(drift_id)}", {"policy": policy})
    talk(f"drift {drift_id}: {policy}")
