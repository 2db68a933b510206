"""What vSphere is told of a VM: a ConfigSpec from our spec, and the changes to one that is there. Pure.

https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.ConfigSpec.html
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from core.errors import HostFault, Invalid, Unsupported
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.storage.base import SeedSpec

MARK = "rackflow:"  # the line of a VM's notes that says whose it is
CONFIG = ("name", "config.annotation", "config.hardware", "config.firmware", "config.extraConfig", "runtime.powerState")
_GUEST = "otherLinux64Guest"
_SLOTS = [unit for unit in range(16) if unit != 7]  # of a SCSI controller, which is number 7 itself
_DEVICE = vim.vm.device
_CHANGE = _DEVICE.VirtualDeviceSpec
Networks = Mapping[str, Any]  # name of a port group -> what a NIC on it is backed by


@dataclass(frozen=True)
class Seen:
    """A VM's settings as they are: properties named in CONFIG."""

    properties: Mapping[str, Any]

    @property
    def notes(self) -> str:
        return self.properties.get("config.annotation") or ""

    @property
    def hardware(self) -> Any:
        return self.properties["config.hardware"]

    @property
    def is_off(self) -> bool:
        return bool(self.properties["runtime.powerState"] == "poweredOff")

    def disks(self) -> dict[str, Any]:
        """Return the disks by the file each began as: one with snapshots has others on top."""
        return {base_file(one): one for one in self.hardware.device if isinstance(one, _DEVICE.VirtualDisk)}

    def nics(self) -> dict[str, Any]:
        """Return the NICs by MAC address."""
        cards = (one for one in self.hardware.device if isinstance(one, _DEVICE.VirtualEthernetCard))
        return {(one.macAddress or "").lower(): one for one in cards}

    def settings(self) -> dict[str, str]:
        """Return the extra settings, among them what the guest can ask for."""
        return {one.key: str(one.value) for one in self.properties.get("config.extraConfig") or ()}


def base_file(disk: Any) -> str:
    """Return the file of a disk without the snapshots on top of it."""
    backing = disk.backing
    while getattr(backing, "parent", None) is not None:
        backing = backing.parent
    return str(backing.fileName)


# -- whose it is


def owner(notes: str) -> str | None:
    """Return the instance id that a VM's notes name, None if it is not ours."""
    found = re.search(rf"^{MARK}(\S+)$", notes, re.MULTILINE)
    return found[1] if found else None


def marked(notes: str, instance_id: str) -> str:
    """Return notes that name an instance; "" takes the mark away. The user's own lines stay."""
    lines = [line for line in notes.splitlines() if not line.startswith(MARK)]
    return "\n".join([*lines, f"{MARK}{instance_id}"] if instance_id else lines) or " "  # "" is taken for unchanged


# -- cloud-init


def guestinfo(seed: SeedSpec) -> dict[str, str]:
    """Return the settings by which cloud-init's DataSourceVMware finds its seed.

    https://cloudinit.readthedocs.io/en/latest/reference/datasources/vmware.html
    """
    network = _base64(seed.network_config)
    meta = f"{seed.meta_data}network: {network}\nnetwork.encoding: base64\n"
    texts = {"metadata": meta, "userdata": seed.user_data}
    return {
        key: value for name, text in texts.items()
        for key, value in ((f"guestinfo.{name}", _base64(text)), (f"guestinfo.{name}.encoding", "base64"))
    }  # fmt: skip


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- devices


def _add_disk(disk: DiskAttachment, controller: int, unit: int) -> Any:
    backing = _DEVICE.VirtualDisk.FlatVer2BackingInfo(fileName=disk.source, diskMode="persistent")
    device = _DEVICE.VirtualDisk(
        key=-100 - unit, controllerKey=controller, unitNumber=unit, backing=backing, capacityInKB=disk.size_mib * 1024
    )
    return _CHANGE(operation="add", device=device)


def _add_nic(nic: NicAttachment, number: int, networks: Networks) -> Any:
    device = _DEVICE.VirtualVmxnet3(
        key=-200 - number, addressType="manual", macAddress=nic.mac, backing=networks[nic.bridge],
        connectable=_DEVICE.VirtualDevice.ConnectInfo(startConnected=True, connected=True, allowGuestControl=True),
    )  # fmt: skip
    return _CHANGE(operation="add", device=device)


def _controller() -> Any:
    return _CHANGE(
        operation="add", device=_DEVICE.ParaVirtualSCSIController(key=-1, busNumber=0, sharedBus="noSharing")
    )


def _writable(spec: InstanceSpec) -> list[DiskAttachment]:
    """Return the disks that are attached. Raise Unsupported (more than a controller takes)."""
    disks = [disk for disk in spec.disks if not disk.read_only]
    if len(disks) > len(_SLOTS):
        raise Unsupported(
            f"{spec.name} has {len(disks)} disks, and its controller takes {len(_SLOTS)}", f"instance/{spec.id}",
            fix="give it fewer, larger disks",
        )
    return disks


def _store(spec: InstanceSpec) -> str:
    """Return the datastore of its disks, or of its seed where it has none. Raise Invalid (it has nothing)."""
    for disk in (*_writable(spec), *spec.disks):
        if disk.source.startswith("["):
            return disk.source[: disk.source.index("]") + 1]
    raise Invalid(
        f"{spec.name} has no disk: there is no datastore for its files", f"instance/{spec.id}",
        fix="give it an image or a disk",
    )


def require_networks(spec: InstanceSpec, networks: Networks) -> None:
    """Raise HostFault when a NIC's port group is not there."""
    for nic in spec.nics:
        if nic.bridge not in networks:
            raise HostFault(
                f"{spec.name}: there is no port group {nic.bridge}", f"instance/{spec.id}",
                {"there": sorted(networks)}, "make it on the host, or let rackflow make it",
            )  # fmt: skip


def _settings(spec: Mapping[str, str]) -> list[Any]:
    return [vim.option.OptionValue(key=key, value=value) for key, value in spec.items()]


def new(spec: InstanceSpec, settings: Mapping[str, str], networks: Networks) -> Any:
    """Return the ConfigSpec of a VM that is not there yet. Its own files lie apart from its disks, which outlive it.

    Raise Invalid (nothing of it lies in a datastore), Unsupported (too many disks).
    """
    disks = [_add_disk(disk, -1, unit) for unit, disk in zip(_SLOTS, _writable(spec), strict=False)]
    nics = [_add_nic(nic, number, networks) for number, nic in enumerate(spec.nics)]
    return vim.vm.ConfigSpec(
        name=spec.name, guestId=_GUEST, annotation=marked("", spec.id), numCPUs=math.ceil(spec.cpu),
        memoryMB=spec.memory_mib, firmware="efi" if spec.firmware == "uefi" else "bios",
        cpuHotAddEnabled=True, memoryHotAddEnabled=True, files=vim.vm.FileInfo(vmPathName=_store(spec)),
        deviceChange=[_controller(), *disks, *nics], extraConfig=_settings({"disk.EnableUUID": "TRUE", **settings}),
    )  # fmt: skip


# -- changes


def changes(seen: Seen, spec: InstanceSpec, settings: Mapping[str, str], networks: Networks) -> Any | None:
    """Return the ConfigSpec that brings a VM to its spec, None if it is. Raise Unsupported (it must be off)."""
    hardware = seen.hardware
    values: dict[str, Any] = {}
    if hardware.numCPU != math.ceil(spec.cpu):
        values["numCPUs"] = math.ceil(spec.cpu)
    if hardware.memoryMB != spec.memory_mib:
        values["memoryMB"] = spec.memory_mib
    if not seen.is_off:
        _require_growth(hardware, values, spec)
    now = seen.settings()
    if differing := {key: value for key, value in settings.items() if now.get(key) != value}:
        values["extraConfig"] = _settings(differing)
    if devices := [*_disk_changes(seen, _writable(spec)), *_nic_changes(seen, spec.nics, networks)]:
        values["deviceChange"] = devices
    return vim.vm.ConfigSpec(**values) if values else None


def _require_growth(hardware: Any, values: Mapping[str, Any], spec: InstanceSpec) -> None:
    less = [
        word for word, wanted, there in (
            ("cpu", values.get("numCPUs"), hardware.numCPU), ("memory", values.get("memoryMB"), hardware.memoryMB),
        ) if wanted is not None and wanted < there
    ]  # fmt: skip
    if less:
        raise Unsupported(
            f"{spec.name} runs: {' and '.join(less)} can only grow", f"instance/{spec.id}", fix="stop it first"
        )


def _disk_changes(seen: Seen, wanted: Sequence[DiskAttachment]) -> list[Any]:
    there, by_file = seen.disks(), {disk.source: disk for disk in wanted}
    found = [_CHANGE(operation="remove", device=one) for file, one in there.items() if file not in by_file]
    for file, one in there.items():
        if file in by_file and by_file[file].size_mib * 1024 > one.capacityInKB:
            one.capacityInKB = by_file[file].size_mib * 1024
            one.capacityInBytes = one.capacityInKB * 1024
            found.append(_CHANGE(operation="edit", device=one))
    missing = [disk for disk in wanted if disk.source not in there]
    controllers = [one.key for one in seen.hardware.device if isinstance(one, _DEVICE.VirtualSCSIController)]
    if missing and not controllers:
        found.append(_controller())
    key = controllers[0] if controllers else -1
    taken = {one.unitNumber for one in there.values() if one.controllerKey == key}
    free = [unit for unit in _SLOTS if unit not in taken]
    return found + [_add_disk(disk, key, unit) for unit, disk in zip(free, missing, strict=False)]


def _nic_changes(seen: Seen, wanted: Sequence[NicAttachment], networks: Networks) -> list[Any]:
    there, macs = seen.nics(), {nic.mac.lower() for nic in wanted}
    gone = [_CHANGE(operation="remove", device=one) for mac, one in there.items() if mac not in macs]
    return gone + [
        _add_nic(nic, number, networks) for number, nic in enumerate(wanted) if nic.mac.lower() not in there
    ]


def without_disks(seen: Seen) -> Any | None:
    """Return the ConfigSpec that takes all disks away and keeps their files; None if there is none."""
    gone = [_CHANGE(operation="remove", device=one) for one in seen.disks().values()]
    return vim.vm.ConfigSpec(deviceChange=gone) if gone else None


def backing(network: Any, values: Mapping[str, Any]) -> Any:
    """Return what backs a NIC on a network: by name on a standard switch, by key on a distributed one."""
    if "config.distributedVirtualSwitch" not in values:
        return _DEVICE.VirtualEthernetCard.NetworkBackingInfo(deviceName=values["name"], network=network)
    port = vim.dvs.PortConnection(portgroupKey=values["key"], switchUuid=values["uuid"])
    return _DEVICE.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port)
