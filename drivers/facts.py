"""What one look over SSH says of a machine: one command on the host, and its pure parser."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, runtime_checkable

from core.errors import HostFault
from core.units import numbers
from drivers.hosts import HostFacts
from drivers.transport.base import Transport

# Each part begins with a line "==> NAME"; a part that cannot be read stays empty.
_SCRIPT = r"""
part() { echo "==> $1"; shift; "$@" 2>/dev/null || :; }
PATH=$PATH:/usr/sbin:/sbin
part hostname hostname
part machine_id cat /etc/machine-id
part boot_id cat /proc/sys/kernel/random/boot_id
part architecture uname -m
part kernel uname -r
part os_release cat /etc/os-release
part cpus nproc
part cpuinfo sed -n -e '1,/^$/p' /proc/cpuinfo
part meminfo grep MemTotal /proc/meminfo
part lsblk lsblk --json --bytes --nodeps --output NAME,TYPE,SIZE,MODEL,ROTA
part addresses ip -j address
part speeds grep -s '' /sys/class/net/*/speed
part connection printenv SSH_CONNECTION
part nested grep -s '' /sys/module/kvm_intel/parameters/nested /sys/module/kvm_amd/parameters/nested
echo "==> cells"; for n in /sys/devices/system/node/node[0-9]*; do [ -e "$n/cpulist" ] || continue
  echo "${n##*/node} $(cat "$n/cpulist") $(sed -n 's/.*MemTotal: *\([0-9]*\).*/\1/p' "$n/meminfo")"; done
part siblings grep -s '' /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list
part hugepages grep -s '' /sys/kernel/mm/hugepages/hugepages-*/nr_hugepages \
  /sys/kernel/mm/hugepages/hugepages-*/free_hugepages /sys/devices/system/node/node[0-9]*/hugepages/*/*_hugepages
part page_mounts sed -n 's/^[^ ]* [^ ]* hugetlbfs .*pagesize=\([0-9]*[KMG]\).*/\1/p' /proc/mounts
echo "==> pci"; for d in /sys/bus/pci/devices/*; do [ -e "$d/class" ] || continue
  g=$(readlink "$d/iommu_group") || g=
  echo "${d##*/} $(cat "$d/class" "$d/vendor" "$d/device" "$d/numa_node" 2>/dev/null | tr '\n' ' ')${g##*/}"; done
part libvirt libvirtd --version
part qemu qemu-system-$(uname -m) --version
part qemu_img qemu-img --version
part lxd lxd --version
part firecracker firecracker --version
echo "==> openssh"; sshd -V 2>&1 | grep -o 'OpenSSH_[^ ,]*' || ssh -V 2>&1
echo "==> there"; for f in /dev/kvm /run/libvirt/libvirt-sock /var/lib/lxd/unix.socket \
  /var/snap/lxd/common/lxd/unix.socket /run/systemd/system; do [ -e "$f" ] && echo "$f"; done
echo "==> root"; if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then echo yes; else echo no; fi
"""

Pages = dict[str, dict[str, int]]  # KiB of a page -> MiB: nr (all), free
LIBVIRT_SOCKET = "/run/libvirt/libvirt-sock"
LXD_SOCKETS = ("/var/snap/lxd/common/lxd/unix.socket", "/var/lib/lxd/unix.socket")  # snap, distribution package


@runtime_checkable
class KnowsFacts(Protocol):
    """A transport that says itself what it leads to: there is no shell to look with."""

    async def facts(self) -> HostFacts: ...


async def gather_facts(t: Transport) -> HostFacts:
    """Look at a machine. Raise Unreachable, HostFault (it is no Linux with the usual tools)."""
    if isinstance(t, KnowsFacts):
        return await t.facts()
    found = await t.run(["sh", "-c", _SCRIPT], timeout_s=30, check=False)
    try:
        return parse_facts(found.stdout, t.endpoint.address)
    except (KeyError, ValueError, IndexError) as error:
        raise HostFault(
            f"{t.endpoint.name} does not look like a Linux host: {error!r}", f"host/{t.endpoint.name}",
            {"stdout": found.stdout[-2000:], "stderr": found.stderr[-2000:]},
            "it needs coreutils, iproute2 and util-linux",
        ) from error


async def gather_again(t: Transport, boot_id: str, *, anyway: bool) -> HostFacts | None:
    """Look at a machine that was looked at before if it was booted since, or anyway; None: there is no need.

    boot_id: of that look; "" = not known, then it is looked at only if it is to be anyway. Raise as `gather_facts`.
    """
    if not (anyway or boot_id):
        return None
    if anyway or isinstance(t, KnowsFacts):
        facts = await gather_facts(t)
        return facts if anyway or facts.boot_id != boot_id else None
    found = await t.run(["cat", "/proc/sys/kernel/random/boot_id"], timeout_s=30, check=False)
    return None if found.stdout.strip() == boot_id else await gather_facts(t)


def parse_facts(text: str, address: str = "") -> HostFacts:
    """Return the facts that the script's output holds. address: by which we came, if sshd did not tell."""
    parts = parts_of(text)
    there = set(parts["there"].split())
    cpu = _pairs(parts["cpuinfo"], ":")
    nics = _nics(parts)
    came_to = parts["connection"].split()[2] if parts["connection"].count(" ") > 2 else address
    versions = {
        "libvirt": _version(parts["libvirt"]), "qemu": _version(parts["qemu"]), "lxd": _version(parts["lxd"]),
        "qemu_img": _version(parts["qemu_img"]), "firecracker": _version(parts.get("firecracker", "")),
        "openssh": parts["openssh"].partition("OpenSSH_")[2].split(" ")[0].strip(", \n"),
    }  # fmt: skip
    pages, unmounted = _hugepages(parts, usable=_mounted(parts.get("page_mounts", "")) if versions["libvirt"] else None)
    return HostFacts(
        hostname=parts["hostname"], machine_id=parts["machine_id"], architecture=parts["architecture"],
        os=_pairs(parts["os_release"], "=").get("PRETTY_NAME", "").strip('"'), kernel=parts["kernel"],
        cpus=int(parts["cpus"]), cpu_model=cpu.get("model name", ""),
        memory_mib=int(parts["meminfo"].split()[1]) // 1024, disks=_disks(parts["lsblk"]), nics=nics,
        management_nic=_carrier(nics, came_to), virtualisation=_virtualisation(parts, cpu, there),
        versions=versions, kinds=[kind for kind, ready in _READY.items() if ready(versions, there)],
        missing=[*_missing(versions, there, parts["root"]), *map(_no_mount, unmounted)],
        cells=_cells(parts, pages), hugepages=_total(pages[""]), hugepages_free=_free(pages[""]),
        pci=_pci(parts.get("pci", "")), boot_id=parts.get("boot_id", ""),
    )  # fmt: skip


def parts_of(text: str) -> dict[str, str]:
    """Return the parts of a script's output, by name. Raise ValueError."""
    names = re.split(r"^==> (\w+)\n", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(names[1::2], names[2::2], strict=True)}


def _pairs(text: str, separator: str) -> dict[str, str]:
    lines = (line.partition(separator) for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _version(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else ""


def _disks(text: str) -> list[dict[str, Any]]:
    rows = json.loads(text)["blockdevices"] if text else []
    return [
        {"name": row["name"], "size_mib": int(row["size"]) // 2**20, "model": row.get("model"),
         "rotational": bool(row.get("rota"))}
        for row in rows if row["type"] == "disk" and int(row["size"]) > 0
    ]  # fmt: skip


def _nics(parts: dict[str, str]) -> list[dict[str, Any]]:
    speeds = {}
    for line in parts["speeds"].splitlines():  # /sys/class/net/eth0/speed:1000
        path, _, speed = line.rpartition(":")
        speeds[path.split("/")[-2]] = int(speed)
    return [
        {
            "name": link["ifname"], "mac": link.get("address", ""), "state": link.get("operstate", "").lower(),
            "addresses": [f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", []) if "local" in a],
            "speed_mbps": max(speeds.get(link["ifname"], 0), 0) or None, "bridge": link.get("master", ""),
        }
        for link in json.loads(parts["addresses"] or "[]")
        if link.get("link_type") == "ether"
    ]  # fmt: skip


def _cells(parts: dict[str, str], pages: Mapping[str, Pages]) -> list[dict[str, Any]]:
    rows = [line.split() for line in parts.get("cells", "").splitlines()]  # 0 0-3,8-11 32768000
    cores = {tuple(numbers(found)) for found in re.findall(r"_list:(\S+)", parts.get("siblings", ""))}
    cells = []
    for number, cpus, kib in sorted((row for row in rows if len(row) == 3), key=lambda row: int(row[0])):
        here = pages.get(number, {})  # a cell may have memory and no cores: it has two words only
        threads = sorted(list(core) for core in cores if len(core) > 1 and set(core) <= set(numbers(cpus)))
        cells.append({
            "cpus": numbers(cpus), "memory_mib": int(kib) // 1024, "siblings": threads,
            "hugepages": _total(here), "hugepages_free": _free(here),
        })  # fmt: skip
    return cells


def _hugepages(parts: dict[str, str], usable: Collection[str] | None) -> tuple[dict[str, Pages], list[str]]:
    """Return pages by cell ("" = of all) and KiB of a page, and the sizes that are left out as not usable.

    usable: sizes; None: all of them.
    """
    found: dict[str, Pages] = defaultdict(dict)
    for cell, kib, what, count in re.findall(
        r"(?:node(\d+)/)?hugepages/hugepages-(\d+)kB/(nr|free)_hugepages:(\d+)", parts.get("hugepages", "")
    ):
        found[cell].setdefault(kib, {})[what] = int(kib) * int(count) // 1024
    there = _total(found[""])
    left_out = [kib for kib in there if usable is not None and kib not in usable]
    return {
        cell: {kib: one for kib, one in sizes.items() if kib not in left_out} for cell, sizes in found.items()
    }, left_out  # fmt: skip


def _total(pages: Pages) -> dict[str, int]:
    return {kib: one["nr"] for kib, one in pages.items() if one["nr"]}


def _free(pages: Pages) -> dict[str, int]:
    return {kib: one["free"] for kib, one in pages.items() if one["nr"] and "free" in one}


def _mounted(text: str) -> set[str]:
    """Return the sizes of pages, in KiB, for which there is a hugetlbfs; from 2M, 1024M, 1G, one a line."""
    return {str(int(size[:-1]) * {"K": 1, "M": 1024, "G": 1024**2}[size[-1]]) for size in text.split()}


def _no_mount(kib: str) -> str:
    mib = int(kib) // 1024
    return (
        f"kvm: no hugetlbfs is mounted for pages of {mib} MiB, so that libvirt cannot use them: "
        f"mount -t hugetlbfs -o pagesize={mib}M hugetlbfs /dev/hugepages-{mib}M, then restart libvirtd"
    )


def _pci(text: str) -> list[dict[str, Any]]:
    """Return devices but for bridges (class 06), from: 0000:01:00.0 0x030200 0x10de 0x1eb8 0 14."""
    rows = [line.split() for line in text.splitlines()]
    return [
        {
            "address": row[0], "id": f"{row[2][2:]}:{row[3][2:]}", "class": row[1][2:6],
            "cell": int(row[4]) if row[4:] and int(row[4]) >= 0 else None,
            "iommu_group": int(row[5]) if row[5:] else None,
        }
        for row in rows if len(row) >= 4 and not row[1].startswith("0x06")
    ]  # fmt: skip


def _carrier(nics: list[dict[str, Any]], address: str) -> str:
    for nic in nics:
        if any(a.split("/")[0] == address for a in nic["addresses"]):
            return str(nic["name"])
    return ""


def _virtualisation(parts: dict[str, str], cpu: dict[str, str], there: set[str]) -> dict[str, Any]:
    flags = set(cpu.get("flags", "").split())
    return {
        "flags": sorted(flags & {"vmx", "svm"}), "dev_kvm": "/dev/kvm" in there,
        "inside_a_vm": "hypervisor" in flags, "nested": parts["nested"][-1:] in ("1", "Y", "y"),
    }  # fmt: skip


_READY: dict[str, Callable[[dict[str, str], set[str]], bool]] = {
    "kvm": lambda versions, there: LIBVIRT_SOCKET in there and bool(versions["qemu"]),
    "lxd": lambda versions, there: any(path in there for path in LXD_SOCKETS),
    "firecracker": lambda versions, there: bool(versions["firecracker"]) and "/dev/kvm" in there,
}


def _missing(versions: dict[str, str], there: set[str], root: str) -> list[str]:
    """Return what keeps the machine from being a host of some kind, each with what to do."""
    words = {
        "kvm: libvirtd is not installed: apt-get install libvirt-daemon-system": not versions["libvirt"],
        "kvm: QEMU is not installed: apt-get install qemu-system-x86": not versions["qemu"],
        "kvm: qemu-img is not installed: apt-get install qemu-utils": not versions["qemu_img"],
        "kvm: libvirtd does not run: systemctl enable --now libvirtd":
            bool(versions["libvirt"]) and LIBVIRT_SOCKET not in there,
        "kvm: no /dev/kvm, so QEMU emulates, slowly: enable virtualisation in the firmware": "/dev/kvm" not in there,
        "lxd: LXD is not installed: apt-get install lxd": not versions["lxd"],
        "lxd: LXD does not run: systemctl enable --now lxd":
            bool(versions["lxd"]) and not there & set(LXD_SOCKETS),
        "firecracker: there is no /dev/kvm, and it cannot do without: enable virtualisation in the firmware":
            bool(versions["firecracker"]) and "/dev/kvm" not in there,
        "sudo without a password is not allowed for this user": root != "yes",
    }  # fmt: skip
    return [text for text, holds in words.items() if holds]
