"""An instance as libvirt domain XML. Pure. Format: https://libvirt.org/formatdomain.html

The XML carries its own digest, so that a definition on a host can be compared with a wanted one although libvirt
rewrites what it is given.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from lxml import etree

from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment

NAMESPACE = "urn:rackflow:instance:1"
LOG_DIR = "/var/log/libvirt/qemu"  # where libvirt keeps its own log of each domain
AGENT = "org.qemu.guest_agent.0"
_UUIDS = uuid.UUID("6ba1c9de-9c2a-5f1c-9f55-0d8a6b7c2f10")  # namespace: an instance's id gives its domain's UUID
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CPU_PERIOD_US = 100_000

Attributes = Mapping[str, object]


def domain_uuid(instance_id: str) -> str:
    """Return the UUID of an instance's domain: by it a domain is known as ours without another call."""
    return str(uuid.uuid5(_UUIDS, instance_id))


def console_path(name: str) -> str:
    """Return where a domain's serial console is logged on the host."""
    return f"{LOG_DIR}/{name}.console"


def domain_xml(spec: InstanceSpec, domain_type: str) -> str:
    """Return the XML of a VM. domain_type: kvm, or qemu (emulation)."""
    options = dict(spec.options)
    root = _element("domain", {"type": domain_type})
    digest = _instance(root, spec)
    _resources(root, spec)
    _firmware(root, spec, options)
    _features(root, spec, domain_type)
    _clock(root)
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _add(root, event, text=action)
    _devices(root, spec)
    digest.set("digest", hashlib.sha256(etree.tostring(root)).hexdigest())
    return etree.tostring(root, pretty_print=True, encoding="unicode")


def _element(tag: str, attributes: Attributes | None = None) -> etree._Element:
    return etree.Element(tag, {key: str(value) for key, value in (attributes or {}).items()})


def _add(
    parent: etree._Element, tag: str, attributes: Attributes | None = None, *, text: object = None
) -> etree._Element:
    child = _element(tag, attributes)
    child.text = None if text is None else str(text)
    parent.append(child)
    return child


def _instance(root: etree._Element, spec: InstanceSpec) -> etree._Element:
    _add(root, "name", text=spec.name)
    _add(root, "uuid", text=domain_uuid(spec.id))
    _add(root, "title", text=spec.display_name)
    metadata = _add(root, "metadata")
    ours = etree.SubElement(metadata, f"{{{NAMESPACE}}}instance", nsmap={"rackflow": NAMESPACE})
    ours.set("id", spec.id)
    ours.set("name", spec.display_name)
    return ours


def _resources(root: etree._Element, spec: InstanceSpec) -> None:
    vcpus = max(1, math.ceil(spec.cpu))
    _add(root, "memory", {"unit": "MiB"}, text=spec.memory_mib)
    _add(root, "currentMemory", {"unit": "MiB"}, text=spec.memory_mib)
    _add(root, "vcpu", text=vcpus)
    if spec.cpu < vcpus:  # a fraction of a core: the quota is for each virtual CPU
        tune = _add(root, "cputune")
        _add(tune, "period", text=_CPU_PERIOD_US)
        _add(tune, "quota", text=int(_CPU_PERIOD_US * spec.cpu / vcpus))


def _firmware(root: etree._Element, spec: InstanceSpec, options: Mapping[str, str]) -> None:
    os = _add(root, "os", {"firmware": "efi"} if spec.firmware == "uefi" else {})
    machine = options.get("machine", "q35" if spec.firmware == "uefi" else "pc")
    _add(os, "type", {"arch": options.get("architecture", "x86_64"), "machine": machine}, text="hvm")
    _add(os, "boot", {"dev": "hd"})


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


def _devices(root: etree._Element, spec: InstanceSpec) -> None:
    devices = _add(root, "devices")
    for disk, target in _targets(spec.disks):
        _disk(devices, disk, target)
    _add(devices, "controller", {"type": "usb", "model": "none"})  # a polled bus that nothing here needs
    for nic in spec.nics:
        _nic(devices, nic)
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


def _targets(disks: Sequence[DiskAttachment]) -> Iterator[tuple[DiskAttachment, str]]:
    """Name writable disks vda, vdb, … in order, read-only ones (the seed) from vdz down: a guest's names stay."""
    reserved = [25 - n for n in range(sum(disk.read_only for disk in disks))]
    read_only = iter(reserved)
    writable = (n for n in count() if n not in reserved)
    for disk in disks:
        index = next(read_only if disk.read_only else writable)
        letters = _LETTERS[index] if index < 26 else _LETTERS[index // 26 - 1] + _LETTERS[index % 26]
        yield disk, f"vd{letters}"


def _disk(devices: etree._Element, disk: DiskAttachment, target: str) -> None:
    # The seed too is a virtio disk: cloud kernels have no IDE or AHCI driver for a CD drive.
    element = _add(devices, "disk", {"type": "file", "device": "disk"})
    tuning = {} if disk.read_only else {"cache": "none", "discard": "unmap", "error_policy": "stop"}
    _add(element, "driver", {"name": "qemu", "type": disk.format, **tuning})
    _add(element, "source", {"file": disk.source})
    _add(element, "target", {"dev": target, "bus": disk.bus})
    if disk.read_only:
        _add(element, "readonly")
    _add(element, "serial", text=disk.name)  # /dev/disk/by-id/virtio-NAME in the guest


def _nic(devices: etree._Element, nic: NicAttachment) -> None:
    element = _add(devices, "interface", {"type": "bridge"})
    _add(element, "mac", {"address": nic.mac})
    _add(element, "source", {"bridge": nic.bridge})
    _add(element, "model", {"type": nic.model})
