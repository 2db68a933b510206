"""What several commands say about machines: options of hardware checks, and inventories as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.names import names_of
from rackflow_cli.options import given
from rackflow_cli.words import seconds_of, size_bytes

KINDS = ("memory", "disk", "network", "burn-in")

MachineName = Annotated[
    str, typer.Argument(metavar="MACHINE", help="Name or id.", autocompletion=names_of("machines"), show_default=False)
]
MachineNames = Annotated[
    list[str],
    typer.Argument(
        metavar="MACHINE...", help="Names or ids.", autocompletion=names_of("machines"), show_default=False
    ),
]
Checks = Annotated[
    list[str] | None,
    typer.Option(
        "--check", metavar="|".join(KINDS), autocompletion=lambda: list(KINDS),
        help="Try that of its hardware, over SSH; repeatable. It fails where the tool is not installed.",
    ),
]  # fmt: skip
BurnIn = Annotated[str | None, typer.Option("--burn-in", metavar="SPAN", help="Full load for so long, e.g. 30m, 24h.")]


def hardware(checks: list[str] | None, burn_in: str | None, *, always: bool = False) -> dict[str, Any] | None:
    """Return what is to be tried, None: nothing was asked for. always: then all that can be. Raise CliError (usage)."""
    if unknown := sorted(set(checks or ()) - set(KINDS)):
        raise CliError(f"there is no check {unknown[0]}", ExitCode.USAGE, fix=f"one of {', '.join(KINDS)}")
    try:
        seconds = seconds_of(burn_in) if burn_in else None
    except ValueError as error:
        raise CliError(str(error), ExitCode.USAGE, fix="write for example --burn-in 30m") from error
    wanted = [*(checks or ()), *(["burn-in"] if checks and seconds and "burn-in" not in checks else [])]
    found = given(checks=wanted, burn_in_s=seconds)
    return found if found or always else None


def summary(inventory: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a machine is made of, in a few lines."""
    if not inventory:
        return {"inventory": "never inspected"}
    cpu, firmware = inventory["cpu"], inventory["firmware"]
    disks = [f"{one['name']} {size_bytes(one['size_bytes'])}" + _kind(one) for one in inventory["disks"]]
    return {
        "machine": " ".join(filter(None, (inventory["manufacturer"], inventory["product"]))),
        "serial": inventory["serial"],
        "cpu": f"{cpu['count']} × {cpu['model'] or cpu['architecture'] or 'unknown'}" + _virtual(cpu),
        "memory_mib": inventory["memory_mib"], "numa": len(inventory["numa"]) or None,
        "disks": "\n".join(disks), "nics": "\n".join(map(_nic, inventory["nics"])),
        "pci": len(inventory["pci"]) or None,
        "firmware": " ".join(filter(None, (firmware["vendor"], firmware["version"], firmware["boot_mode"]))),
        "bmc_version": inventory["bmc_version"],
    }  # fmt: skip


def _virtual(cpu: Mapping[str, Any]) -> str:
    return ", virtualises" if {"vmx", "svm"} & set(cpu["flags"]) else ""


def _kind(disk: Mapping[str, Any]) -> str:
    kind = {True: " spinning", False: " SSD"}.get(disk["rotational"], "")
    return kind + (f" {disk['model']}" if disk["model"] else "")


def _nic(nic: Mapping[str, Any]) -> str:
    carrier = {True: "up", False: "no carrier"}.get(nic["carrier"], "")
    speed = f"{nic['speed_mbps']} Mbit/s" if nic["speed_mbps"] else ""
    other = nic["neighbour"] or {}
    far = f"at {other.get('system') or other.get('chassis')} {other.get('port')}" if other else ""
    return " ".join(filter(None, (nic["name"], nic["mac"], carrier, speed, nic["address"], far)))


def look(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one inspection as a row: sizes, and what differed from the one before."""
    seen = row["inventory"]
    words = [change_words(one) for one in row["changes"]]
    return {
        "at": row["at"], "cpus": seen["cpu"]["count"], "memory_mib": seen["memory_mib"], "disks": len(seen["disks"]),
        "nics": len(seen["nics"]), "changes": "; ".join(words),
    }  # fmt: skip


def change_words(one: Mapping[str, Any]) -> str:
    """Return e.g. "memory_mib less: 65536 → 49152"."""
    before, after = one["before"], one["after"]
    if isinstance(before, Mapping) or isinstance(after, Mapping):
        return f"{one['what']} {'gone' if after is None else 'added'}"
    return f"{one['what']} {one['kind']}: {before} → {after}"
