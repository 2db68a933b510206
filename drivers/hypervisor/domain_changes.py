"""What has to be done to a running domain to bring it to a spec. Pure; domain_live.py does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from lxml import etree

from core.errors import Unsupported
from drivers.hypervisor.base import DiskAttachment, InstanceSpec
from drivers.hypervisor.domain import (
    CPU_PERIOD_US,
    ceilings,
    disk_element,
    nic_element,
    quota_us,
    target_name,
    vcpus_of,
)
from drivers.hypervisor.domain_seen import DiskSeen, DomainSeen, NicSeen

_MIB = 2**20


@dataclass(frozen=True)
class Changes:
    """In the order in which they are made. grow: (target, bytes); detach: targets of disks and MACs of NICs."""

    grow: tuple[tuple[str, int], ...] = ()
    attach: tuple[str, ...] = ()  # device XML
    update: tuple[str, ...] = ()  # device XML
    detach: tuple[str, ...] = ()
    vcpus: int = 0  # 0: as it is
    quota_us: int | None = None  # None: as it is; -1: no limit
    memory_kib: int = 0  # 0: as it is

    def __bool__(self) -> bool:
        return self != Changes()


def changes(
    live: DomainSeen, bytes_by_target: Mapping[str, int], spec: InstanceSpec, taken: frozenset[str] = frozenset()
) -> Changes:
    """Return the difference. bytes_by_target: sizes of disks; taken: targets of the definition.

    Raise Unsupported when something of it cannot be done while it runs, Invalid (options).
    """
    ceilings(spec)  # what `define` would refuse must not be seen only after the changes
    refused = [*_refused_disks(live, spec), *_refused_nics(live, spec), *_refused_sizes(live, spec)]
    if refused:
        raise Unsupported(
            f"{spec.name} runs, and that needs it off: {'; '.join(refused)}", f"instance/{spec.id}",
            {"refused": refused}, "shut it down, change it, start it again",
        )
    vcpus, memory_kib = vcpus_of(spec), spec.memory_mib * 1024
    return Changes(
        grow=tuple(_grow(live, bytes_by_target, spec)),
        attach=(*_new_disks(live, spec, taken), *_new_nics(live, spec)),
        update=tuple(_moved_nics(live, spec)),
        detach=tuple(_gone(live, spec)),
        vcpus=vcpus if vcpus != live.vcpus else 0,
        quota_us=_quota(live, spec),
        memory_kib=memory_kib if memory_kib != live.memory_kib else 0,
    )


def pairs(live: DomainSeen, spec: InstanceSpec) -> list[tuple[DiskAttachment, DiskSeen | None]]:
    """Return each wanted disk with the one that is there."""
    return [(disk, live.disk(disk.name, disk.source)) for disk in spec.disks]


def free_targets(taken: frozenset[str]) -> Iterator[str]:
    """Yield targets for writable disks; vdz and below are left to the seed."""
    return (name for name in map(target_name, count()) if name not in taken and name != "vdz")


def _refused_disks(live: DomainSeen, spec: InstanceSpec) -> Iterator[str]:
    for disk, there in pairs(live, spec):
        if there is None:
            continue
        if (there.source, there.format) != (disk.source, disk.format):
            yield f"disk {disk.name} is to become {disk.source} ({disk.format}), it is {there.source} ({there.format})"
        elif (there.bus, there.read_only) != (disk.bus, disk.read_only):
            yield f"disk {disk.name} is to change its bus or become {'read-only' if disk.read_only else 'writable'}"


def _refused_nics(live: DomainSeen, spec: InstanceSpec) -> Iterator[str]:
    there = _nics(live)
    for nic in spec.nics:
        seen = there.get(nic.mac.lower())
        if seen is not None and seen.model != nic.model:
            yield f"NIC {nic.name} is to become an {nic.model}, it is an {seen.model}"


def _refused_sizes(live: DomainSeen, spec: InstanceSpec) -> Iterator[str]:
    vcpus = vcpus_of(spec)
    if vcpus > live.vcpus_max:
        yield f"{vcpus} vCPUs, it was started for at most {live.vcpus_max} (option cpu_max)"
    if vcpus < live.vcpus:  # QEMU under emulation dies of it (docs/facts/kvm.md), and a guest may refuse it anywhere
        yield f"{vcpus} vCPUs, fewer than its {live.vcpus}"
    if spec.memory_mib * 1024 > live.memory_max_kib:
        yield f"{spec.memory_mib} MiB, it was started for at most {live.memory_max_kib // 1024} (option memory_max_mib)"


def _grow(live: DomainSeen, sizes: Mapping[str, int], spec: InstanceSpec) -> Iterator[tuple[str, int]]:
    for disk, there in pairs(live, spec):
        # A size that is not in whole MiB was rounded up; a larger one stays: disks never shrink.
        if there is not None and not disk.read_only and disk.size_mib > -(-sizes.get(there.target, 0) // _MIB):
            yield there.target, disk.size_mib * _MIB


def _new_disks(live: DomainSeen, spec: InstanceSpec, taken: frozenset[str]) -> Iterator[str]:
    free = free_targets(taken | {disk.target for disk in live.disks})
    for disk, there in pairs(live, spec):
        if there is None:
            yield _text(disk_element(disk, next(free)))


def _new_nics(live: DomainSeen, spec: InstanceSpec) -> Iterator[str]:
    there = _nics(live)
    return (_text(nic_element(nic)) for nic in spec.nics if nic.mac.lower() not in there)


def _moved_nics(live: DomainSeen, spec: InstanceSpec) -> Iterator[str]:
    there = _nics(live)
    for nic in spec.nics:
        seen = there.get(nic.mac.lower())
        if seen is not None and seen.bridge != nic.bridge:
            yield _text(nic_element(nic))


def _gone(live: DomainSeen, spec: InstanceSpec) -> Iterator[str]:
    kept = {there.target for _, there in pairs(live, spec) if there is not None}
    yield from (disk.target for disk in live.disks if disk.target not in kept and disk.device == "disk")
    wanted = {nic.mac.lower() for nic in spec.nics}
    yield from (nic.mac for nic in live.nics if nic.mac not in wanted)


def _quota(live: DomainSeen, spec: InstanceSpec) -> int | None:
    wanted = quota_us(spec)
    there = live.quota_us * CPU_PERIOD_US // live.period_us if live.quota_us and live.period_us else live.quota_us
    return None if wanted == there else wanted or -1


def _nics(live: DomainSeen) -> dict[str, NicSeen]:
    return {nic.mac: nic for nic in live.nics}


def _text(element: etree._Element) -> str:
    return etree.tostring(element, encoding="unicode")
