"""What a foreign domain is, and how it gets our mark. `found` is pure, the others block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import libvirt

from core.errors import Conflict, Invalid, Unsupported
from core.ids import from_host, on_host
from core.states import InstanceKind, PowerState
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor import domain_stats
from drivers.hypervisor.base import DiskAttachment, NicAttachment
from drivers.hypervisor.domain import NAMESPACE
from drivers.hypervisor.domain_calls import Marks
from drivers.hypervisor.domain_copies import writable
from drivers.hypervisor.domain_seen import DomainSeen, read
from drivers.hypervisor.powers import Found

_ELEMENT = libvirt.VIR_DOMAIN_METADATA_ELEMENT
_MIB = 2**20


def found(
    domain: DomainSeen, power: PowerState, bytes_by_target: dict[str, int], problems: tuple[str, ...] = ()
) -> Found:
    """Return a domain as it could be adopted: its disks are named root, data1, …, its NICs eth0, …"""
    disks = tuple(
        DiskAttachment(
            f"data{number}" if number else "root", "file", disk.source, disk.format,
            -(-bytes_by_target.get(disk.target, 0) // _MIB), disk.bus,
        )
        for number, disk in enumerate(one for one in writable(domain) if one.kind == "file")
    )  # fmt: skip
    nics = tuple(
        NicAttachment(f"eth{number}", nic.mac, nic.bridge, nic.model)
        for number, nic in enumerate(one for one in domain.nics if one.kind == "bridge")
    )
    return Found(
        domain.name, InstanceKind.VM, power, domain.vcpus, domain.memory_kib // 1024, disks, nics,
        (*problems, *_problems(domain)),
    )  # fmt: skip


def _problems(domain: DomainSeen) -> Iterator[str]:
    for disk in domain.disks:
        if disk.device in ("cdrom", "floppy"):
            if disk.source:
                yield f"{disk.source} is in drive {disk.target}: eject it"
        elif disk.kind != "file":
            yield f"disk {disk.target} is not a file but {disk.kind} {disk.source}"
        elif disk.format not in ("qcow2", "raw"):
            yield f"disk {disk.target} is {disk.format}, not qcow2 or raw"
        elif disk.read_only:
            yield f"disk {disk.target} is read-only: detach it"
    for nic in domain.nics:
        if nic.kind != "bridge":
            yield f"NIC {nic.mac} is not on a bridge but on a {nic.kind}"
    for device in domain.others:
        yield f"it has a {device} device, which ties it to its host"


def describe(c: Any, name: str, marks: Marks) -> Found:
    """Return what a domain of the host is. Raise NotFound."""
    domain = calls.require_known(c, name)
    seen = read(domain.XMLDesc(0))
    problems: list[str] = []
    if not domain.isPersistent():
        problems.append("it is defined only while it runs: define it (virsh define)")
    if domain.hasManagedSaveImage():
        problems.append("its memory is saved by libvirt: start it first")
    if owner := marks.owner(domain, fresh=True):
        problems.append(f"it is instance {owner} already")
    sizes = {disk.target: _size(domain, disk.target) for disk in writable(seen)}
    return found(seen, calls.stats(c, name, marks).power, sizes, tuple(problems))


def _size(domain: Any, target: str) -> int:
    try:
        return int(domain.blockInfo(target)[0])
    except libvirt.libvirtError:  # the file is gone
        return 0


def adopt(c: Any, name: str, instance_id: str, marks: Marks) -> bool:
    """Mark a domain. Raise NotFound, Conflict (another instance's), Unsupported (it has problems), Invalid (id)."""
    domain = calls.require_known(c, name)
    if from_host(on_host(instance_id)) is None:
        raise Invalid(f"{instance_id!r} is not the id of an instance", calls.subject(name))
    owner = marks.owner(domain, fresh=True)
    if owner == instance_id:
        return False
    if owner is not None:
        raise Conflict(
            f"{name} is instance {owner} already", calls.subject(name), {"owner": owner}, "disown it there first"
        )
    if problems := describe(c, name, marks).problems:
        raise Unsupported(
            f"{name} cannot be managed: {'; '.join(problems)}", calls.subject(name), {"problems": list(problems)},
            "change that first",
        )
    _set(domain, f'<instance id="{instance_id}"/>')  # libvirt itself puts it into our namespace
    marks.owner(domain, fresh=True)
    return True


def disown(c: Any, name: str, marks: Marks) -> bool:
    """Take the mark away. Raise NotFound, Conflict (rackflow made it)."""
    domain = calls.require_known(c, name)
    if domain_stats.ours(name, domain.UUIDString()) is not None:
        raise Conflict(f"{name} was made by rackflow, not adopted", calls.subject(name), fix="delete the instance")
    if marks.owner(domain, fresh=True) is None:
        return False
    _set(domain, None)
    marks.owner(domain, fresh=True)
    return True


def _set(domain: Any, mark: str | None) -> None:
    where = libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)
    domain.setMetadata(_ELEMENT, mark, "rackflow" if mark else None, NAMESPACE, where)
