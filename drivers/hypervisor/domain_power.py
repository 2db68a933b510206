"""How a domain is paused, reset and restored. Blocking: runs in the link's threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt

from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor.domain_amend import like
from drivers.hypervisor.domain_seen import read

_DEFINED = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


def suspend(c: Any, name: str) -> bool:
    """Pause it. Raise Conflict (absent, off)."""
    domain = calls.require_active(c, name)
    return _ensure(domain, domain.suspend, paused=True)


def resume(c: Any, name: str) -> bool:
    """Let it go on. Raise Conflict (absent, off)."""
    domain = calls.require_active(c, name)
    return _ensure(domain, domain.resume, paused=False)


def _ensure(domain: Any, change: Callable[[], object], *, paused: bool) -> bool:
    def is_so() -> bool:
        return bool((domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED) == paused)

    if is_so():
        return False
    try:
        change()
    except libvirt.libvirtError as error:  # a killed call may still be under way, and have been faster
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not domain.isActive() or not is_so():
            raise
        return False
    return True


def reset(c: Any, name: str) -> bool:
    """Press the reset button; it runs afterwards. Raise Conflict (absent, off)."""
    domain = calls.require_active(c, name)
    domain.reset()
    if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()
    return True


def ask_to_reboot(c: Any, name: str) -> bool:
    """Ask the guest's agent, else press the power button; return whether there is an agent."""
    domain = calls.require_active(c, name)
    resume(c, name)
    if read(domain.XMLDesc(0)).agent:
        try:
            domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)
            return True
        except libvirt.libvirtError:
            pass  # it hangs, or went away
    # libvirt resets a guest that powers down after this, and calls it booted. It is called that already unless it was
    # paused since, which takes no time that a guest would notice.
    domain.suspend()
    domain.resume()
    domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)
    return False


def has_rebooted(c: Any, name: str, had_agent: bool) -> bool:
    """Say whether the guest went down: its agent is gone, or libvirt says that it was booted again."""
    domain = calls.require_active(c, name)
    if had_agent:
        return not read(domain.XMLDesc(0)).agent
    return bool(domain.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED])


def restore(c: Any, name: str, path: str) -> None:
    """Start from a saved file, with the disks and bridges of the present definition: it may be another host's file."""
    defined = calls.require(c, name).XMLDesc(_DEFINED)
    saved = c.saveImageGetXMLDesc(path, libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    c.restoreFlags(path, like(saved, defined), libvirt.VIR_DOMAIN_SAVE_RUNNING)
