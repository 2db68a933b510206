"""rackflow image …"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rackflow_cli.commands.common import reads
from rackflow_cli.connection import part
from rackflow_cli.names import ImageName, ImageNames, SomeHosts
from rackflow_cli.operations import carry_out, show_again
from rackflow_cli.options import WAIT_TIMEOUT_S, LabelsOption, NewName, Output, Timeout, Wait, given, pairs
from rackflow_cli.output import Format
from rackflow_cli.session import session
from rackflow_cli.tree import group

app = group("What instances start from.")
reads(app, "image")


@app.command("import")
def import_(
    name: NewName,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL|backup:ID", help="A file of the front-end, a URL, or a VM's backup.", show_default=False
        ),
    ],
    kind: Annotated[str | None, typer.Option(metavar="vm|container", help="By default vm.")] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="What its content must be.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="qcow2|raw|vmdk|ova|tar", help="By default what it is.")
    ] = None,
    os: Annotated[str | None, typer.Option(help="Operating system, for people.")] = None,
    kernel: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="On hosts that boot no disk by itself (firecracker), as they call it."),
    ] = None,
    boot_args: Annotated[
        str | None, typer.Option(metavar="TEXT", help="With that kernel; by default root=/dev/vda rw.")
    ] = None,
    min_memory: Annotated[str | None, typer.Option(metavar="SIZE", help="An instance needs at least that.")] = None,
    label: LabelsOption = None,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Bring an image into the front-end's store: fetched, verified, converted."""
    spec = {"name": name, "source": located(source), **given(
        kind=kind, sha256=sha256, format=form, os=os, kernel=kernel, boot_args=boot_args, min_memory=min_memory,
        labels=pairs(label, "--label"),
    )}  # fmt: skip
    answer = session.api().post("images", spec)
    carry_out(answer, output, wait=wait, timeout_s=timeout,
              then=lambda: show_again("image", [name], output, alone=True))  # fmt: skip


def located(source: str) -> str:
    """Return a URL or backup:ID as it is, a path made absolute: the front-end has another working folder."""
    return source if "://" in source or source.startswith("backup:") else str(Path(source).expanduser().absolute())


@app.command()
def stage(
    name: ImageName,
    hosts: SomeHosts = None,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Copy an image to hosts before anybody needs it there."""
    answer = session.api().post(f"images/{part(name)}/stage", {"hosts": hosts or []})
    carry_out(answer, output, wait=wait, timeout_s=timeout,
              then=lambda: show_again("image", [name], output, alone=True))  # fmt: skip


@app.command()
def delete(
    names: ImageNames, wait: Wait = True, timeout: Timeout = WAIT_TIMEOUT_S, output: Output = Format.TABLE
) -> None:
    """Delete images from the store and from every host."""
    operations = [op for name in names for op in session.api().delete(f"images/{part(name)}")["operations"]]
    carry_out({"operations": operations}, output, wait=wait, timeout_s=timeout)
