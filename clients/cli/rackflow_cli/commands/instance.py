"""rackflow instance …"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rackflow_cli.commands.instance_verbs import WORDS, clone_now
from rackflow_cli.commands.nic import nic
from rackflow_cli.commands.verbs import add, expanded
from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode, why_unread
from rackflow_cli.names import (
    ClusterOption,
    DatastoreOption,
    HostOption,
    InstanceName,
    InstanceNames,
    names_of,
)  # fmt: skip
from rackflow_cli.operations import carry_out, show_again
from rackflow_cli.options import WAIT_TIMEOUT_S, LabelsOption, Output, Timeout, Wait, given, pairs
from rackflow_cli.output import Format, show_list, show_one
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group

app = group("VMs and containers.")

STATES = (
    "pending", "on-hold", "running", "suspended", "off", "stopped", "undeployed", "held", "failed", "staging",
    "starting", "migrating", "deleting",
)  # fmt: skip
_EXEC_TIMEOUT_S = 60.0


@app.command("list")
def list_(
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="STATE", help="Only in that state.", autocompletion=lambda: list(STATES)),
    ] = None,
    host: HostOption = None,
    label: LabelsOption = None,
    output: Output = Format.TABLE,
) -> None:
    """List the instances."""
    pairs(label, "--label")
    rows = session.api().items("instances", {"state": state, "host": host, "label": label})
    show_list(rows, "instance", output)


@app.command()
def show(name: InstanceName, output: Output = Format.TABLE) -> None:
    """Show one instance: its state, place, addresses and what was asked for."""
    show_one(session.api().get(f"instances/{part(name)}"), "instance", output)


NetworksOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NETWORK[=ADDRESS]",
        help="A NIC, with a fixed address if given; repeatable.",
        autocompletion=names_of("networks"),
    ),
]
NeedsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="CAPABILITY", help="Only on hosts that can do that, e.g. migrate_live; repeatable."),
]
HugepagesOption = Annotated[
    str | None, typer.Option(metavar="2MiB|1GiB", help="Its memory out of pages of this size.")
]
PciOption = Annotated[
    list[str] | None,
    typer.Option(metavar="DEVICE[=N]", help="So many (1) of a class, e.g. gpu, or vendor:device; repeatable."),
]
ReservationOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="It may take the room that this one keeps.")
]
PriorityOption = Annotated[
    int | None, typer.Option(min=0, max=100, metavar="0-100", help="Higher goes first; 50 by default.")
]
DataDisksOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=SIZE", help="A further disk; repeatable.")
]
SshKeysOption = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Public key to let in; repeatable.")
]


@app.command()
def create(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Its name; with --count the beginning of the names.", show_default=False),
    ],
    image: Annotated[
        str,
        typer.Option("--image", "-i", metavar="IMAGE", help="What it starts from.", autocompletion=names_of("images")),
    ],
    kind: Annotated[str | None, typer.Option(metavar="vm|container", help="By default what the image is.")] = None,
    cpu: Annotated[float | None, typer.Option(metavar="CORES", help="Cores, e.g. 0.5 or 2.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="E.g. 512MiB or 2GiB.")] = None,
    disk: Annotated[str | None, typer.Option(metavar="SIZE", help="Root disk; by default as the image.")] = None,
    data_disk: DataDisksOption = None,
    network: NetworksOption = None,
    user_data: Annotated[Path | None, typer.Option(metavar="FILE", help="Cloud-init user data.")] = None,
    ssh_key: SshKeysOption = None,
    label: LabelsOption = None,
    host: HostOption = None,
    cluster: ClusterOption = None,
    datastore: DatastoreOption = None,
    host_label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only on such hosts.")] = None,
    needs: NeedsOption = None,
    pin: Annotated[bool, typer.Option("--pin", help="Whole cores of its host for itself.")] = False,
    numa: Annotated[bool, typer.Option("--numa", help="Cores and memory out of one NUMA cell.")] = False,
    hugepages: HugepagesOption = None,
    pci: PciOption = None,
    reservation: ReservationOption = None,
    count: Annotated[int | None, typer.Option(min=1, metavar="N", help="Make NAME-1 … NAME-COUNT.")] = None,
    gang: Annotated[bool, typer.Option("--gang", help="Place all of --count, or none.")] = False,
    priority: PriorityOption = None,
    hold: Annotated[bool, typer.Option("--hold", help="Not placed before `rackflow instance release`.")] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Create an instance, place it and start it."""
    where = given(host=host, cluster=cluster, datastore=datastore, host_labels=pairs(host_label, "--host-label"),
                  capabilities=needs, reservation=reservation)  # fmt: skip
    spec = {"name": name, "image": image, **given(
        kind=kind, cpu=cpu, memory=memory, disk=disk, count=count, requirements=where, labels=pairs(label, "--label"),
        disks=[{"name": n, "size": size} for n, size in pairs(data_disk, "--data-disk", "NAME=SIZE").items()],
        nics=[nic(text) for text in network or ()], gang=gang or None, priority=priority,
        cpu_pinning=pin or None, numa="single" if numa else None, hugepages=hugepages,
        pci={device: n or 1 for device, _, n in (text.partition("=") for text in pci or ())},
        user_data=_text(user_data), ssh_keys=[_text(file).strip() for file in ssh_key or ()],
    )}  # fmt: skip
    answer = session.api().post("instances?hold=true" if hold else "instances", spec)
    names = [f"{name}-{i}" for i in range(1, count + 1)] if count else [name]
    carry_out(answer, output, wait=wait and not hold, timeout_s=timeout,
              then=lambda: show_again("instance", names, output, alone=count is None))  # fmt: skip


def _text(file: Path | None) -> str:
    try:
        return file.read_text() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{file} cannot be read: {why_unread(error)}", ExitCode.USAGE) from error


add(app, WORDS)


@app.command()
def clone(
    name: InstanceName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Name of the new one.", show_default=False)],
    image: Annotated[str | None, typer.Option(metavar="NAME", help="Of the image in between: NEW-image.")] = None,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Make another instance like this one: its root disk is saved as an image, from which the new one starts."""
    clone_now(name, new, image, wait, timeout, output)


def _held(word: str, help: str, said: str) -> None:
    @app.command(word, help=help)
    def put(names: InstanceNames) -> None:
        for name in expanded(names):
            answer = session.api().post(f"instances/{part(name)}/{word}", {})
            talk(f"instance {name} {said}" if answer["changed"] else f"instance {name}: nothing to change")


_held("hold", "Do not place instances that are pending before they are released.", "is on hold")
_held("release", "Let instances that are on hold be placed.", "is released")


@app.command()
def mark(
    name: InstanceName,
    state: Annotated[
        str,
        typer.Argument(
            metavar="running|off|failed", help="As you found it.", autocompletion=lambda: ["running", "off", "failed"],
            show_default=False,
        ),
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Kept with it.")] = "",
) -> None:
    """Write the state in which you found an instance that is held, after looking at its host yourself."""
    session.api().post(f"instances/{part(name)}/mark", {"state": state, "reason": reason})
    talk(f"instance {name} is marked as {state}")


@app.command(context_settings={"ignore_unknown_options": True})
def ssh(
    name: InstanceName,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="By default a shell.", show_default=False)
    ] = None,
    user: Annotated[str, typer.Option("--user", "-u", help="Log in as.")] = "root",
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Private key.")] = None,
) -> None:
    """Log in to an instance by SSH, at its address."""
    from rackflow_cli.guest import ssh_into

    raise typer.Exit(ssh_into(session.api().get(f"instances/{part(name)}"), user, key, command or []))


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec_(
    name: InstanceName,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="Best after --.", show_default=False)
    ],
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long it may run.")] = _EXEC_TIMEOUT_S,
    stdin: Annotated[bool, typer.Option("--stdin", help="Give it what stands on standard input.")] = False,
) -> None:
    """Run a command in an instance (a VM needs the guest agent); exits with its exit code."""
    argv = command[1:] if command[0] == "--" else command
    body = {"argv": argv, "timeout_s": timeout, "stdin": sys.stdin.read() if stdin else ""}
    answer = session.api().post(f"instances/{part(name)}/exec", body, timeout_s=timeout + 30)
    sys.stdout.write(answer.get("stdout") or "")
    sys.stdout.flush()
    sys.stderr.write(answer.get("stderr") or "")
    raise typer.Exit(int(answer.get("exit_status") or 0))


@app.command()
def logs(
    name: InstanceName,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=1, metavar="LINES", help="Only the last lines.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show what an instance wrote to its console."""
    from rackflow_cli.guest import show_logs

    show_logs(session.api(), name, tail, follow)


@app.command()
def explain(name: InstanceName, output: Output = Format.TABLE) -> None:
    """Say why it is where it is, or why nowhere (as `rackflow explain`)."""
    from rackflow_cli.commands.insight import explain as told

    told(name, output)


@app.command()
def history(name: InstanceName, output: Output = Format.TABLE) -> None:
    """Show what happened to it (as `rackflow history`)."""
    from rackflow_cli.commands.history import show as told

    told(name, output)
