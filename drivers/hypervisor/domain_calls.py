"""What is done with one domain over a libvirt connection. Blocking: runs in the link's threads."""

from __future__ import annotations

import time
from typing import Any

import libvirt
from lxml import etree

from core.errors import Busy, Conflict, NotFound
from core.ids import from_host
from core.states import InstanceKind, PowerState
from drivers.hypervisor import domain_stats
from drivers.hypervisor.base import InstanceSpec, ObservedInstance
from drivers.hypervisor.domain import NAMESPACE, digest, domain_xml, machine_of
from drivers.hypervisor.domain_amend import amended
from drivers.hypervisor.domain_seen import places

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)  # fmt: skip
# Statistics that need a QEMU process which somebody else is talking to are left out rather than waited for.
_STATS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_ELEMENT = libvirt.VIR_DOMAIN_METADATA_ELEMENT
_REMEMBER_S = 60.0


class Marks:
    """Which foreign domains were adopted. Each look is a call, so it is remembered for a while, by UUID."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, str | None]] = {}

    def owner(self, domain: Any, *, fresh: bool = False) -> str | None:
        """Return the id of the instance that a domain is, None if it is not ours. Blocks, for foreign ones."""
        name, uuid = domain.name(), domain.UUIDString()
        if made := domain_stats.ours(name, uuid):
            return made
        until, known = self._known.get(uuid, (0.0, None))
        if fresh or time.monotonic() > until:
            known = _marked(domain).get("id")
            self._known[uuid] = (time.monotonic() + _REMEMBER_S, known)
        return known



def subject(name: str) -> str:
    """Return "instance/ID" for a domain's name."""
    return f"instance/{from_host(name) or name}"


def lookup(c: Any, name: str) -> Any:
    """Return the domain, or None."""
    try:
        return c.lookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def require(c: Any, name: str) -> Any:
    """Return the domain. Raise Conflict if there is none."""
    domain = lookup(c, name)
    if domain is None:
        raise Conflict(
            f"there is no {name} on the host", subject(name), fix="deploy it again, or reconcile the host"
        )
    return domain


def require_known(c: Any, name: str) -> Any:
    """Return the domain. Raise NotFound."""
    domain = lookup(c, name)
    if domain is None:
        raise NotFound(f"there is no {name} on the host", subject(name))
    return domain


def require_running(c: Any, name: str) -> Any:
    """Return the domain. Raise NotFound, Conflict if it does not run."""
    return _active(require_known(c, name), name)


def require_active(c: Any, name: str) -> Any:
    """Return the domain. Raise Conflict if there is none, or if it does not run."""
    return _active(require(c, name), name)


def is_working(domain: Any) -> bool:
    """Say whether a job (a save, a move, a backup) of a running domain is under way."""
    try:
        return bool(domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)
    except libvirt.libvirtError as error:
        if "job data missing" not in str(error):
            raise
        return True  # a backup that is just beginning or ending (libvirt 9.0): libvirt has the job, and not its figures


def require_idle(c: Any, name: str) -> None:
    """Raise Busy while a job of the domain is under way, Conflict if it is absent."""
    domain = require(c, name)
    if domain.isActive() and is_working(domain):
        raise Busy(
            f"{name} is being saved, moved or backed up", subject(name),
            fix="wait until that has ended, or abort it: virsh domjobabort",
        )


def _active(domain: Any, name: str) -> Any:
    if not domain.isActive():
        raise Conflict(f"{name} does not run", subject(name), fix="start it first")
    return domain


def _require_ours(domain: Any, name: str, marks: Marks, instance_id: str = "") -> None:
    uuid, owner = domain.UUIDString(), marks.owner(domain, fresh=True)
    if owner is None or owner != (instance_id or owner):
        raise Conflict(
            f"{name} was not made by rackflow", subject(name), {"uuid": uuid, "marked": owner},
            "adopt, rename or remove that domain",
        )


def all_stats(c: Any, groups: int, marks: Marks) -> list[ObservedInstance]:
    """Return all domains, by one call (and one for each foreign domain, now and then)."""
    rows = c.getAllDomainStats(groups, _STATS)
    return [_observed(domain, stats, marks) for domain, stats in rows]


def stats(c: Any, name: str, marks: Marks, groups: int = domain_stats.GROUPS) -> ObservedInstance:
    """Return one domain; power ABSENT if there is none."""
    domain = lookup(c, name)
    if domain is None:
        return ObservedInstance(name, PowerState.ABSENT, InstanceKind.VM, None)
    rows = c.domainListGetStats([domain], groups, _STATS)
    if not rows:  # it went in between
        return ObservedInstance(name, PowerState.ABSENT, InstanceKind.VM, None)
    ((found, values),) = rows
    return _observed(found, values, marks)


def _observed(domain: Any, values: dict[str, Any], marks: Marks) -> ObservedInstance:
    return domain_stats.observed(domain.name(), domain.UUIDString(), values, marks.owner(domain))


def define(c: Any, spec: InstanceSpec, domain_type: str, marks: Marks) -> bool:
    """Define unless what is there has the same digest. Raise Conflict if the name is somebody else's."""
    domain = lookup(c, spec.name)
    if domain is None:
        c.defineXML(domain_xml(spec, domain_type))
        return True
    _require_ours(domain, spec.name, marks, spec.id)
    if _marked(domain).get("digest") == digest(spec, domain_type):
        return False
    c.defineXML(wanted_xml(domain, spec, domain_type))
    return True


def wanted_xml(domain: Any, spec: InstanceSpec, domain_type: str) -> str:
    """Return the definition that a domain which is there is to get: its devices stay where they are."""
    if domain_stats.ours(domain.name(), domain.UUIDString()) is None:  # adopted: only what spec says is changed
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        return amended(xml, spec, domain_type)
    return domain_xml(spec, domain_type, places(domain.XMLDesc(0), machine_of(spec)))


def _marked(domain: Any) -> dict[str, str]:
    """Return what our mark in a definition says; {} if there is none."""
    try:
        found = etree.fromstring(domain.metadata(_ELEMENT, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG))
    except libvirt.libvirtError as error:  # taken away since it was looked up, edited by hand, or not persistent
        if error.get_error_code() in (
            libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_OPERATION_INVALID
        ):  # fmt: skip
            return {}
        raise
    return {str(key): str(value) for key, value in found.items()}


def start(c: Any, name: str) -> bool:
    """Start, or resume what was paused. Raise Conflict if absent."""
    domain = require(c, name)
    try:
        domain.create()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not domain.isActive():
            raise
        if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
            return False
        domain.resume()
    return True


def is_active(c: Any, name: str) -> bool:
    """Say whether it runs. Raise Conflict if absent."""
    return bool(require(c, name).isActive())


def ask_to_shut_down(c: Any, name: str) -> None:
    """Ask the guest agent; without one press the power button. A guest that hears neither is cut off later."""
    domain = require(c, name)
    for way in (libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT, libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN):
        try:
            domain.shutdownFlags(way)
            return
        except libvirt.libvirtError:
            continue


def cut_power(c: Any, name: str) -> bool:
    """End its QEMU process: SIGTERM, and SIGKILL when that does not help."""
    try:
        require(c, name).destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it had gone down by itself
            raise
    return True


def undefine(c: Any, name: str, marks: Marks) -> bool:
    """Take the definition away; absent is fine. Raise Conflict if it runs or is not ours."""
    domain = lookup(c, name)
    if domain is None:
        return False
    _require_ours(domain, name, marks)
    try:
        if domain.isActive():
            raise Conflict(f"{name} runs", subject(name), fix="stop it first")
        domain.undefineFlags(_UNDEFINE)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # somebody was faster
            raise
    return True
