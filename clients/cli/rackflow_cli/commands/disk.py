"""rackflow disk …"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rackflow_cli import words
from rackflow_cli.columns import Column
from rackflow_cli.commands.verbs import Param, Word, add
from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.names import DatastoreOption, InstanceName
from rackflow_cli.options import Output, given
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import session
from rackflow_cli.tree import group

app = group("Disks of instances.")

COLUMNS = (
    Column("NAME", "name"), Column("SIZE", "size_mib", lambda v: "as the image" if v is None else words.mib(v)),
    Column("DATASTORE", "datastore", rare=True),
)  # fmt: skip
NewDisk = Annotated[str, typer.Argument(metavar="DISK=SIZE", help="E.g. data=10GiB.", show_default=False)]
DiskName = Annotated[str, typer.Argument(metavar="DISK", help="Its name; the first one is root.", show_default=False)]
NewSize = Annotated[str, typer.Argument(metavar="SIZE", help="The new size, e.g. 20GiB.", show_default=False)]


def _attached(values: Mapping[str, Any]) -> dict[str, Any]:
    name, sign, size = values["disk"].partition("=")
    if not (name and sign and size):
        raise CliError(f"{values['disk']!r} is not DISK=SIZE", ExitCode.USAGE, fix="e.g. data=10GiB")
    return {"disk": {"name": name, "size": size, **given(datastore=values["datastore"])}}


WORDS = (
    Word("attach", "Give an instance a further disk.",
         (Param("disk", NewDisk), Param("datastore", DatastoreOption, None)), "attach-disk", many=False,
         body=_attached),
    Word("detach", "Take a disk away from an instance, with its content.", (Param("disk", DiskName),), "detach-disk",
         "Delete disk {disk} of {names} with its content?", many=False),
    Word("grow", "Make a disk of an instance larger.", (Param("disk", DiskName), Param("size", NewSize)), "grow-disk",
         many=False),
)  # fmt: skip
add(app, WORDS)


@app.command("list")
def list_(name: InstanceName, output: Output = Format.TABLE) -> None:
    """List an instance's disks."""
    spec = session.api().get(f"instances/{part(name)}")["spec"]
    rows = [{"name": "root", "size_mib": spec.get("disk_mib"), "datastore": None}, *spec.get("disks", ())]
    show_list(rows, "disk", output, columns=COLUMNS)
