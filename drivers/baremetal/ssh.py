"""The inventory of a machine that already runs an operating system: one command on it, and its pure parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from core.errors import HostFault
from drivers.baremetal.inventory import Cpu, Disk, Firmware, Inventory, Nic, NumaNode, PciDevice
from drivers.facts import parts_of
from drivers.transport.base import Transport

# Each part begins with a line "==> NAME"; a part that cannot be read stays empty.
_SCRIPT = r"""
part() { echo "==> $1"; shift; "$@" 2>/dev/null || :; }
PATH=$PATH:/usr/sbin:/sbin
part hostname hostname
part cpu lscpu -J
part memory grep MemTotal /proc/meminfo
part disks lsblk --json --bytes --nodeps --output NAME,TYPE,SIZE,MODEL,VENDOR,SERIAL,WWN,ROTA
part nics ip -j address
part links grep -s '' /sys/class/net/*/speed /sys/class/net/*/carrier
part real ls -d /sys/class/net/*/device
part numa grep -s -e MemTotal -e '^[0-9]' /sys/devices/system/node/node*/meminfo /sys/devices/system/node/node*/cpulist
part pci grep -s '' /sys/bus/pci/devices/*/vendor /sys/bus/pci/devices/*/device /sys/bus/pci/devices/*/class
part dmi grep -s '' /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name /sys/class/dmi/id/product_serial \
  /sys/class/dmi/id/bios_vendor /sys/class/dmi/id/bios_version /sys/class/dmi/id/bios_date
part efi ls -d /sys/firmware/efi
"""
_DISK_WORDS = ("model", "vendor", "serial", "wwn")


async def inventory(t: Transport) -> Inventory:
    """Look at a machine; serials are read as root. Raise Unreachable, HostFault (it is no Linux with usual tools)."""
    found = await t.run(["sh", "-c", _SCRIPT], timeout_s=30, sudo=True, check=False)
    try:
        return parse(found.stdout)
    except (KeyError, ValueError, IndexError) as error:
        raise HostFault(
            f"{t.endpoint.name} does not tell what it is made of: {error!r}", f"host/{t.endpoint.name}",
            {"stdout": found.stdout[-2000:], "stderr": found.stderr[-2000:]},
            "it needs coreutils, iproute2 and util-linux, and root or sudo without a password",
        ) from error  # fmt: skip


def parse(text: str) -> Inventory:
    """Return the inventory that the script's output holds. Raise KeyError, ValueError, IndexError."""
    parts = parts_of(text)
    dmi = {path.rpartition("/")[2]: value.strip() for path, value in _lines(parts["dmi"])}
    vendor, version, date = (dmi.get(f"bios_{key}", "") for key in ("vendor", "version", "date"))
    return Inventory(
        cpu=_cpu(json.loads(parts["cpu"])["lscpu"]), memory_mib=int(parts["memory"].split()[1]) // 1024,
        numa=tuple(_numa(parts["numa"])), disks=tuple(_disks(parts["disks"])), nics=tuple(_nics(parts)),
        pci=tuple(_pci(parts["pci"])), manufacturer=dmi.get("sys_vendor", ""), product=dmi.get("product_name", ""),
        serial=dmi.get("product_serial", ""),
        firmware=Firmware(vendor, version, date, "uefi" if parts["efi"] else "bios"), hostname=parts["hostname"],
    )  # fmt: skip


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield (path, content) of what grep printed of several files; a PCI address has colons too."""
    for line in text.splitlines():
        found = re.match(r"(/\S+/[a-z_]+):(.*)", line)
        if found:
            yield found[1], found[2]


def _cpu(rows: list[dict[str, Any]]) -> Cpu:
    said = {row["field"].rstrip(":"): row["data"] or "" for row in _flat(rows)}
    sockets, cores = _number(said.get("Socket(s)")), _number(said.get("Core(s) per socket"))
    mhz = said.get("CPU max MHz") or said.get("CPU MHz")
    return Cpu(
        said.get("Model name", ""), said["Architecture"], int(said["CPU(s)"]), sockets,
        sockets * cores if sockets and cores else None, float(mhz) if mhz else None,
        tuple(said.get("Flags", "").split()),
    )  # fmt: skip


def _flat(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:  # newer ones of util-linux nest
        yield row
        yield from _flat(row.get("children") or [])


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _disks(text: str) -> Iterator[Disk]:
    for row in json.loads(text)["blockdevices"] if text else ():
        if row["type"] == "disk" and int(row["size"]) > 0:
            words = ((row.get(key) or "").strip() for key in _DISK_WORDS)
            yield Disk(f"/dev/{row['name']}", int(row["size"]), bool(row.get("rota")), *words)


def _nics(parts: dict[str, str]) -> Iterator[Nic]:
    """Yield the NICs that have a device; bridges, bonds and taps have none."""
    seen = {path: int(value) for path, value in _lines(parts["links"]) if value.lstrip("-").isdigit()}
    real = {path.split("/")[-2] for path in parts["real"].split()}
    for link in json.loads(parts["nics"] or "[]"):
        name = link["ifname"]
        if name in real:
            speed, carrier = (seen.get(f"/sys/class/net/{name}/{key}") for key in ("speed", "carrier"))
            address = next((one["local"] for one in link.get("addr_info", []) if "local" in one), "")
            yield Nic(
                name, link.get("address", ""), speed if speed and speed > 0 else None,
                None if carrier is None else bool(carrier), address,
            )  # fmt: skip


def _numa(text: str) -> Iterator[NumaNode]:
    memory: dict[int, int] = {}
    cpus: dict[int, tuple[int, ...]] = {}
    for path, value in _lines(text):
        number = int(path.split("/")[-2].removeprefix("node"))
        if path.endswith("meminfo"):
            memory[number] = int(value.split()[-2]) // 1024
        else:
            cpus[number] = tuple(_range(value))
    for number in sorted(memory):
        yield NumaNode(number, memory[number], cpus.get(number, ()))


def _range(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _pci(text: str) -> Iterator[PciDevice]:
    found: dict[str, dict[str, str]] = {}
    for path, value in _lines(text):
        address, key = path.split("/")[-2:]
        found.setdefault(address, {})[key] = value.removeprefix("0x")
    for address, words in sorted(found.items()):
        yield PciDevice(address, words["vendor"], words["device"], words["class"])
