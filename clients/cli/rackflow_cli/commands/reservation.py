"""rackflow reservation …"""

from __future__ import annotations

from typing import Annotated

import typer

from rackflow_cli.commands.common import create as make
from rackflow_cli.commands.common import deletes, reads
from rackflow_cli.commands.schedule import moment
from rackflow_cli.names import ClusterOption, HostOption
from rackflow_cli.options import NewName, Output, given
from rackflow_cli.output import Format
from rackflow_cli.tree import group

app = group("Room that is kept for later, and maintenances of hosts.")
reads(app, "reservation")
deletes(app, "reservation")


@app.command()
def create(
    name: NewName,
    begins: Annotated[
        str, typer.Option("--from", metavar="TIME", help="E.g. 2026-12-24T18:00, or +2h from now.", show_default=False)
    ],
    ends: Annotated[str, typer.Option("--until", metavar="TIME", help="Likewise.", show_default=False)],
    host: HostOption = None,
    cluster: ClusterOption = None,
    cpu: Annotated[float | None, typer.Option(metavar="CORES", help="Cores to keep.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory to keep, e.g. 128GiB.")] = None,
    maintenance: Annotated[
        bool, typer.Option("--maintenance", help="All of it: nothing that would still run then is placed there.")
    ] = False,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="What for.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Keep cores and memory of a host or cluster from a time on, or plan a maintenance."""
    make("reservation", {"name": name, "kind": "maintenance" if maintenance else "hold", **given(
        begins_at=moment(begins, "--from"), ends_at=moment(ends, "--until"), host=host, cluster=cluster, cpu=cpu,
        memory=memory, reason=reason,
    )}, output)  # fmt: skip
