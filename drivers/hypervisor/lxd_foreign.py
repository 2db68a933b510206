"""Containers that are not ours: what they would be as one of ours, and what speaks against it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_interface
from typing import Any

from core.states import InstanceKind
from core.units import parse_bytes
from drivers.hypervisor.base import DiskAttachment, NicAttachment
from drivers.hypervisor.lxd_config import observed, volume_name
from drivers.hypervisor.powers import Found

Device = Mapping[str, str]


def describe(found: Mapping[str, Any], networks: Sequence[Mapping[str, Any]]) -> Found:
    """Return a container of GET /1.0/instances/NAME. networks: GET /1.0/networks?recursion=1."""
    seen = observed(found)
    devices: dict[str, Device] = found["expanded_devices"]
    disks = {name: one for name, one in devices.items() if one["type"] == "disk"}
    nics = {name: one for name, one in devices.items() if one["type"] == "nic"}
    return Found(
        seen.name, seen.kind, seen.power, seen.cpus, seen.memory_mib,
        tuple(_disk(name, one) for name, one in disks.items() if one.get("pool")),
        tuple(_nic(name, one, found["expanded_config"], networks) for name, one in nics.items() if _bridge(one)),
        tuple(_problems(found, devices)),
    )  # fmt: skip


def _problems(found: Mapping[str, Any], devices: Mapping[str, Device]) -> Iterator[str]:
    seen = observed(found)
    if seen.kind is not InstanceKind.CONTAINER:
        yield "it is a virtual machine"
    if not seen.cpus:
        yield f"it has no limit of CPUs: lxc config set {seen.name} limits.cpu 1"
    if not seen.memory_mib:
        yield f"it has no limit of memory in bytes: lxc config set {seen.name} limits.memory 512MiB"
    if found.get("ephemeral"):
        yield "it is ephemeral: LXD deletes it when it stops"
    for name, device in devices.items():
        yield from _device_problems(seen.name, name, device)


def _device_problems(instance: str, name: str, device: Device) -> Iterator[str]:
    if device["type"] == "nic":
        if not _bridge(device):
            yield f"its NIC {name} is not on a bridge"
        elif device.get("name", name) != name:
            yield f"its NIC {name} is called {device['name']} inside"
    elif device["type"] != "disk":
        yield f"its device {name} is a {device['type']}"
    elif device.get("path") == "/":
        if name != "root":
            yield f"its root disk is called {name}, not root"
    elif device.get("source") != volume_name(instance, name) or not device.get("pool"):
        yield f"its disk {name} is not the volume {volume_name(instance, name)} of a pool"
    elif device.get("path") != f"/mnt/{name}":
        yield f"its disk {name} is not mounted at /mnt/{name}"


def _bridge(nic: Device) -> str:
    """Return the bridge of a NIC, "" if it has none."""
    return nic.get("network") or (nic.get("parent", "") if nic.get("nictype") == "bridged" else "")


def _nic(
    name: str, nic: Device, config: Mapping[str, str], networks: Sequence[Mapping[str, Any]]
) -> NicAttachment:
    bridge, address = _bridge(nic), nic.get("ipv4.address", "")
    subnet = next((one["config"].get("ipv4.address", "") for one in networks if one["name"] == bridge), "")
    if address and "/" in subnet:
        address = f"{address}/{ip_interface(subnet).network.prefixlen}"
    mac = nic.get("hwaddr") or config.get(f"volatile.{name}.hwaddr", "")
    return NicAttachment(name, mac, bridge, address=address)


def _disk(name: str, disk: Device) -> DiskAttachment:
    size_mib = parse_bytes(disk["size"]) // 2**20 if disk.get("size") else 0
    return DiskAttachment("root" if disk.get("path") == "/" else name, "pool", disk["pool"], "raw", size_mib)
