"""XML of snapshots, checkpoints and backups. Pure. Format: https://libvirt.org/formatsnapshot.html, …backup.html

The seed and other raw or read-only disks can take no part in snapshots and checkpoints: each is named with "no".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lxml import etree

from drivers.hypervisor.domain_seen import DiskSeen, DomainSeen


def writable(domain: DomainSeen) -> list[DiskSeen]:
    """Return the disks that hold an instance's data."""
    return [disk for disk in domain.disks if disk.device == "disk" and not disk.read_only]


def label(disk: DiskSeen) -> str:
    """Return what a disk is called: its name, or (adopted domains) its target."""
    return disk.name or disk.target


def snapshot_xml(domain: DomainSeen, snapshot: str, *, memory: bool) -> str:
    """Return an internal snapshot of all writable disks, and of the memory."""
    root = etree.Element("domainsnapshot")
    etree.SubElement(root, "name").text = snapshot
    etree.SubElement(root, "memory", {"snapshot": "internal" if memory else "no"})
    kept = {disk.target for disk in writable(domain)}
    disks = etree.SubElement(root, "disks")
    for disk in domain.disks:
        etree.SubElement(disks, "disk", {"name": disk.target, "snapshot": "internal" if disk.target in kept else "no"})
    return etree.tostring(root, encoding="unicode")


def checkpoint_xml(domain: DomainSeen, checkpoint: str, chosen: Iterable[DiskSeen]) -> str:
    """Return a checkpoint of the chosen disks, as far as they are qcow2; "" if none of them is."""
    marked = {disk.target for disk in chosen if disk.format == "qcow2"}
    if not marked:
        return ""
    root = etree.Element("domaincheckpoint")
    etree.SubElement(root, "name").text = checkpoint
    disks = etree.SubElement(root, "disks")
    for disk in domain.disks:
        how = "bitmap" if disk.target in marked else "no"
        etree.SubElement(disks, "disk", {"name": disk.target, "checkpoint": how})
    return etree.tostring(root, encoding="unicode")


def backup_xml(domain: DomainSeen, files: Mapping[str, str], since: Mapping[str, str]) -> str:
    """Return a push backup. files: by target; since: the checkpoint that a target's increment goes on from."""
    root = etree.Element("domainbackup", {"mode": "push"})
    common = set(since.values())
    if common:
        etree.SubElement(root, "incremental").text = common.pop()
    disks = etree.SubElement(root, "disks")
    for disk in domain.disks:
        if disk.target not in files:
            etree.SubElement(disks, "disk", {"name": disk.target, "backup": "no"})
            continue
        how = {"backupmode": "full"}
        if disk.target in since:
            how = {"backupmode": "incremental", "incremental": since[disk.target]}
        one = etree.SubElement(disks, "disk", {"name": disk.target, "backup": "yes", "type": "file", **how})
        etree.SubElement(one, "driver", {"type": "qcow2"})
        etree.SubElement(one, "target", {"file": files[disk.target]})
    return etree.tostring(root, encoding="unicode")
