"""rackflow nic …"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rackflow_cli.columns import Column
from rackflow_cli.commands.verbs import Param, Word, add
from rackflow_cli.connection import part
from rackflow_cli.names import InstanceName, names_of
from rackflow_cli.options import Output
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import session
from rackflow_cli.tree import group

app = group("NICs of instances.")

COLUMNS = (
    Column("NIC", "index"), Column("NETWORK", "network"), Column("ADDRESS", "address"), Column("MAC", "mac"),
    Column("GATEWAY", "gateway", wide=True), Column("BRIDGE", "bridge", wide=True),
)  # fmt: skip
NewNic = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK[=ADDRESS]", help="With a fixed address if given.", autocompletion=names_of("networks"),
        show_default=False,
    ),
]  # fmt: skip
Number = Annotated[int, typer.Argument(min=0, metavar="NIC", help="Its number: 0 is eth0.", show_default=False)]


def nic(text: str) -> dict[str, str]:
    """Return the NIC that NETWORK[=ADDRESS] asks for."""
    network, sign, address = text.partition("=")
    return {"network": network, "address": address} if sign else {"network": network}


def _attached(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"nic": nic(values["nic"])}


WORDS = (
    Word("attach", "Give an instance a further NIC.", (Param("nic", NewNic),), "attach-nic", many=False,
         body=_attached),
    Word("detach", "Take a NIC away from an instance.", (Param("nic", Number),), "detach-nic", many=False),
)  # fmt: skip
add(app, WORDS)


@app.command("list")
def list_(name: InstanceName, output: Output = Format.TABLE) -> None:
    """List an instance's NICs."""
    rows = session.api().get(f"instances/{part(name)}")["nics"]
    named = [{**row, "name": str(row["index"])} for row in rows] if output is Format.NAME else rows
    show_list(named, "nic", output, columns=COLUMNS)
