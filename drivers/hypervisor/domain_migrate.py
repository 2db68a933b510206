"""How a domain is moved while it runs. `parameters` is pure, the others block.

Direct migration: we hold both connections and lead through its phases; the data goes straight from host to host.
When we die in the middle libvirtd gives up by itself (https://libvirt.org/migration.html#managed-direct-migration).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import libvirt

from core.errors import Conflict, Unsupported
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor.domain_amend import moved
from drivers.hypervisor.domain_copies import writable
from drivers.hypervisor.domain_seen import DomainSeen, read
from drivers.hypervisor.powers import Move

RUNNING, PAUSED, OFF, ABSENT = "running", "paused", "off", "absent"
FLAGS = (
    libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
)  # fmt: skip
UNSAFE = libvirt.VIR_MIGRATE_UNSAFE
_SECURE = libvirt.VIR_DOMAIN_XML_SECURE
_BLOCK_JOBS = {1: "pull", 2: "copy", 3: "commit", 4: "active commit", 5: "backup"}


def state(c: Any, name: str) -> tuple[str, int]:
    """Return running, paused, off or absent, and libvirt's reason."""
    domain = calls.lookup(c, name)
    if domain is None:
        return ABSENT, 0
    found, reason = domain.state()
    if not domain.isActive():
        return OFF, reason
    return (PAUSED if found == libvirt.VIR_DOMAIN_PAUSED else RUNNING), reason


def obstacles(c: Any, name: str) -> list[str]:
    """Return why a domain cannot be moved while it runs. Raise Conflict if absent."""
    domain = calls.require(c, name)
    return list(_obstacles(domain)) if domain.isActive() else ["it does not run"]


def _obstacles(domain: Any) -> Iterator[str]:
    seen = read(domain.XMLDesc(0))
    if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        yield "it is paused"
    if count := domain.snapshotNum():
        yield f"it has {count} snapshots, which lie inside its disks and are known to this host only"
    if calls.is_working(domain):
        yield "it is being saved, moved or backed up"
    for disk in writable(seen):
        if job := domain.blockJobInfo(disk.target):
            yield f"a block job ({_BLOCK_JOBS.get(job['type'], job['type'])}) of disk {disk.target} is under way"
    for device in seen.others:
        if device in ("hostdev", "filesystem", "shmem"):
            yield f"it has a {device} device, which ties it to its host"


def source_xml(c: Any, name: str, move: Move, domain_type: str) -> tuple[str, str]:
    """Return the XML that it is to run with on the target, and the one to be kept there."""
    domain = calls.require_active(c, name)
    if found := obstacles(c, name):
        raise Conflict(
            f"{name} cannot be moved while it runs: {'; '.join(found)}", calls.subject(name), {"obstacles": found},
            "see to that first, or move it shut down",
        )
    live = domain.XMLDesc(_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    return moved(live, move.spec), calls.wanted_xml(domain, move.spec, domain_type)


def parameters(seen: DomainSeen, move: Move, live_xml: str, kept_xml: str) -> dict[str, Any]:
    """Return libvirt's typed parameters. Raise Unsupported when a disk to be copied is not there."""
    found: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: live_xml,
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: kept_xml,
        libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{_bracketed(move.address)}",
    }
    if move.bandwidth_mib_s:
        found[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = move.bandwidth_mib_s
    if move.copy_disks:
        found[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = copied_targets(seen, move)
    return found


def copied_targets(seen: DomainSeen, move: Move) -> list[str]:
    """Return the targets of the disks to be copied. Raise Unsupported."""
    by_name = {disk.name or disk.target: disk.target for disk in seen.disks}
    by_name |= {one.name: disk.target for one in move.spec.disks if (disk := seen.disk(one.name, one.source))}
    if missing := [name for name in move.copy_disks if name not in by_name]:
        raise Unsupported(
            f"{move.spec.name} has no disk {', '.join(missing)} to copy", f"instance/{move.spec.id}",
            {"disks": sorted(by_name)}, "name disks that it has",
        )
    return [by_name[name] for name in move.copy_disks]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def run(c: Any, name: str, target: Any, flags: int, found: dict[str, Any]) -> None:
    """Move it. Blocks until it is there."""
    calls.require_active(c, name).migrate3(target, found, flags)


def is_unsafe(error: object) -> bool:
    """Say whether libvirt refused because it does not know the disks' file system as a shared one."""
    cause = getattr(error, "evidence", {})
    return bool(cause.get("libvirt_code") == libvirt.VIR_ERR_MIGRATE_UNSAFE)


def resume_if_paused(c: Any, name: str) -> bool:
    """Let a source go on that was left paused at the very end of a migration which nobody finished."""
    domain = calls.lookup(c, name)
    if domain is None or not domain.isActive() or domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
        return False
    domain.resume()
    return True


def clean_source(c: Any, name: str, marks: calls.Marks) -> None:
    """Take away what is left on the source of a domain that runs on its target."""
    domain = calls.lookup(c, name)
    if domain is None:
        return
    if domain.isActive():
        domain.destroy()
    calls.undefine(c, name, marks)
