"""libvirt's errors to ours: the one place. Codes: https://libvirt.org/html/libvirt-virterror.html"""

from __future__ import annotations

import re

import libvirt

from core.errors import (
    Busy,
    Conflict,
    CredentialRejected,
    HostFault,
    Invalid,
    NoCapacityNow,
    NotFound,
    RackflowError,
    Unreachable,
    Unsupported,
)  # fmt: skip

_BY_CODE: dict[int, type[RackflowError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: NotFound,
    libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT: NotFound,
    libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT: NotFound,
    libvirt.VIR_ERR_OPERATION_INVALID: Conflict,
    libvirt.VIR_ERR_DOM_EXIST: Conflict,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: Busy,  # "cannot acquire state change lock"
    libvirt.VIR_ERR_RESOURCE_BUSY: Busy,
    libvirt.VIR_ERR_OPERATION_ABORTED: Busy,  # a job that somebody gave up
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: Busy,  # also: not connected yet
    libvirt.VIR_ERR_AGENT_UNSYNCED: Busy,
    libvirt.VIR_ERR_RPC: Unreachable,
    libvirt.VIR_ERR_NO_CONNECT: Unreachable,
    libvirt.VIR_ERR_INVALID_CONN: Unreachable,
    libvirt.VIR_ERR_AUTH_FAILED: CredentialRejected,
    libvirt.VIR_ERR_AUTH_CANCELLED: CredentialRejected,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: CredentialRejected,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: Unsupported,
    libvirt.VIR_ERR_NO_SUPPORT: Unsupported,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: Unsupported,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: Unsupported,
    libvirt.VIR_ERR_XML_ERROR: Invalid,
    libvirt.VIR_ERR_XML_DETAIL: Invalid,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: Invalid,
}

# What a code alone does not tell. Texts of libvirt 9.0 and QEMU 7.2, as seen.
_BY_TEXT: tuple[tuple[str, type[RackflowError], str], ...] = (
    (r"Unable to (read from|write to) monitor", Busy, "it has just gone off"),  # its QEMU, and not libvirtd
    (r"client socket is closed|End of file while|Cannot (recv|write) data|Broken pipe|Connection reset", Unreachable,
     "check libvirtd on the host"),
    (r"Cannot allocate memory", NoCapacityNow, "the host's memory is used up: place it elsewhere"),
    (r"already exists with uuid|is already (running|active)", Conflict, "see who else works on this host"),
    (r"guest agent is not (connected|available)|QEMU guest agent is not", Busy,
     "wait until the guest has booted; its image needs qemu-guest-agent"),
    # only what its XML has just shown is asked for
    (r"invalid path .* not assigned to domain|disk '.*' not found in domain", Busy,
     "another call has just taken the disk away"),
    (r"End of file from qemu monitor|guest unexpectedly quit|domain is no longer running", Busy,
     "it has just gone off"),
    (r"Failed to terminate process .* resource busy", Busy, "its QEMU waits for a disk: see to its datastore"),
    (r"migration out job: unexpectedly failed", Busy, "see whether the hosts reach each other"),
    (r"job data missing", Busy, "a backup is just beginning or ending"),
    (r"Cannot access storage file.*No such file|Could not open .*No such file", HostFault,
     "the file is gone: stage the image again and recreate the instance"),
    (r"Cannot get interface MTU on|Cannot find device|does not exist.*bridge", HostFault,
     "the bridge is not there: make it, or enroll the host again"),
    (r"Unable to find any usable hugetlbfs mount|hugetlbfs filesystem is not mounted", HostFault,
     "mount a hugetlbfs for pages of this size on the host (mount -o pagesize=…), then restart libvirtd"),
    (r"cpuset\.cpus': Numerical result out of range|NUMA node \d+ is unavailable", HostFault,
     "the host has not the cores or memory cells any more that it was granted: migrate it while it is off"),
    (r"host doesn't support passthrough of host PCI devices", HostFault,
     "switch the IOMMU on in the firmware and the kernel, and load vfio-pci"),
    (r"Could not access KVM kernel module|failed to initialize kvm", HostFault,
     "use domain type qemu, or give the host virtualisation"),
    (r"No space left on device", HostFault, "make room on the host"),
)  # fmt: skip


def translate(error: libvirt.libvirtError, subject: str, doing: str) -> RackflowError:
    """Return our error. subject: "instance/…" or "host/…"; doing: what was tried, for the message."""
    text = str(error.get_error_message() or error)
    kind, fix = _kind(error.get_error_code(), text)
    seen = {"libvirt_code": error.get_error_code(), "libvirt_domain": error.get_error_domain(), "seen": text}
    return kind(f"{doing}: {text}", subject, seen, fix)


def _kind(code: int | None, text: str) -> tuple[type[RackflowError], str]:
    for pattern, kind, fix in _BY_TEXT:
        if re.search(pattern, text):
            return kind, fix
    return _BY_CODE.get(code or 0, HostFault), ""
