"""rackflow snapshot …"""

from __future__ import annotations

from typing import Annotated

import typer

from rackflow_cli.commands.verbs import Param, Word, add
from rackflow_cli.connection import part
from rackflow_cli.names import InstanceName, names_within
from rackflow_cli.options import NewName, Output
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import session
from rackflow_cli.tree import group

app = group("Snapshots of instances.")

Known = Annotated[
    str,
    typer.Argument(
        metavar="SNAPSHOT", help="Its name.", autocompletion=names_within("snapshots"), show_default=False
    ),
]
Memory = Annotated[
    bool | None, typer.Option("--memory/--no-memory", help="With its memory; by default when it runs and can.")
]
OneDisk = Annotated[str | None, typer.Option("--disk", metavar="DISK", help="Of this one only; by default of all.")]

WORDS = (
    Word("create", "Snapshot an instance: disks, and its memory where it runs.",
         (Param("snapshot", NewName), Param("memory", Memory, None), Param("disk", OneDisk, None)), "snapshot",
         many=False, shows="snapshots"),
    Word("revert", "Let an instance go back to a snapshot.", (Param("snapshot", Known),), "revert",
         "Lose what {names} did since {snapshot}?", many=False),
    Word("delete", "Delete a snapshot of an instance.", (Param("snapshot", Known),), "drop-snapshot",
         "Delete snapshot {snapshot} of {names}?", many=False, shows="snapshots"),
)  # fmt: skip
add(app, WORDS)


@app.command("list")
def list_(name: InstanceName, output: Output = Format.TABLE) -> None:
    """List an instance's snapshots."""
    show_list(session.api().get(f"instances/{part(name)}/snapshots"), "snapshot", output)
