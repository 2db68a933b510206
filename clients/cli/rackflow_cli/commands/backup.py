"""rackflow backup …"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rackflow_cli.commands.common import agreed
from rackflow_cli.commands.verbs import GRACE, Param, Word, Yes, add
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.names import InstanceName, names_of, names_within
from rackflow_cli.operations import carry_out
from rackflow_cli.options import WAIT_TIMEOUT_S, Output, Timeout, Wait, given
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import session
from rackflow_cli.tree import group

app = group("Backups of instances, in the front-end's store.")

Known = Annotated[
    str,
    typer.Argument(metavar="BACKUP", help="Its name.", autocompletion=names_within("backups"), show_default=False),
]
Several = Annotated[
    list[str],
    typer.Argument(
        metavar="BACKUP...", help="Names or ids.", autocompletion=names_within("backups"), show_default=False
    ),
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


def _by_id(instance: str, backups: list[str]) -> list[str]:
    """Return the ids of an instance's backups, by name or id. Raise CliError (not found)."""
    rows = session.api().get("backups", {"instance": instance})
    known = {row[field]: str(row["id"]) for row in rows for field in ("name", "id")}
    for one in backups:
        if one not in known:
            raise CliError(
                f"{instance} has no backup {one}", ExitCode.NOT_FOUND, fix=f"rackflow backup list {instance} shows them"
            )
    return [known[one] for one in backups]


@app.command()
def delete(
    instance: InstanceName,
    backups: Several,
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Delete backups of an instance; one that others go on from cannot be."""
    agreed(f"Delete backup {', '.join(backups)} of {instance}?", yes)
    api = session.api()
    operations = [op for one in _by_id(instance, backups) for op in api.delete(f"backups/{one}")["operations"]]
    carry_out({"operations": operations}, output, wait=wait, timeout_s=timeout)


@app.command()
def verify(
    instance: InstanceName,
    backups: Several,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Read backups of an instance and put them together, to see that they are whole."""
    api = session.api()
    operations = [op for one in _by_id(instance, backups) for op in api.post(f"backups/{one}/test", {})["operations"]]
    carry_out({"operations": operations}, output, wait=wait, timeout_s=timeout)
