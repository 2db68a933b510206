"""rackflow network …"""

from __future__ import annotations

from typing import Annotated

import typer

from rackflow_cli.commands.common import create as make
from rackflow_cli.commands.common import deletes, reads
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.names import ClusterOption
from rackflow_cli.options import LabelsOption, NewName, Output, given, pairs
from rackflow_cli.output import Format
from rackflow_cli.tree import group

app = group("Virtual networks.")
reads(app, "network", "leases")
deletes(app, "network")


@app.command()
def create(
    name: NewName,
    bridge: Annotated[str, typer.Option(help="The bridge on each host.")],
    addressing: Annotated[
        str | None, typer.Option(metavar="pool|host|dhcp", help="By default pool: one subnet for all hosts.")
    ] = None,
    subnet: Annotated[str | None, typer.Option(metavar="CIDR", help="Of a pool.")] = None,
    gateway: Annotated[str | None, typer.Option(metavar="ADDRESS")] = None,
    range_: Annotated[
        list[str] | None, typer.Option("--range", metavar="FIRST-LAST", help="Addresses to give; repeatable.")
    ] = None,
    nameserver: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Repeatable.")] = None,
    default_for: Annotated[
        list[str] | None, typer.Option(metavar="vm|container", help="Instances of that kind get a NIC here.")
    ] = None,
    cluster: ClusterOption = None,
    label: LabelsOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a network on a bridge that the hosts have."""
    make("network", {"name": name, "bridge": bridge, **given(
        addressing=addressing, subnet=subnet, gateway=gateway, ranges=[_range(text) for text in range_ or ()],
        nameservers=nameserver, default_for=default_for, cluster=cluster, labels=pairs(label, "--label"),
    )}, output)  # fmt: skip


def _range(text: str) -> dict[str, str]:
    first, sign, last = text.partition("-")
    if not (sign and first and last):
        raise CliError(f"--range {text!r} is not FIRST-LAST", ExitCode.USAGE)
    return {"first": first.strip(), "last": last.strip()}
