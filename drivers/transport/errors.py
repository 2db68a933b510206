"""asyncssh's errors to ours: the one place."""

from __future__ import annotations

import asyncssh

from core.errors import Busy, CredentialRejected, HostFault, RackflowError, Unreachable
from drivers.transport.base import Endpoint, Result


def subject_of(endpoint: Endpoint) -> str:
    """Return "host/NAME"."""
    return f"host/{endpoint.name}"


def failed(endpoint: Endpoint, result: Result) -> HostFault:
    """Return the error for a command that ended badly."""
    seen = (result.stderr.strip() or result.stdout.strip())[-2000:]
    last = seen.splitlines()[-1] if seen else f"exit code {result.exit_code}"
    return HostFault(
        f"{result.argv[0]} failed on {endpoint.name}: {last}", subject_of(endpoint),
        {"argv": list(result.argv), "exit_code": result.exit_code, "stderr": seen}, "see the evidence",
    )


def _where(endpoint: Endpoint) -> str:
    return f"{endpoint.name} ({endpoint.user}@{endpoint.address}:{endpoint.port})"


def _host_key(endpoint: Endpoint, error: BaseException, offered: str) -> RackflowError:
    return CredentialRejected(
        f"the host key of {_where(endpoint)} is not the pinned one", subject_of(endpoint),
        {"pinned": endpoint.host_key, "offered": offered, "seen": str(error)},
        "if the host was reinstalled, retire it and enroll it again; else somebody stands in between",
    )


def _key(endpoint: Endpoint, error: BaseException, _offered: str) -> RackflowError:
    return CredentialRejected(
        f"{_where(endpoint)} did not accept our key", subject_of(endpoint),
        {"key_file": str(endpoint.key_file or "default keys"), "seen": str(error)},
        f"put the public key into ~{endpoint.user}/.ssh/authorized_keys on the host, or name another key",
    )


def _busy(endpoint: Endpoint, error: BaseException, _offered: str) -> RackflowError:
    return Busy(
        f"{_where(endpoint)} opened no further channel", subject_of(endpoint), {"seen": str(error)},
        "lower channels_per_connection below MaxSessions in the host's sshd_config",
    )


_TABLE = (
    (asyncssh.HostKeyNotVerifiable, _host_key),
    (asyncssh.KeyExchangeFailed, _host_key),  # the host offers no key of the pinned kind
    (asyncssh.PermissionDenied, _key),
    (asyncssh.KeyImportError, _key),
    (asyncssh.ChannelOpenError, _busy),
)


def translate(
    error: BaseException, endpoint: Endpoint, *, closed: bool = False, offered: str = ""
) -> RackflowError:
    """Return our error for one of asyncssh's. closed: the connection is gone; offered: the key shown."""
    if isinstance(error, RackflowError):
        return error
    if not closed:
        for kind, make in _TABLE:
            if isinstance(error, kind):
                return make(endpoint, error, offered)
    seen = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return Unreachable(
        f"no connection to {_where(endpoint)}: {seen}", subject_of(endpoint), {"seen": seen},
        "check that the host is on, its address and its sshd",
    )
