"""rackflow host …"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from rackflow_cli.commands.common import agreed, reads
from rackflow_cli.commands.machine_looks import add_looks
from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.hostkeys import confirmed
from rackflow_cli.names import ClusterOption, HostName, HostNames
from rackflow_cli.operations import carry_out, show_again
from rackflow_cli.options import WAIT_TIMEOUT_S, LabelsOption, Output, Timeout, Wait, given, pairs
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group

app = group("Machines that run instances.")
reads(app, "host")
add_looks(app, host=True)

_TARGET = re.compile(r"(?:(?P<user>.+)@)?(?P<address>\[[^]]+\]|[^:@]+)(?::(?P<port>[0-9]+))?$")


def target(text: str) -> dict[str, Any]:
    """Return user, address and port out of [USER@]ADDRESS[:PORT]. Raise CliError (usage)."""
    match = _TARGET.match(text)
    if match is None:
        raise CliError(f"{text!r} is not [USER@]ADDRESS[:PORT]", ExitCode.USAGE)
    port = int(match["port"]) if match["port"] else None
    return given(user=match["user"], address=match["address"].strip("[]"), port=port)


def name_for(address: str) -> str:
    """Return a name for a host at that address: the first part of a DNS name, "host-10-1-0-5" for an IP address."""
    first = address if re.fullmatch(r"[0-9.]+|.*:.*", address) else address.split(".")[0]
    plain = re.sub(r"[^a-z0-9]+", "-", first.lower()).strip("-")
    return plain if plain[:1].isalpha() else f"host-{plain}"


def _by_ssh(text: str, fingerprint: str | None, yes: bool, *, known: bool) -> dict[str, Any]:
    """Return by which SSH server an API is reached. known: its certificate is. Raise CliError."""
    if not known and not yes:
        raise CliError(
            "what certificate the API shows behind --ssh cannot be seen from here", ExitCode.USAGE,
            fix="say --fingerprint SHA256:… of it, or --yes to trust what it shows",
        )  # fmt: skip
    at = target(text)
    return {**at, "fingerprint": fingerprint or confirmed(at["address"], at.get("port"), yes)}


@app.command()
def enroll(
    where: Annotated[
        str,
        typer.Argument(
            metavar="[USER@]ADDRESS[:PORT]", help="By default as root, at port 22 (esxi: 443).", show_default=False
        ),
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="By default made from the address.")] = None,
    driver: Annotated[
        str | None,
        typer.Option(metavar="kvm|lxd|firecracker|esxi", help="By default what is found on it; esxi must be said."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Private key on the front-end; by default rackflow's own."),
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of esxi, on the front-end: the password of its user.")
    ] = None,
    place: Annotated[
        str | None, typer.Option(metavar="PATH", help="Of a vCenter: DATACENTER/CLUSTER or DATACENTER/CLUSTER/HOST.")
    ] = None,
    ssh: Annotated[
        str | None,
        typer.Option(metavar="USER@ADDRESS[:PORT]", help="Of esxi: an SSH server by which its API is reached."),
    ] = None,
    ssh_fingerprint: Annotated[
        str | None, typer.Option(metavar="SHA256:…", help="With --ssh: of the host key that must be shown there.")
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option(metavar="SHA256:…", help="Of the host key or certificate that must be shown.")
    ] = None,
    cluster: ClusterOption = None,
    cpus: Annotated[int | None, typer.Option(min=1, metavar="N", help="Declared; by default what is found.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Declared; by default what is found.")] = None,
    label: LabelsOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Trust the host key that it shows.")] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Enroll a host: pin its host key, look at it by SSH (esxi: its certificate, and its API), and make it ready."""
    at = target(where)
    spec = {"name": name or name_for(at["address"]), **at, **given(
        driver=driver, cluster=cluster, cpus=cpus, memory=memory, labels=pairs(label, "--label"),
        key_file=str(key.expanduser().absolute()) if key else None, place=place,
        password_file=str(password_file.expanduser().absolute()) if password_file else None,
        fingerprint=fingerprint or (None if ssh else confirmed(at["address"], at.get("port"), yes, driver)),
        ssh=_by_ssh(ssh, ssh_fingerprint, yes, known=bool(fingerprint)) if ssh else None,
    )}  # fmt: skip
    answer = session.api().post("hosts", spec)
    carry_out(answer, output, wait=wait, timeout_s=timeout,
              then=lambda: show_again("host", [spec["name"]], output, alone=True))  # fmt: skip


def _at_once(word: str, help: str, said: str, path: str = "") -> None:
    @app.command(word, help=help)
    def put(names: HostNames) -> None:
        for name in names:
            session.api().post(f"hosts/{part(name)}/{path or word}", {})
            talk(f"host {name} {said}")


_at_once("enable", "Let new instances be placed on hosts again.", "enabled")
_at_once("disable", "Place no new instances on hosts; those that run go on.", "disabled")
_at_once("drain", "Place no new instances on hosts (as disable); `evacuate` empties them.", "disabled", "disable")
_at_once("maintenance", "Work on hosts: no placements, no repairs, no alarm until `enable`.", "is in maintenance")


def _ask(word: str, names: list[str], body: dict[str, Any], wait: bool, timeout: float, output: Format) -> None:
    operations = [op for name in names for op in session.api().post(f"hosts/{part(name)}/{word}", body)["operations"]]
    carry_out({"operations": operations}, output, wait=wait, timeout_s=timeout)


@app.command()
def evacuate(
    names: HostNames,
    live: Annotated[
        bool | None, typer.Option("--live/--cold", help="Without stopping what runs; by default where possible.")
    ] = None,
    parallel: Annotated[int | None, typer.Option(min=1, metavar="N", help="So many at a time.")] = None,
    then: Annotated[
        str | None, typer.Option(metavar="maintenance|disabled", help="Its state once empty; by default draining.")
    ] = None,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Move all that hosts hold to others; nothing more is placed there."""
    _ask("evacuate", names, given(live=live, parallel=parallel, then=then), wait, timeout, output)


@app.command()
def fence(
    names: HostNames,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="You have seen that they are off: no BMC is asked.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Cut the power of dead hosts, so that their instances may start elsewhere."""
    question = "Are {} off, so that what runs there may start elsewhere?" if confirmed else "Cut the power of {}?"
    agreed(question.format(", ".join(names)), yes)
    _ask("fence", names, given(confirmed=confirmed or None), wait, timeout, output)


@app.command()
def sleep(
    names: HostNames, wait: Wait = True, timeout: Timeout = WAIT_TIMEOUT_S, output: Output = Format.TABLE
) -> None:
    """Switch off hosts that hold nothing, until somebody needs them."""
    _ask("sleep", names, {}, wait, timeout, output)


@app.command()
def wake(names: HostNames, wait: Wait = True, timeout: Timeout = WAIT_TIMEOUT_S, output: Output = Format.TABLE) -> None:
    """Switch on hosts that are asleep."""
    _ask("wake", names, {}, wait, timeout, output)


@app.command()
def configure(
    names: HostNames,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Make hosts hypervisors over SSH: packages, services, kernel, bridges. What is right is left alone."""
    if not dry_run:
        _ask("configure", names, {}, wait, timeout, output)
        return
    plans = [session.api().get(f"hosts/{part(name)}/configuration") for name in names]
    rows = [
        {"host": plan["host"], "kind": kind, "what": what}
        for plan in plans for kind, key in (("do", "actions"), ("note", "notes")) for what in plan[key]
    ]  # fmt: skip
    if rows or output is not Format.TABLE:
        show_list(rows if output is Format.TABLE else plans, "configuration", output)
    for plan in plans:
        if not plan["actions"]:
            talk(f"host {plan['host']} is as it was told to be")
        elif not plan["complete"]:
            talk(f"host {plan['host']}: more may show when these are done")


@app.command()
def foreign(name: HostName, output: Output = Format.TABLE) -> None:
    """List the instances of a host that are not ours, and why one cannot be adopted."""
    show_list(session.api().get(f"hosts/{part(name)}/foreign"), "foreign", output)


@app.command()
def adopt(
    name: HostName,
    instances: Annotated[
        list[str],
        typer.Argument(metavar="INSTANCE[=NAME]...", help="As on the host; with the name it gets.", show_default=False),
    ],
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Take over instances that run on a host already; they are not touched."""
    parts = [text.partition("=") for text in instances]
    body = {"instances": [old for old, _, _ in parts], **given(names={old: new for old, _, new in parts if new})}
    _ask("adopt", [name], body, wait, timeout, output)


@app.command()
def retire(
    names: HostNames,
    force: Annotated[bool, typer.Option("--force", help="Even if instances are on it: they are forgotten.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Take hosts out."""
    agreed(f"Retire {', '.join(names)}?", yes)
    operations = []
    for name in names:
        operations += session.api().delete(f"hosts/{part(name)}", {"force": "true" if force else None})["operations"]
    carry_out({"operations": operations}, output, wait=wait, timeout_s=timeout)
