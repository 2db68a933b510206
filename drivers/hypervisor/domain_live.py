"""How a running domain is changed. Blocking: runs in the link's threads."""

from __future__ import annotations

from typing import Any

import libvirt
from lxml import etree

from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.domain import CPU_PERIOD_US
from drivers.hypervisor.domain_changes import Changes, changes
from drivers.hypervisor.domain_seen import DomainSeen, read

_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE


def needed(domain: Any, spec: InstanceSpec) -> Changes:
    """Return what a running domain needs to be as spec says. Raise Unsupported."""
    live = read(domain.XMLDesc(0))
    return changes(live, _sizes(domain, live), spec, _defined_targets(domain))


def _sizes(domain: Any, live: DomainSeen) -> dict[str, int]:
    return {disk.target: domain.blockInfo(disk.target)[0] for disk in live.disks if disk.device == "disk"}


def _defined_targets(domain: Any) -> frozenset[str]:
    if not domain.isPersistent():
        return frozenset()
    return frozenset(disk.target for disk in read(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).disks)


def apply(domain: Any, wanted: Changes) -> None:
    """Make the changes; what is detached is only asked for (see `gone`), the balloon likewise (see `has_memory`)."""
    for target, size_bytes in wanted.grow:
        domain.blockResize(target, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    for xml in wanted.attach:
        domain.attachDeviceFlags(xml, _LIVE)
    for xml in wanted.update:
        domain.updateDeviceFlags(_as_it_is(domain, xml), _LIVE)
    for which in wanted.detach:
        ask_to_let_go(domain, which)
    if wanted.vcpus:
        domain.setVcpusFlags(wanted.vcpus, _LIVE)
    if wanted.quota_us is not None:
        limits = {
            libvirt.VIR_DOMAIN_SCHEDULER_VCPU_PERIOD: CPU_PERIOD_US,
            libvirt.VIR_DOMAIN_SCHEDULER_VCPU_QUOTA: wanted.quota_us,
        }
        domain.setSchedulerParametersFlags(limits, _LIVE)
    if wanted.memory_kib:
        domain.setMemoryFlags(wanted.memory_kib, _LIVE)


def _as_it_is(domain: Any, wanted: str) -> str:
    """Return the NIC as it runs, with the wanted bridge: anything else that differed would be refused."""
    new = etree.fromstring(wanted)
    (mac,), (source,) = new.iterfind("mac"), new.iterfind("source")
    there = _find(domain, str(mac.get("address")).lower())
    if there is None:
        return wanted
    (old,) = there.iterfind("source")
    old.set("bridge", str(source.get("bridge")))
    return etree.tostring(there, encoding="unicode")


def ask_to_let_go(domain: Any, which: str) -> None:
    """Ask the guest to let go of a disk (by target) or a NIC (by MAC); one that is gone is fine."""
    device = _find(domain, which)
    if device is None:
        return
    try:
        domain.detachDeviceFlags(etree.tostring(device, encoding="unicode"), _LIVE)
    except libvirt.libvirtError as error:
        # What it was asked before it may still be about to do; it may also have just done it.
        if "in the process of unplug" not in str(error) and _find(domain, which) is not None:
            raise


def gone(domain: Any, detached: tuple[str, ...]) -> list[str]:
    """Return which of these the guest has not let go of yet."""
    return [which for which in detached if _find(domain, which) is not None]


def has_memory(domain: Any, memory_kib: int) -> bool:
    """Say whether the balloon has come to its size."""
    return not memory_kib or int(domain.info()[2]) == memory_kib


def _find(domain: Any, which: str) -> etree._Element | None:
    for device in etree.fromstring(domain.XMLDesc(0)).iterfind("devices/*"):
        target, mac = device.find("target"), device.find("mac")
        if device.tag == "disk" and target is not None and target.get("dev") == which:
            return device
        if device.tag == "interface" and mac is not None and str(mac.get("address")).lower() == which:
            return device
    return None
