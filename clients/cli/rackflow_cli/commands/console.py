"""rackflow console: the serial console of an instance, or its screen."""

from __future__ import annotations

from typing import Annotated

import typer

from rackflow_cli.names import InstanceName
from rackflow_cli.output import Format
from rackflow_cli.session import session
from rackflow_cli.tree import group

app = group("Consoles.")


@app.command()
def console(
    name: InstanceName,
    vnc: Annotated[bool, typer.Option("--vnc", help="Its screen: opens a local port for a VNC viewer.")] = False,
    ticket: Annotated[
        bool, typer.Option("--ticket", help="Its screen by the hypervisor's own viewer (VMware): prints where to.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="With --vnc; 0: any.")] = 0,
    linger: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="After the end of piped input, go on until so long silent."),
    ] = 2.0,
    output: Annotated[Format, typer.Option("-o", "--output", help="With --ticket: how to print.")] = Format.TABLE,
) -> None:
    """Sit at the serial console of an instance; Ctrl-] leaves it. Input may also be piped in."""
    from rackflow_cli import consoles

    if ticket:
        consoles.tell_ticket(session.api(), name, output)
    elif vnc:
        consoles.serve_screen(session.api(), name, port)
    else:
        consoles.attach(session.api(), name, linger)
