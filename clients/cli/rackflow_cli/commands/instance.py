"""rackflow instance …"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rackflow_cli.commands.common import agreed
from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode
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
from rackflow_cli.session import session
from rackflow_cli.tree import group

app = group("VMs and containers.")

STATES = ("pending", "staging", "starting", "running", "stopping", "stopped", "deleting", "held", "failed")
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
    data_disk: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SIZE", help="A further disk; repeatable.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK[=ADDRESS]",
            help="A NIC, with a fixed address if given; repeatable.",
            autocompletion=names_of("networks"),
        ),
    ] = None,
    user_data: Annotated[Path | None, typer.Option(metavar="FILE", help="Cloud-init user data.")] = None,
    ssh_key: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Public key to let in; repeatable.")
    ] = None,
    label: LabelsOption = None,
    host: HostOption = None,
    cluster: ClusterOption = None,
    datastore: DatastoreOption = None,
    host_label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only on such hosts.")] = None,
    count: Annotated[int | None, typer.Option(min=1, metavar="N", help="Make NAME-1 … NAME-COUNT.")] = None,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Create an instance, place it and start it."""
    needs = given(host=host, cluster=cluster, datastore=datastore, host_labels=pairs(host_label, "--host-label"))
    spec = {"name": name, "image": image, **given(
        kind=kind, cpu=cpu, memory=memory, disk=disk, count=count, requirements=needs, labels=pairs(label, "--label"),
        disks=[{"name": n, "size": size} for n, size in pairs(data_disk, "--data-disk").items()],
        nics=[_nic(text) for text in network or ()],
        user_data=_text(user_data), ssh_keys=[_text(file).strip() for file in ssh_key or ()],
    )}  # fmt: skip
    answer = session.api().post("instances", spec)
    names = [f"{name}-{i}" for i in range(1, count + 1)] if count else [name]
    carry_out(answer, output, wait=wait, timeout_s=timeout,
              then=lambda: show_again("instance", names, output, alone=count is None))  # fmt: skip


def _nic(text: str) -> dict[str, str]:
    network, sign, address = text.partition("=")
    return {"network": network, "address": address} if sign else {"network": network}


def _text(file: Path | None) -> str:
    try:
        return file.read_text() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}", ExitCode.USAGE) from error


def _change(verb: str, names: Sequence[str], body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask for a verb on each, and return all operations as one answer. What is refused does not stop the others."""
    api = session.api()
    operations: list[dict[str, Any]] = []
    refused: list[CliError] = []
    for name in names:
        path = f"instances/{part(name)}"
        try:
            answer = api.delete(path) if verb == "delete" else api.post(f"{path}/{verb}", body or {})
            operations += answer["operations"]
        except CliError as error:
            refused.append(error)
    if refused and not operations:
        raise refused[0]
    return {"operations": operations, "refused": refused}


def _carry_out(verb: str, names: Sequence[str], wait: bool, timeout: float, output: Format, **body: Any) -> None:
    from rackflow_cli.session import complain

    answer = _change(verb, names, body)
    for error in answer["refused"]:
        complain(error)
    again = None if verb == "delete" else lambda: show_again("instance", names, output, alone=len(names) == 1)
    carry_out(answer, output, wait=wait, timeout_s=timeout, then=None if answer["refused"] else again)
    if answer["refused"]:
        raise typer.Exit(answer["refused"][0].code)


@app.command()
def start(
    names: InstanceNames, wait: Wait = True, timeout: Timeout = WAIT_TIMEOUT_S, output: Output = Format.TABLE
) -> None:
    """Start instances that are stopped."""
    _carry_out("start", names, wait, timeout, output)


@app.command()
def stop(
    names: InstanceNames,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time to shut down before it is cut off.")
    ] = 30,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Stop instances; disks, addresses and place are kept."""
    _carry_out("stop", names, wait, timeout, output, grace_s=grace)


@app.command()
def delete(
    names: InstanceNames,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Delete instances with their disks. One that is just being made is undone first."""
    agreed(f"Delete {', '.join(names)} with all disks?", yes)
    _carry_out("delete", names, wait, timeout, output)


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
    from rackflow_cli.commands.insight import history as told

    told(name, output)
