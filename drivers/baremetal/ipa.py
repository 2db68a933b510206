"""The inventory in the words of ironic-python-agent, which Inspector and Ironic keep. Pure.

Fields: ironic-python-agent 13.0, hardware.py and the collectors default, pci-devices and numa-topology.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import HostFault
from drivers.baremetal.inventory import Cpu, Disk, Firmware, Inventory, Neighbour, Nic, NumaNode, PciDevice

_CHASSIS, _PORT, _SYSTEM = 1, 2, 5  # types of LLDP's TLVs, IEEE 802.1AB
_MAC = 4, 3  # subtypes that hold one: of a chassis id, of a port id


def parse(data: Mapping[str, Any], subject: str = "") -> Inventory:
    """Return the inventory of what a ramdisk posted. Raise HostFault (it is no such thing)."""
    try:
        return _parsed(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        evidence = {"seen": repr(error), "keys": sorted(map(str, data))}
        fix = "use a ramdisk with ironic-python-agent's default collectors"
        raise HostFault(f"what the ramdisk posted is no inventory: {error!r}", subject, evidence, fix) from error


def _parsed(data: Mapping[str, Any]) -> Inventory:
    found = data["inventory"]
    vendor, boot = found.get("system_vendor") or {}, found.get("boot") or {}
    firmware = vendor.get("firmware") or {}
    hostname = _text(found.get("hostname"))
    return Inventory(
        cpu=_cpu(found["cpu"]),
        memory_mib=int(found["memory"].get("physical_mb") or int(found["memory"]["total"]) // 2**20),
        numa=_numa(data.get("numa_topology") or {}),
        disks=tuple(_disk(one) for one in found["disks"]), nics=tuple(_nic(one) for one in found["interfaces"]),
        pci=tuple(_pci(one) for one in data.get("pci_devices") or ()),
        manufacturer=_text(vendor.get("manufacturer")), product=_text(vendor.get("product_name")),
        serial=_text(vendor.get("serial_number")),
        firmware=Firmware(
            _text(firmware.get("vendor")), _text(firmware.get("version")), _text(firmware.get("build_date")),
            _text(boot.get("current_boot_mode")),
        ),
        bmc_address=_text(found.get("bmc_address")), hostname="" if hostname == "(none)" else hostname,
    )  # fmt: skip


def _cpu(found: Mapping[str, Any]) -> Cpu:
    frequency = _text(found.get("frequency"))
    return Cpu(
        _text(found.get("model_name")), _text(found.get("architecture")), int(found["count"]),
        found.get("socket_count"), None, float(frequency) if frequency else None, tuple(found.get("flags") or ()),
    )  # fmt: skip


def _disk(found: Mapping[str, Any]) -> Disk:
    words = (_text(found.get(key)) for key in ("model", "vendor", "serial", "wwn"))
    return Disk(found["name"], int(found["size"]), found.get("rotational"), *words)


def _nic(found: Mapping[str, Any]) -> Nic:
    return Nic(
        found["name"], _text(found["mac_address"]).lower(), found.get("speed_mbps"), found.get("has_carrier"),
        _text(found.get("ipv4_address")) or _text(found.get("ipv6_address")), _text(found.get("vendor")),
        _text(found.get("product")), neighbour(found.get("lldp") or ()),
    )  # fmt: skip


def _pci(found: Mapping[str, Any]) -> PciDevice:
    return PciDevice(_text(found.get("bus")), found["vendor_id"], found["product_id"], _text(found.get("class")))


def _numa(found: Mapping[str, Any]) -> tuple[NumaNode, ...]:
    threads: dict[int, list[int]] = {}
    for core in found.get("cpus") or ():
        threads.setdefault(core["numa_node"], []).extend(core["thread_siblings"])
    return tuple(
        NumaNode(one["numa_node"], int(one["size_kb"]) // 1024, tuple(sorted(threads.get(one["numa_node"], ()))))
        for one in found.get("ram") or ()
    )


def neighbour(tlvs: Sequence[Sequence[Any]]) -> Neighbour | None:
    """Return who is at the other end of the cable. tlvs: (type, value in hexadecimal), as they came."""
    by_kind: dict[int, bytes] = {}
    for kind, value in tlvs:
        by_kind.setdefault(int(kind), bytes.fromhex(value))
    if _CHASSIS not in by_kind and _PORT not in by_kind:
        return None
    return Neighbour(
        _identifier(by_kind.get(_CHASSIS, b""), _MAC[0]), _identifier(by_kind.get(_PORT, b""), _MAC[1]),
        by_kind.get(_SYSTEM, b"").decode("utf-8", "replace"),
    )  # fmt: skip


def _identifier(value: bytes, mac_subtype: int) -> str:
    if value[:1] == bytes([mac_subtype]):
        return value[1:].hex(":")
    return value[1:].decode("utf-8", "replace")


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
