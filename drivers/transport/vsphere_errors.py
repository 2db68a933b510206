"""pyvmomi's faults to our errors: the one place. Names of faults as in the vSphere Web Services API reference.

https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/
"""

from __future__ import annotations

import http.client
import ssl

from core.errors import (
    Busy,
    CredentialRejected,
    HostFault,
    Invalid,
    NoCapacityNow,
    NotFound,
    RackflowError,
    Unreachable,
    Unsupported,
)

SESSION_GONE = "NotAuthenticated"
_AGAIN = "look again: another call or the host itself was faster"

# The most special name that a fault has decides: its own class, then those that it is a kind of.
_BY_NAME: dict[str, tuple[type[RackflowError], str]] = {
    SESSION_GONE: (Unreachable, "a new session is opened with the next step"),
    "InvalidLogin": (CredentialRejected, "correct the password file of the host, then enroll it again"),
    "NoPermission": (HostFault, "give rackflow's user the missing privilege there"),
    "RestrictedVersion": (HostFault, "its licence allows no changes by the API: give it one that does"),
    "ManagedObjectNotFound": (Busy, _AGAIN),
    "InvalidPowerState": (Busy, _AGAIN),
    "TaskInProgress": (Busy, "wait for the other task on it"),
    "ConcurrentAccess": (Busy, _AGAIN),
    "DuplicateName": (Busy, "if it does not pass, look who has that name there"),
    "FileAlreadyExists": (Busy, "if it does not pass, look who has that file there"),
    "FileLocked": (Busy, "wait until what uses the file has ended"),
    "ResourceInUse": (Busy, "wait until what uses it has ended"),
    "Timedout": (Busy, _AGAIN),
    "RequestCanceled": (Busy, "somebody cancelled the task"),
    "ToolsUnavailable": (Busy, "VMware Tools do not run in the guest"),
    "HostCommunication": (Unreachable, "see whether the vCenter reaches its host"),
    "HostNotConnected": (Unreachable, "see whether the vCenter reaches its host"),
    "InsufficientResourcesFault": (NoCapacityNow, "place it elsewhere"),
    "NoDiskSpace": (HostFault, "make room in the datastore"),
    "FileNotFound": (HostFault, "the file is gone: stage the image again and recreate the instance"),
    "CannotAccessFile": (HostFault, "see whether the datastore is well"),
    "NotFound": (NotFound, ""),
    "NotSupported": (Unsupported, ""),
    "MethodNotFound": (Unsupported, "this version of vSphere lacks it"),
    "MethodDisabled": (Busy, _AGAIN),
    "InvalidArgument": (Invalid, ""),
    "InvalidName": (Invalid, ""),
    "InvalidVmConfig": (Invalid, ""),
    "InvalidState": (Busy, _AGAIN),
}  # fmt: skip


def is_fault(error: BaseException, name: str) -> bool:
    """Say whether a fault is of that kind, by its name without the namespace."""
    return name in names(error)


def names(error: BaseException) -> list[str]:
    """Return the names of what a fault is, the most special one first: InvalidPowerState, InvalidState, …"""
    return [cls.__name__.rpartition(".")[2] for cls in type(error).__mro__]


def translate(error: BaseException, subject: str, doing: str) -> RackflowError:
    """Return our error for a fault, a connection that broke, or an answer that is no SOAP."""
    said = str(getattr(error, "msg", "") or getattr(error, "faultMessage", "") or "")
    kinds = names(error)
    seen = {"fault": kinds[0], "seen": said or str(error)[:500]}
    for name in kinds:
        if name in _BY_NAME:
            kind, fix = _BY_NAME[name]
            return kind(f"{doing}: {said or kinds[0]}", subject, seen, fix)
    if isinstance(error, ssl.SSLCertVerificationError):
        return CredentialRejected(
            f"{doing}: the certificate is not the pinned one", subject, seen,
            "if it was renewed, enroll the host again with the new fingerprint; else somebody stands in between",
        )  # fmt: skip
    if isinstance(error, OSError | http.client.HTTPException):
        return Unreachable(f"{doing}: {seen['seen'] or kinds[0]}", subject, seen, "see whether the API answers")
    return HostFault(f"{doing}: {said or kinds[0]}", subject, seen, "see the evidence, and the host's own log")
