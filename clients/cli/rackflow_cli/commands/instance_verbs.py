"""What can be asked of instances, as a table of commands; and clone, which is two requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rackflow_cli.commands.verbs import GRACE, Param, Word
from rackflow_cli.connection import part
from rackflow_cli.names import names_of
from rackflow_cli.operations import carry_out, show_again
from rackflow_cli.options import given
from rackflow_cli.output import Format
from rackflow_cli.session import session

Hard = Annotated[bool | None, typer.Option("--hard", help="Reset them without asking the guests.")]
Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[HOST]", help="By default the scheduler chooses.", autocompletion=names_of("hosts"), show_default=False
    ),
]
Live = Annotated[
    bool | None,
    typer.Option("--live/--cold", help="While it runs, or shut down for the way; by default live where possible."),
]
Bandwidth = Annotated[int | None, typer.Option("--bandwidth", min=0, metavar="MIB_S", help="Of the copy, in MiB/s.")]
NewerName = Annotated[str, typer.Argument(metavar="NEW", help="Its new name.", show_default=False)]
Cpu = Annotated[float | None, typer.Option("--cpu", metavar="CORES", help="Cores, e.g. 0.5 or 2.")]
Memory = Annotated[str | None, typer.Option("--memory", metavar="SIZE", help="E.g. 512MiB or 2GiB.")]
ImageOption = Annotated[str, typer.Argument(metavar="IMAGE", help="Name of the new image.", show_default=False)]
Disk = Annotated[str | None, typer.Option("--disk", metavar="DISK", help="By default the root disk.")]

WORDS = (
    Word("start", "Let instances run; those that were stopped or undeployed come back to a host."),
    Word("shutdown", "Shut instances down: the guests are asked, then cut off. Host, disks and addresses are kept.",
         (GRACE,)),
    Word("poweroff", "Cut instances off at once."),
    Word("reboot", "Reboot instances.", (Param("hard", Hard, None), GRACE)),
    Word("suspend", "Pause instances in their hosts' memory."),
    Word("resume", "Let instances go on after suspend, stop or undeploy."),
    Word("stop", "Save instances with memory and disks, and free their hosts; `start` brings them back."),
    Word("undeploy", "Shut instances down, save their disks, and free their hosts; `start` brings them back.",
         (GRACE,)),
    Word("migrate", "Move an instance to another host.",
         (Param("host", Target, None), Param("live", Live, None), Param("bandwidth_mib_s", Bandwidth, None), GRACE),
         many=False),
    Word("reschedule", "Let the scheduler choose other hosts for instances, and move them there.",
         (Param("live", Live, None), Param("bandwidth_mib_s", Bandwidth, None), GRACE), verb="migrate"),
    Word("failover", "Start instances elsewhere from shared storage, since their host is fenced."),
    Word("rename", "Give an instance another name.", (Param("name", NewerName),), many=False),
    Word("resize", "Give instances other cpu or memory.", (Param("cpu", Cpu, None), Param("memory", Memory, None))),
    Word("save-image", "Save an instance's disk as a new image.",
         (Param("image", ImageOption), Param("disk", Disk, None)), many=False),
    Word("delete", "Delete instances with their disks. One that is just being made is undone first.", (GRACE,),
         ask="Delete {names} with all disks?"),
)  # fmt: skip


def clone_of(shown: Mapping[str, Any], name: str, image: str) -> dict[str, Any]:
    """Return the spec of an instance like the one shown, from an image of it; it gets addresses of its own."""
    spec = shown["spec"]
    kept = given(**{key: spec.get(key) for key in ("kind", "cpu", "memory_mib", "disk_mib", "labels", "ssh_keys")})
    nics = [{"network": nic["network"]} for nic in spec.get("nics", ())]
    return {"name": name, "image": image, **kept, **given(nics=nics, user_data=spec.get("user_data"))}


def clone_now(name: str, new: str, image: str | None, wait: bool, timeout_s: float, output: Format) -> None:
    """Ask for an image and for an instance that waits for it, and see both through."""
    api = session.api()
    named = image or f"{new}-image"
    spec = clone_of(api.get(f"instances/{part(name)}"), new, named)
    saving = api.post(f"instances/{part(name)}/save-image", {"image": named})
    making = api.post("instances", spec)
    carry_out({"operations": [*saving["operations"], *making["operations"]]}, output, wait=wait, timeout_s=timeout_s,
              then=lambda: show_again("instance", [new], output, alone=True))  # fmt: skip
