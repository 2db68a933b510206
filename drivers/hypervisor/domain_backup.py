"""How a running domain's disks are copied. Blocking: runs in the link's threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import libvirt
from lxml import etree

from core.errors import HostFault, Invalid
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor.domain_copies import backup_xml, checkpoint_xml, label, writable
from drivers.hypervisor.domain_seen import DiskSeen, DomainSeen, read
from drivers.hypervisor.domain_snapshots import checkpoint_of, drop_stray

_COMPLETED = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED
_ENDED_WELL = (libvirt.VIR_DOMAIN_JOB_NONE, libvirt.VIR_DOMAIN_JOB_COMPLETED)


@dataclass(frozen=True)
class Plan:
    """What is copied. since: by target, the checkpoint that an increment goes on from."""

    domain: DomainSeen
    running: bool
    disks: tuple[DiskSeen, ...]
    since: Mapping[str, str]


def plan(c: Any, name: str, since: str, disks: Sequence[str]) -> Plan:
    """Return what is to be copied. Raise Conflict (absent), Invalid (no such disk)."""
    domain = calls.require(c, name)
    seen, running = read(domain.XMLDesc(0)), bool(domain.isActive())
    chosen = tuple(disk for disk in writable(seen) if not disks or label(disk) in disks)
    if missing := set(disks) - {label(disk) for disk in chosen}:
        raise Invalid(
            f"{name} has no writable disk {', '.join(sorted(missing))}", calls.subject(name),
            {"disks": [label(disk) for disk in writable(seen)]}, "name disks that it has",
        )
    marked = _marked(domain, since) if since and running else set()
    return Plan(seen, running, chosen, {disk.target: since for disk in chosen if disk.target in marked})


def _marked(domain: Any, since: str) -> set[str]:
    """Return the targets that a checkpoint knows."""
    there = checkpoint_of(domain, since)
    return set() if there is None else _bitmaps(there.getXMLDesc())


def _bitmaps(xml: str) -> set[str]:
    return {
        str(disk.get("name")) for disk in etree.fromstring(xml).iterfind("disks/disk")
        if disk.get("checkpoint") == "bitmap"
    }  # fmt: skip


def begin(c: Any, name: str, made: Plan, files: Mapping[str, str], checkpoint: str, *, whole: bool) -> None:
    """Begin to copy; whole: leave `since` aside."""
    domain = calls.require_active(c, name)
    mark = checkpoint_xml(made.domain, checkpoint, made.disks)
    xml = backup_xml(made.domain, files, {} if whole else made.since)
    try:
        domain.backupBegin(xml, mark or None, 0)
    except libvirt.libvirtError as error:
        if "Bitmap already exists" not in str(error):
            raise
        drop_stray(domain, mark)
        domain.backupBegin(xml, mark or None, 0)


def ended(c: Any, name: str) -> bool:
    """Say whether the copy has ended. Raise HostFault when it ended badly."""
    domain = calls.require_active(c, name)
    if calls.is_working(domain):
        return False
    stats = domain.jobStats(_COMPLETED)
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) not in _ENDED_WELL or stats.get("success") == 0:
        raise HostFault(
            f"the backup of {name} failed: {stats.get('errmsg', 'no reason given')}", calls.subject(name),
            {"job": {str(key): value for key, value in stats.items()}}, "see whether the datastore is full",
        )
    return True


def _abort(domain: Any) -> None:
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it has just ended
            raise


def abort_backup(c: Any, name: str) -> None:
    """End a backup that a killed call left behind. Raise Busy for another job."""
    domain = calls.require(c, name)
    if not domain.isActive() or not calls.is_working(domain):
        return
    if domain.jobStats().get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        _abort(domain)
    calls.require_idle(c, name)
