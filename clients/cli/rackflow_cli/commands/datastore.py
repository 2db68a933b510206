"""rackflow datastore …"""

from __future__ import annotations

from typing import Annotated

import typer

from rackflow_cli.commands.common import create as make
from rackflow_cli.commands.common import deletes, reads
from rackflow_cli.names import ClusterOption
from rackflow_cli.options import LabelsOption, NewName, Output, given, pairs
from rackflow_cli.output import Format
from rackflow_cli.tree import group

app = group("Where disks and images lie.")
reads(app, "datastore", "hosts")
deletes(app, "datastore")


@app.command()
def create(
    name: NewName,
    path: Annotated[str, typer.Option(help="The folder on each host.")],
    shared: Annotated[bool, typer.Option("--shared", help="All hosts see the same folder.")] = False,
    overcommit: Annotated[float | None, typer.Option(help="How often its space may be given away.")] = None,
    cluster: ClusterOption = None,
    label: LabelsOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a datastore in a folder of the hosts."""
    make("datastore", {"name": name, "path": path, **given(
        shared=shared or None, overcommit=overcommit, cluster=cluster, labels=pairs(label, "--label")
    )}, output)  # fmt: skip
