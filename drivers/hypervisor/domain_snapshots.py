"""How a domain's snapshots and checkpoints are made and taken away. Blocking: runs in the link's threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import libvirt
from lxml import etree

from core.errors import Conflict, NotFound, Unsupported
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor.domain_copies import label, snapshot_xml, writable
from drivers.hypervisor.domain_seen import DomainSeen, read
from drivers.hypervisor.powers import SnapshotSeen

_RUNNING = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING
_GONE = (libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT, libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT)


def seen(c: Any, name: str) -> list[SnapshotSeen]:
    """Return a domain's snapshots, oldest first. Raise Conflict if absent."""
    found = [etree.fromstring(one.getXMLDesc()) for one in calls.require(c, name).listAllSnapshots()]
    made = {one: int(one.findtext("creationTime") or 0) for one in found}
    return [
        SnapshotSeen(
            str(one.findtext("name")), one.findtext("state") in ("running", "paused"),
            datetime.fromtimestamp(made[one], UTC).isoformat() if made[one] else "",
        )
        for one in sorted(found, key=lambda one: (made[one], str(one.findtext("name"))))
    ]  # fmt: skip


def plan(c: Any, name: str, snapshot: str, *, memory: bool) -> DomainSeen | None:
    """Return the domain if the snapshot is to be made, None if it is there. Raise Unsupported, Conflict, Busy."""
    domain = calls.require(c, name)
    if _snapshot(domain, snapshot) is not None:
        calls.require_idle(c, name)  # libvirt lists one that is still being made, and may fail yet
        return None
    about, running = calls.subject(name), bool(domain.isActive())
    found = read(domain.XMLDesc(0))
    if running and not memory:
        raise Unsupported(
            f"{name} runs: a snapshot of its disks alone would be of no use", about,
            fix="take one with memory, or shut it down first",
        )
    if memory and not running:
        raise Conflict(f"{name} does not run, so there is no memory", about, fix="take one without memory")
    if raw := [label(disk) for disk in writable(found) if disk.format != "qcow2"]:
        raise Unsupported(
            f"disks of {name} are not qcow2: {', '.join(raw)}", about, {"disks": raw}, "back it up instead"
        )
    return found


def take(c: Any, name: str, snapshot: str, found: DomainSeen, *, memory: bool) -> None:
    """Make it."""
    calls.require(c, name).snapshotCreateXML(snapshot_xml(found, snapshot, memory=memory), 0)


def revert(c: Any, name: str, snapshot: str) -> None:
    """Go back. Raise NotFound, Conflict when it has other disks now."""
    domain = calls.require(c, name)
    there = _snapshot(domain, snapshot)
    if there is None:
        raise NotFound(f"{name} has no snapshot {snapshot}", calls.subject(name))
    root = etree.fromstring(there.getXMLDesc())
    memory = root.findtext("state") in ("running", "paused")
    _require_same_disks(domain, root, name, snapshot)
    flags = _RUNNING if memory or domain.isActive() else 0
    try:
        domain.revertToSnapshot(there, flags)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_SNAPSHOT_REVERT_RISKY:
            raise
        # Its QEMU was started otherwise than the one of the snapshot (grown, say): a new one has to be.
        domain.revertToSnapshot(there, flags | libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE)


def drop(c: Any, name: str, snapshot: str) -> bool:
    """Take a snapshot away; absent is fine."""
    there = _snapshot(calls.require(c, name), snapshot)
    if there is None:
        return False
    with _may_be_gone():
        there.delete(0)
    return True


def drop_checkpoint(c: Any, name: str, checkpoint: str) -> list[str] | None:
    """Take a checkpoint away; None if it is absent, else the disk files whose bitmap stayed: those of what is off."""
    domain = calls.require(c, name)
    there = checkpoint_of(domain, checkpoint)
    if there is None:
        return None
    if domain.isActive() and _delete_with_bitmap(there):
        return []
    files = [disk.source for disk in writable(read(domain.XMLDesc(0))) if disk.format == "qcow2"]
    with _may_be_gone():
        there.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    return [] if domain.isActive() else files


def _delete_with_bitmap(there: Any) -> bool:
    """Take a running domain's checkpoint away; say no if its bitmap is broken, as it is after QEMU was killed."""
    try:
        with _may_be_gone():
            there.delete(0)
    except libvirt.libvirtError as error:
        if "bitmap" not in str(error):
            raise
        return False
    return True


def checkpoint_of(domain: Any, checkpoint: str) -> Any:
    """Return a checkpoint, or None."""
    with _may_be_gone():
        return domain.checkpointLookupByName(checkpoint)
    return None


def drop_stray(domain: Any, xml: str) -> None:
    """Take away bitmaps whose checkpoint libvirt does not know: it was killed, or the disk came from elsewhere."""
    root = etree.fromstring(xml)
    etree.SubElement(root, "creationTime").text = "1"
    root.append(etree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
    stray = domain.checkpointCreateXML(
        etree.tostring(root, encoding="unicode"), libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
    )
    stray.delete(0)


def checkpoints_xml(c: Any, name: str) -> list[str]:
    """Return a domain's checkpoints, oldest first, for `know_checkpoints` on another host."""
    found = calls.require(c, name).listAllCheckpoints(libvirt.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL)
    return [one.getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_SECURE) for one in found]


def know_checkpoints(c: Any, name: str, found: list[str]) -> None:
    """Make libvirt know checkpoints whose bitmaps came with the disks; the others are left out."""
    domain = calls.require(c, name)
    how = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE | libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
    for xml in found:
        with suppress(libvirt.libvirtError):
            domain.checkpointCreateXML(xml, how)


def checkpoints(c: Any, name: str) -> list[str]:
    """Return the names of a domain's checkpoints. Raise Conflict if absent."""
    return [one.getName() for one in calls.require(c, name).listAllCheckpoints()]


def _snapshot(domain: Any, snapshot: str) -> Any:
    with _may_be_gone():
        return domain.snapshotLookupByName(snapshot)
    return None


def _require_same_disks(domain: Any, snapshot: etree._Element, name: str, called: str) -> None:
    now = {disk.target for disk in writable(read(domain.XMLDesc(0)))}
    then = {
        str(disk.get("name")) for disk in snapshot.iterfind("disks/disk") if disk.get("snapshot") == "internal"
    }
    if now != then:
        raise Conflict(
            f"{name} has other disks now than in snapshot {called}", calls.subject(name),
            {"now": sorted(now), "then": sorted(then)}, "attach or detach disks until they are the same",
        )


@contextmanager
def _may_be_gone() -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _GONE:
            raise
