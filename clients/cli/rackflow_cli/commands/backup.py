"""rackflow backup …"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rackflow_cli.commands.verbs import GRACE, Param, Word, add
from rackflow_cli.names import names_of, names_within
from rackflow_cli.options import Output, given
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import session
from rackflow_cli.tree import group

app = group("Backups of instances, in the front-end's store.")

Known = Annotated[
    str,
    typer.Argument(metavar="BACKUP", help="Its name.", autocompletion=names_within("backups"), show_default=False),
]
Named = Annotated[str | None, typer.Option("--name", metavar="NAME", help="By default made from the time.")]
Full = Annotated[bool, typer.Option("--full", help="All of it, not only what changed since the last one.")]
Keep = Annotated[
    int | None, typer.Option("--keep", min=1, metavar="N", help="Keep so many, this one included; older ones go.")
]


def _made(values: Mapping[str, Any]) -> dict[str, Any]:
    return given(backup=values["backup"], keep=values["keep"], incremental=False if values["full"] else None)


WORDS = (
    Word("create", "Back instances up, while they run if they do.",
         (Param("backup", Named, None), Param("full", Full, False), Param("keep", Keep, None)), "backup", body=_made,
         shows="backups"),
    Word("restore", "Let an instance go back to a backup; it is shut down for that.", (Param("backup", Known), GRACE),
         "revert-backup", "Lose what {names} did since {backup}?", many=False),
)  # fmt: skip
add(app, WORDS)


@app.command("list")
def list_(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[INSTANCE]", help="Only of this one, also when it is deleted.",
            autocompletion=names_of("instances"), show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """List backups, also those of instances that are deleted."""
    show_list(session.api().get("backups", {"instance": name}), "backup", output)
