"""Checks that try a machine's hardware from within, by tools that operators trust: what to run, and what it says.

memtester, fio, smartctl, ethtool and stress-ng, where they are installed. Disks are only read. Pure planning
(`tries`) apart from one look at the machine and the running.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import HostFault
from drivers import hardware_output as output
from drivers.facts import parts_of
from drivers.hardware_output import Outcome
from drivers.transport.base import Result, Transport

TOOLS = ("memtester", "smartctl", "fio", "ethtool", "stress-ng")
PACKAGES = {"smartctl": "smartmontools"}  # by the tool's own name elsewhere (Debian)
_SPARE_S = 60.0  # for a tool to begin and to end
_MIB_PER_S = 0.5  # that memtester gets through at least, on a slow machine under load

# Each part begins with a line "==> NAME"; a part that cannot be read stays empty.
_LOOK = r"""
PATH=$PATH:/usr/sbin:/sbin
echo "==> tools"; for t in memtester smartctl fio ethtool stress-ng; do command -v $t >/dev/null && echo $t; done
echo "==> disks"; lsblk --json --bytes --nodeps --output NAME,TYPE,SIZE 2>/dev/null
echo "==> nics"; for n in /sys/class/net/*; do [ -e "$n/device" ] || continue
  echo "${n##*/} $(cat "$n/carrier" 2>/dev/null || echo 0) $(cat "$n/statistics/rx_crc_errors" 2>/dev/null || echo 0)"
done
echo "==> ecc"; grep -s '' /sys/devices/system/edac/mc/mc*/ce_count /sys/devices/system/edac/mc/mc*/ue_count
:"""


@dataclass(frozen=True)
class Want:
    """checks: those that must run, none: those that can; the rest as in blueprints' HardwareSpec."""

    checks: tuple[str, ...] = ()
    seconds: int = 10
    burn_in_s: int = 0
    memory_mib: int = 64
    disk_min_mbps: float = 0.0
    nic_min_mbps: int = 0

    @property
    def tried(self) -> tuple[str, ...]:
        return self.checks or ("memory", "disk", "network", *(["burn-in"] if self.burn_in_s else []))


@dataclass(frozen=True)
class Machine:
    """What there is to be tried. nics: name -> (carrier, CRC errors so far)."""

    tools: frozenset[str]
    disks: tuple[str, ...]
    nics: dict[str, tuple[bool, int]]
    ecc: Outcome | None = None


@dataclass(frozen=True)
class Try:
    """One command, and what its result means."""

    name: str
    tool: str
    argv: tuple[str, ...]
    timeout_s: float
    read: Callable[[Result], Outcome]


async def look(t: Transport) -> Machine:
    """See what a machine has to be tried, and by what. Raise Unreachable, HostFault."""
    found = parts_of((await t.run(["sh", "-c", _LOOK], timeout_s=30, sudo=True)).stdout)
    nics = {name: (up == "1", int(crc)) for name, up, crc in map(str.split, found["nics"].splitlines())}
    return Machine(frozenset(found["tools"].split()), output.disks(found["disks"]), nics, output.ecc(found["ecc"]))


def memory_s(want: Want) -> float:
    """Return the seconds that a test of memory may take."""
    return want.memory_mib / _MIB_PER_S + _SPARE_S


def seconds(want: Want, disks: int) -> float:
    """Return the seconds that all of it may take."""
    each = {
        "memory": memory_s(want), "disk": disks * (want.seconds + 3 * _SPARE_S), "network": 2 * _SPARE_S,
        "burn-in": want.burn_in_s + 2 * _SPARE_S,
    }  # fmt: skip
    return sum(each[one] for one in want.tried) + _SPARE_S


def tries(machine: Machine, want: Want) -> list[Try]:
    """Return all commands for what is wanted, in the order in which they are to run; some tools may be missing."""
    each: dict[str, Callable[[Machine, Want], list[Try]]] = {
        "memory": _memory, "disk": _disk, "network": _network, "burn-in": _burn_in,
    }  # fmt: skip
    return [one for name in each if name in want.tried for one in each[name](machine, want)]


def _memory(_: Machine, want: Want) -> list[Try]:
    size = want.memory_mib
    return [Try("memory", "memtester", ("memtester", f"{size}M", "1"), memory_s(want),
                lambda result: output.memory(result, size))]  # fmt: skip


def _disk(machine: Machine, want: Want) -> list[Try]:
    found = []
    for disk in machine.disks:
        health = ("smartctl", "--json", "--health", "--attributes", "--info", disk)
        rate = (
            "fio", "--name=read", f"--filename={disk}", "--readonly", "--rw=randread", "--bs=64k", "--ioengine=psync",
            "--numjobs=4", "--group_reporting", "--direct=1", f"--runtime={want.seconds}", "--time_based",
            "--output-format=json",
        )  # fmt: skip
        found.append(Try(f"disk-health {disk}", "smartctl", health, _SPARE_S, _named(output.disk_health, disk)))
        found.append(Try(f"disk-read {disk}", "fio", rate, want.seconds + _SPARE_S,
                         lambda result, disk=disk: output.disk_rate(result, disk, want.disk_min_mbps)))  # type: ignore[misc]  # fmt: skip
    return found


def _named(read: Callable[[Result, str], Outcome], name: str) -> Callable[[Result], Outcome]:
    return lambda result: read(result, name)


def _network(machine: Machine, want: Want) -> list[Try]:
    return [
        Try(f"network {nic}", "ethtool", ("ethtool", nic), _SPARE_S,
            lambda result, nic=nic, crc=crc: output.link(result, nic, crc, want.nic_min_mbps))  # type: ignore[misc]
        for nic, (_, crc) in machine.nics.items()
    ]  # fmt: skip


def _burn_in(_: Machine, want: Want) -> list[Try]:
    argv = (
        "stress-ng", "--cpu", "0", "--vm", "1", "--vm-bytes", "50%", "--verify", "--timeout", f"{want.burn_in_s}s",
        "--metrics-brief",
    )  # fmt: skip
    read = lambda result: output.burn_in(result, want.burn_in_s)  # noqa: E731 - as its neighbours
    return [Try("burn-in", "stress-ng", argv, want.burn_in_s + _SPARE_S, read)]


def absent(tool: str, name: str, *, must: bool) -> Outcome:
    """Return what is said of a check whose tool is not installed; must: somebody asked for it by name."""
    why = f"{tool} is not installed there (apt-get install {PACKAGES.get(tool, tool)})"
    return Outcome(name, False if must else None, require=f"{tool} installed", evidence={"why": why})


async def run(t: Transport, machine: Machine, want: Want, told: Callable[[Sequence[Outcome]], Any]) -> list[Outcome]:
    """Try what is wanted, one after the other; told: called with what is known so far, and awaited.

    Raise Unreachable; what a tool finds is no error but an outcome.
    """
    found: list[Outcome] = []
    for one in tries(machine, want):
        if one.tool in machine.tools:
            found.append(await _try(t, one))
        else:
            found.append(absent(one.tool, one.name, must=bool(want.checks)))
        await told(found)
    ecc = (await look(t)).ecc if "memory" in want.tried else None  # what was counted while it was tried as well
    return [*found, *([ecc] if ecc else []), *_nothing(machine, want.checks)]


async def _try(t: Transport, one: Try) -> Outcome:
    argv = ["env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *one.argv]  # of those who are not root it has no sbin
    try:
        return one.read(await t.run(argv, timeout_s=one.timeout_s, sudo=True, check=False))
    except (KeyError, ValueError, IndexError) as error:
        raise HostFault(
            f"{one.tool} on {t.endpoint.name} said what is not understood: {error!r}", f"host/{t.endpoint.name}",
            {"argv": list(one.argv)}, f"run it there by hand: {' '.join(one.argv)}",
        ) from error  # fmt: skip


def _nothing(machine: Machine, checks: Collection[str]) -> list[Outcome]:
    """Tell of checks asked for by name that found nothing to try."""
    there = {"disk": machine.disks, "network": machine.nics}
    return [
        Outcome(name, False, require="there is one", evidence={"why": f"the machine shows no {name} device"})
        for name in there if name in checks and not there[name]
    ]  # fmt: skip
