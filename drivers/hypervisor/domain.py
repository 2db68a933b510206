"""An instance as libvirt domain XML. Pure. Format: https://libvirt.org/formatdomain.html

The XML carries its own digest, so that a definition on a host can be compared with a wanted one although libvirt
rewrites what it is given.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from lxml import etree

from core.errors import Invalid
from core.units import spans
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment

NAMESPACE = "urn:rackflow:instance:1"
LOG_DIR = "/var/log/libvirt/qemu"  # where libvirt keeps its own log of each domain
AGENT = "org.qemu.guest_agent.0"
_UUIDS = uuid.UUID("6ba1c9de-9c2a-5f1c-9f55-0d8a6b7c2f10")  # namespace: an instance's id gives its domain's UUID
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
CPU_PERIOD_US = 100_000
_SPARE_PORTS = 8  # of a q35 machine, whose PCIe slots take one device each

Attributes = Mapping[str, object]


@dataclass(frozen=True)
class Places:
    """Where the devices of a domain sit: targets of disks by name, PCI addresses of disks by name and NICs by MAC.

    They are the host's affair and no part of the wish: what was plugged in live stays where it is when it is defined.
    """

    targets: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    uuid: str = ""  # of an adopted domain


NOWHERE = Places()


def domain_uuid(instance_id: str) -> str:
    """Return the UUID of an instance's domain: by it a domain is known as ours without another call."""
    return str(uuid.uuid5(_UUIDS, instance_id))


def console_path(name: str) -> str:
    """Return where a domain's serial console is logged on the host."""
    return f"{LOG_DIR}/{name}.console"


def domain_xml(spec: InstanceSpec, domain_type: str, places: Places = NOWHERE) -> str:
    """Return the XML of a VM. domain_type: kvm, or qemu (emulation). The digest is of the spec, whatever the places."""
    root = _domain(spec, domain_type, places)
    _mark(root).set("digest", digest(spec, domain_type))
    return etree.tostring(root, pretty_print=True, encoding="unicode")


def digest(spec: InstanceSpec, domain_type: str) -> str:
    """Return what tells a definition from others."""
    return hashlib.sha256(etree.tostring(_domain(spec, domain_type, NOWHERE))).hexdigest()


def ceilings(spec: InstanceSpec) -> tuple[int, int]:
    """Return how many vCPUs and MiB it may have while it runs (options cpu_max, memory_max_mib). Raise Invalid."""
    options = dict(spec.options)
    try:
        vcpus, memory_mib = int(options.get("cpu_max", 0)), int(options.get("memory_max_mib", 0))
    except ValueError as error:
        raise Invalid(
            f"cpu_max and memory_max_mib are whole numbers: {error}", f"instance/{spec.id}", {"options": options}
        ) from error
    return max(vcpus, vcpus_of(spec)), max(memory_mib, spec.memory_mib)


def vcpus_of(spec: InstanceSpec) -> int:
    """Return how many vCPUs its cores come to."""
    return max(1, math.ceil(spec.cpu))


def quota_us(spec: InstanceSpec) -> int:
    """Return each vCPU's share of CPU_PERIOD_US, 0 = no limit."""
    vcpus = vcpus_of(spec)
    return int(CPU_PERIOD_US * spec.cpu / vcpus) if spec.cpu < vcpus else 0


def _domain(spec: InstanceSpec, domain_type: str, places: Places) -> etree._Element:
    options = dict(spec.options)
    root = _element("domain", {"type": domain_type})
    _instance(root, spec, places.uuid)
    _resources(root, spec)
    _firmware(root, spec, options)
    _features(root, spec, domain_type)
    _clock(root)
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _add(root, event, text=action)
    _devices(root, spec, places)
    return root


def _element(tag: str, attributes: Attributes | None = None) -> etree._Element:
    return etree.Element(tag, {key: str(value) for key, value in (attributes or {}).items()})


def _add(
    parent: etree._Element, tag: str, attributes: Attributes | None = None, *, text: object = None
) -> etree._Element:
    child = _element(tag, attributes)
    child.text = None if text is None else str(text)
    parent.append(child)
    return child


def _instance(root: etree._Element, spec: InstanceSpec, uuid_there: str) -> None:
    _add(root, "name", text=spec.name)
    _add(root, "uuid", text=uuid_there or domain_uuid(spec.id))
    _add(root, "title", text=spec.display_name)
    metadata = _add(root, "metadata")
    ours = etree.SubElement(metadata, f"{{{NAMESPACE}}}instance", nsmap={"rackflow": NAMESPACE})
    ours.set("id", spec.id)
    ours.set("name", spec.display_name)


def _mark(root: etree._Element) -> etree._Element:
    (ours,) = root.iterfind(f"metadata/{{{NAMESPACE}}}instance")
    return ours


def _resources(root: etree._Element, spec: InstanceSpec) -> None:
    vcpus, (vcpus_max, memory_max_mib) = vcpus_of(spec), ceilings(spec)
    _add(root, "memory", {"unit": "MiB"}, text=memory_max_mib)
    _add(root, "currentMemory", {"unit": "MiB"}, text=spec.memory_mib)
    if spec.page_kib:
        pages = _add(_add(root, "memoryBacking"), "hugepages")
        _add(pages, "page", {"size": spec.page_kib, "unit": "KiB"})
    where = {"placement": "static", "cpuset": spans(spec.may_use)} if spec.may_use else {}
    _add(root, "vcpu", {**where, **({"current": vcpus} if vcpus < vcpus_max else {})}, text=vcpus_max)
    quota = quota_us(spec)  # a fraction of a core: the quota is for each virtual CPU
    if quota or spec.pinned:
        tune = _add(root, "cputune")
        for number, cpu in enumerate(spec.pinned):
            _add(tune, "vcpupin", {"vcpu": number, "cpuset": cpu})
        if spec.pinned:  # QEMU's own threads too keep off the cores of others
            _add(tune, "emulatorpin", {"cpuset": spans(spec.pinned)})
        if quota:
            _add(tune, "period", text=CPU_PERIOD_US)
            _add(tune, "quota", text=quota)
    if spec.cell is not None:
        _add(_add(root, "numatune"), "memory", {"mode": "strict", "nodeset": spec.cell})


def _firmware(root: etree._Element, spec: InstanceSpec, options: Mapping[str, str]) -> None:
    os = _add(root, "os", {"firmware": "efi"} if spec.firmware == "uefi" else {})
    _add(os, "type", {"arch": options.get("architecture", "x86_64"), "machine": machine_of(spec)}, text="hvm")
    _add(os, "boot", {"dev": "hd"})


def machine_of(spec: InstanceSpec) -> str:
    """Return the machine type."""
    return dict(spec.options).get("machine", "q35" if spec.firmware == "uefi" else "pc")


def _features(root: etree._Element, spec: InstanceSpec, domain_type: str) -> None:
    features = _add(root, "features")
    _add(features, "acpi")
    _add(features, "apic")
    if domain_type == "kvm":
        _add(root, "cpu", {"mode": "host-passthrough", "migratable": "on"})
        return
    # QEMU's own choice is 1 GiB of translated code per VM; a sixth of its memory keeps a Debian guest as fast.
    cache_mib = min(max(32, spec.memory_mib // 6), 512)
    _add(_add(features, "tcg"), "tb-cache", {"unit": "MiB"}, text=cache_mib)


def _clock(root: etree._Element) -> None:
    clock = _add(root, "clock", {"offset": "utc"})
    for name, extra in (("rtc", {"tickpolicy": "catchup"}), ("pit", {"tickpolicy": "delay"}),
                        ("hpet", {"present": "no"})):  # fmt: skip
        _add(clock, "timer", {"name": name, **extra})


def _devices(root: etree._Element, spec: InstanceSpec, places: Places) -> None:
    devices = _add(root, "devices")
    for disk, target in _targets(spec.disks, places.targets):
        devices.append(_placed(disk_element(disk, target), places.addresses.get(disk.name)))
    _add(devices, "controller", {"type": "usb", "model": "none"})  # a polled bus that nothing here needs
    if "q35" in machine_of(spec):
        _add(devices, "controller", {"type": "pci", "index": 0, "model": "pcie-root"})
        for _ in range(_SPARE_PORTS):
            _add(devices, "controller", {"type": "pci", "model": "pcie-root-port"})
    for nic in spec.nics:
        devices.append(_placed(nic_element(nic), places.addresses.get(nic.mac)))
    for address in spec.pci:
        devices.append(host_device(address))
    serial = _add(devices, "serial", {"type": "pty"})
    _add(serial, "log", {"file": console_path(spec.name), "append": "on"})
    _add(serial, "target", {"port": 0})
    channel = _add(devices, "channel", {"type": "unix"})
    _add(channel, "target", {"type": "virtio", "name": AGENT})
    _add(devices, "graphics", {"type": "vnc", "autoport": "yes", "listen": "127.0.0.1"})
    _add(_add(devices, "video"), "model", {"type": "vga", "vram": 2048})
    balloon = _add(devices, "memballoon", {"model": "virtio"})
    _add(balloon, "stats", {"period": 10})
    rng = _add(devices, "rng", {"model": "virtio"})
    _add(rng, "backend", {"model": "random"}, text="/dev/urandom")


def _placed(device: etree._Element, address: Mapping[str, str] | None) -> etree._Element:
    if address:
        _add(device, "address", address)
    return device


def _targets(
    disks: Sequence[DiskAttachment], kept: Mapping[str, str]
) -> Iterator[tuple[DiskAttachment, str]]:
    """Name writable disks vda, vdb, … in order, read-only ones (the seed) from vdz down; what has a name keeps it."""
    reserved = [25 - n for n in range(sum(disk.read_only for disk in disks))]
    read_only = iter(target_name(n) for n in reserved)
    writable = (target_name(n) for n in count() if n not in reserved)
    taken = {kept[disk.name] for disk in disks if disk.name in kept}
    for disk in disks:
        free = read_only if disk.read_only else writable
        yield disk, kept.get(disk.name) or next(target for target in free if target not in taken)


def target_name(index: int) -> str:
    """Return vda, vdb, …, vdz, vdaa, …"""
    letters = _LETTERS[index] if index < 26 else _LETTERS[index // 26 - 1] + _LETTERS[index % 26]
    return f"vd{letters}"


def disk_element(disk: DiskAttachment, target: str) -> etree._Element:
    """Return a disk as a device."""
    # The seed too is a virtio disk: cloud kernels have no IDE or AHCI driver for a CD drive.
    element = _element("disk", {"type": "file", "device": "disk"})
    tuning = {} if disk.read_only else {"cache": "none", "discard": "unmap", "error_policy": "stop"}
    _add(element, "driver", {"name": "qemu", "type": disk.format, **tuning})
    _add(element, "source", {"file": disk.source})
    _add(element, "target", {"dev": target, "bus": disk.bus})
    if disk.read_only:
        _add(element, "readonly")
    _add(element, "serial", text=disk.name)  # /dev/disk/by-id/virtio-NAME in the guest
    return element


def host_device(address: str) -> etree._Element:
    """Return a PCI device of the host, as 0000:01:00.0; libvirt takes it from the host's driver and gives it back."""
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    element = _element("hostdev", {"mode": "subsystem", "type": "pci", "managed": "yes"})
    where = {"domain": domain, "bus": bus, "slot": slot, "function": function}
    _add(_add(element, "source"), "address", {key: f"0x{value}" for key, value in where.items()})
    return element


def nic_element(nic: NicAttachment) -> etree._Element:
    """Return a NIC as a device."""
    element = _element("interface", {"type": "bridge"})
    _add(element, "mac", {"address": nic.mac})
    _add(element, "source", {"bridge": nic.bridge})
    _add(element, "model", {"type": nic.model})
    return element
