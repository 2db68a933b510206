"""rackflow cluster …"""

from __future__ import annotations

from typing import Annotated

import typer

from rackflow_cli.commands.common import create as make
from rackflow_cli.commands.common import deletes, reads
from rackflow_cli.options import LabelsOption, NewName, Output, given, pairs
from rackflow_cli.output import Format
from rackflow_cli.tree import group

app = group("Hosts that share datastores and networks.")
reads(app, "cluster")
deletes(app, "cluster")


@app.command()
def create(
    name: NewName,
    cpu_overcommit: Annotated[float | None, typer.Option(help="Cores given away for each real one.")] = None,
    cpu_learned_max: Annotated[
        float | None, typer.Option(help="Give cores away by what is used, so many times at most; 0: by a fixed ratio.")
    ] = None,
    memory_overcommit: Annotated[float | None, typer.Option(help="Memory given away for each real byte.")] = None,
    label: LabelsOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a cluster."""
    make("cluster", {"name": name, **given(
        cpu_overcommit=cpu_overcommit, cpu_learned_max=cpu_learned_max, memory_overcommit=memory_overcommit,
        labels=pairs(label, "--label")
    )}, output)  # fmt: skip
