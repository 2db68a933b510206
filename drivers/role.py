"""What a Linux machine needs to be a hypervisor: one look over SSH, a pure plan of what is missing, and doing it.

A plan is empty where nothing is missing, so it is also the check for drift. Packages and units are Debian's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import HostFault
from drivers.facts import parts_of
from drivers.transport.base import Transport

PACKAGES = {
    "kvm": ("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils"),
    "lxd": ("lxd", "lxd-client", "lxcfs"),
}  # fmt: skip
UNITS = {"kvm": ("libvirtd.service",), "lxd": ("lxcfs.service", "lxd.socket", "lxd.service")}
MODULES = {"kvm": ("bridge", "tun", "vhost_net"), "lxd": ("bridge", "veth")}
SYSCTLS = {"net.ipv4.ip_forward": "1"}  # what is behind a bridge of the host is routed by it
MODULES_FILE, SYSCTL_FILE = "/etc/modules-load.d/rackflow.conf", "/etc/sysctl.d/60-rackflow.conf"
NESTED_FILE = "/etc/modprobe.d/rackflow.conf"
_NETWORKD = "/etc/systemd/network/20-rackflow-"
_MARK = "# kept by rackflow\n"
GROW_BYTES = 2**30  # less than that behind the last partition is left alone
PACKAGES_S, ACTION_S, _LOOK_S = 1800.0, 300.0, 60.0

# $1 packages, $2 units, $3 modules, $4 files; each a list with blanks between.
_LOOK = r"""
part() { echo "==> $1"; shift; "$@" 2>/dev/null || :; }
PATH=$PATH:/usr/sbin:/sbin
part os cat /etc/os-release
part packages dpkg-query -W -f '${Package} ${db:Status-Status}\n' $1
state() { systemctl "$@" 2>/dev/null; }
echo "==> units"; for u in $2; do echo "$u $(state is-enabled $u) $(state is-active $u)"; done
echo "==> modules"; for m in $3; do
  if [ -e /sys/module/$m ] || grep -qs "/$m.ko" "/lib/modules/$(uname -r)/modules.builtin"; then echo "$m loaded"
  elif modinfo -n $m >/dev/null 2>&1; then echo "$m there"; else echo "$m absent"; fi; done
echo "==> files"; for f in $4; do [ -e "$f" ] && echo "$f $(sha256sum < "$f" | cut -d' ' -f1)"; done
part forward cat /proc/sys/net/ipv4/ip_forward
part networkd systemctl is-active systemd-networkd
part links ls /sys/class/net
part root findmnt -n -o SOURCE,FSTYPE /
echo "==> disk"; root=$(findmnt -n -o SOURCE /); name=${root##*/}; path=$(readlink -f "/sys/class/block/$name")
if [ -e "$path/partition" ]; then disk=${path%/*}
  echo "$name ${disk##*/} $(cat "$path/partition") $(cat "$path/start") $(cat "$path/size") $(cat "$disk/size")"; fi
part flags grep -m1 -o -w -E 'vmx|svm' /proc/cpuinfo
part kvm ls /dev/kvm
part nested grep -s '' /sys/module/kvm_intel/parameters/nested /sys/module/kvm_amd/parameters/nested
part iommu ls /sys/kernel/iommu_groups
if systemctl is-active -q lxd.socket || systemctl is-active -q lxd; then
  part pools lxc query '/1.0/storage-pools?recursion=1'
  part networks lxc query '/1.0/networks?recursion=1'
fi
"""


@dataclass(frozen=True)
class Role:
    """kind: kvm or lxd. bridges: (name, address with prefix or "")."""

    kind: str
    bridges: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Action:
    """One thing to do: in words, and the command (as root), with its standard input."""

    words: str
    argv: tuple[str, ...]
    stdin: str = ""
    timeout_s: float = ACTION_S


@dataclass(frozen=True)
class Plan:
    """actions: what is missing, in order. notes: what no command of ours can change, such as the firmware's settings.

    complete: nothing else shows only when these are done, as what LXD keeps does before its daemon runs.
    """

    actions: tuple[Action, ...]
    notes: tuple[str, ...] = ()
    complete: bool = True


@dataclass(frozen=True)
class Look:
    """What was seen of a machine, in the words of its tools."""

    debian: bool
    packages: frozenset[str]
    units: Mapping[str, tuple[str, str]]  # -> (enabled, active)
    modules: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)  # path -> sha256
    forward: str = ""
    networkd: bool = False
    links: frozenset[str] = frozenset()
    root: str = ""  # "device type"
    disk: tuple[str, ...] = ()  # partition, disk, number; start, size, size of the disk in sectors
    flags: str = ""
    kvm: bool = False
    nested: str = ""
    iommu: bool = False
    pools: list[dict[str, Any]] | None = None  # None: LXD did not answer
    networks: list[dict[str, Any]] | None = None


def role_of(spec: Mapping[str, Any], kind: str) -> Role:
    """Return the role that a host's spec asks for."""
    return Role(kind, tuple((one["name"], one.get("address", "")) for one in spec.get("bridges") or ()))


async def look(t: Transport, role: Role) -> Look:
    """Look at a machine. Raise Unreachable, HostFault (it is no Linux with systemd)."""
    files = sorted({*contents(role), NESTED_FILE})
    lists = [PACKAGES[role.kind], UNITS[role.kind], MODULES[role.kind], files]
    done = await t.run(["sh", "-c", _LOOK, "sh", *map(" ".join, lists)], timeout_s=_LOOK_S, sudo=True, check=False)
    try:
        return parse(done.stdout)
    except (KeyError, ValueError, IndexError) as error:
        raise HostFault(
            f"{t.endpoint.name} cannot be looked at: {error!r}", f"host/{t.endpoint.name}",
            {"stdout": done.stdout[-2000:], "stderr": done.stderr[-2000:]},
            "it must be a Debian or Ubuntu with systemd, and we root or allowed to use sudo",
        ) from error  # fmt: skip


def parse(text: str) -> Look:
    """Return what the script's output holds. Raise KeyError, ValueError, IndexError."""
    parts = parts_of(text)
    tables = ("packages", "units", "modules", "files")
    rows = {name: [line.split() for line in parts[name].splitlines()] for name in tables}
    return Look(
        debian="debian" in parts["os"],
        packages=frozenset(row[0] for row in rows["packages"] if row[-1] == "installed"),
        units={row[0]: (row[1] if row[2:] else "", row[-1]) for row in rows["units"]},
        modules={row[0]: row[1] for row in rows["modules"]}, files={row[0]: row[1] for row in rows["files"]},
        forward=parts["forward"], networkd=parts["networkd"] == "active", links=frozenset(parts["links"].split()),
        root=parts["root"], disk=tuple(parts["disk"].split()), flags=parts["flags"], kvm=bool(parts["kvm"]),
        nested=parts["nested"], iommu=bool(parts["iommu"]), pools=_json(parts.get("pools")),
        networks=_json(parts.get("networks")),
    )  # fmt: skip


def _json(text: str | None) -> list[dict[str, Any]] | None:
    return json.loads(text) if text else None


def contents(role: Role, *, networkd: bool = True) -> dict[str, str]:
    """Return path -> content of the files that keep it so over a reboot."""
    found = {
        MODULES_FILE: _MARK + "".join(f"{one}\n" for one in MODULES[role.kind]),
        SYSCTL_FILE: _MARK + "".join(f"{name} = {value}\n" for name, value in SYSCTLS.items()),
    }
    if role.kind == "kvm" and networkd:  # LXD keeps its bridges itself
        for name, address in role.bridges:
            found[f"{_NETWORKD}{name}.netdev"] = f"{_MARK}[NetDev]\nName={name}\nKind=bridge\n"
            network = f"{_MARK}[Match]\nName={name}\n\n[Network]\nConfigureWithoutCarrier=yes\nLinkLocalAddressing=no\n"
            found[f"{_NETWORKD}{name}.network"] = network + (f"Address={address}\n" if address else "")
    return found


async def do(t: Transport, actions: Sequence[Action]) -> None:
    """Do what a plan names, one after the other. Raise HostFault (with what the command said), Unreachable."""
    for action in actions:
        done = await t.run(
            action.argv, timeout_s=action.timeout_s, stdin=action.stdin.encode() or None, sudo=True, check=False
        )
        if done.exit_code != 0:
            said = (done.stderr or done.stdout).strip()
            raise HostFault(
                f"{t.endpoint.name}: {action.words} failed: {said[-500:]}", f"host/{t.endpoint.name}",
                {"argv": list(action.argv), "exit_code": done.exit_code, "said": said[-2000:]},
                "mend that there, then configure it again: what was done already is left alone",
            )  # fmt: skip
