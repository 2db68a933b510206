"""What is done with one domain over a libvirt connection. Blocking: runs in the link's threads."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import libvirt

from core.errors import Conflict, NotFound
from core.ids import from_host
from core.states import InstanceKind, PowerState
from drivers.hypervisor import domain_stats
from drivers.hypervisor.base import ObservedInstance
from drivers.hypervisor.domain import NAMESPACE

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)  # fmt: skip
# Statistics that need a QEMU process which somebody else is talking to are left out rather than waited for.
_STATS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


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


def require_running(c: Any, name: str) -> Any:
    """Return the domain. Raise NotFound, Conflict if it does not run."""
    domain = lookup(c, name)
    if domain is None:
        raise NotFound(f"there is no {name} on the host", subject(name))
    if not domain.isActive():
        raise Conflict(f"{name} does not run", subject(name), fix="start it first")
    return domain


def _require_ours(domain: Any, name: str) -> None:
    uuid = domain.UUIDString()
    if domain_stats.ours(name, uuid) is None:
        raise Conflict(
            f"{name} was not made by rackflow", subject(name), {"uuid": uuid}, "rename or remove that domain"
        )


def all_stats(c: Any, groups: int) -> list[ObservedInstance]:
    """Return all domains, by one call."""
    rows = c.getAllDomainStats(groups, _STATS)
    return [domain_stats.observed(domain.name(), domain.UUIDString(), stats) for domain, stats in rows]


def stats(c: Any, name: str) -> ObservedInstance:
    """Return one domain; power ABSENT if there is none."""
    domain = lookup(c, name)
    if domain is None:
        return ObservedInstance(name, PowerState.ABSENT, InstanceKind.VM, None)
    ((found, values),) = c.domainListGetStats([domain], domain_stats.GROUPS, _STATS)
    return domain_stats.observed(found.name(), found.UUIDString(), values)


def define(c: Any, name: str, xml: str) -> bool:
    """Define unless what is there has the same digest. Raise Conflict if the name is somebody else's."""
    domain = lookup(c, name)
    if domain is not None:
        _require_ours(domain, name)
        if _digest_of(domain) == _digest(xml):
            return False
    c.defineXML(xml)
    return True


def _digest(xml: str) -> str:
    found = ElementTree.fromstring(xml).find(f"metadata/{{{NAMESPACE}}}instance")
    return found.get("digest", "") if found is not None else ""


def _digest_of(domain: Any) -> str:
    kind, where = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_CONFIG
    try:
        return ElementTree.fromstring(domain.metadata(kind, NAMESPACE, where)).get("digest", "")
    except libvirt.libvirtError as error:  # taken away since it was looked up, or edited by hand
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_METADATA):
            return ""
        raise


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


def undefine(c: Any, name: str) -> bool:
    """Take the definition away; absent is fine. Raise Conflict if it runs or is not ours."""
    domain = lookup(c, name)
    if domain is None:
        return False
    _require_ours(domain, name)
    try:
        if domain.isActive():
            raise Conflict(f"{name} runs", subject(name), fix="stop it first")
        domain.undefineFlags(_UNDEFINE)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # somebody was faster
            raise
    return True
