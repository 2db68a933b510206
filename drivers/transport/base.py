"""Contract of a transport: run commands, move files, reach sockets on one host over one connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Way:
    """An SSH server by which an API is reached that does not answer from here. fingerprint: of its host key."""

    address: str
    port: int
    user: str
    key_file: Path
    fingerprint: str

    @classmethod
    def of(cls, spec: Mapping[str, Any], address: str, key: Path) -> Way | None:
        """Return that of a host's spec, None: it is reached from here. address: the host's own; key: rackflow's."""
        ssh = spec.get("ssh")
        if not ssh:
            return None
        file = Path(ssh["key_file"]) if ssh.get("key_file") else key
        return cls(ssh.get("address") or address, ssh["port"], ssh["user"], file, ssh["fingerprint"])


@dataclass(frozen=True)
class Endpoint:
    """Where a host is and how to prove who is who. host_key: pinned "ssh-ed25519 AAAA…", empty = none pinned yet.

    Of an API instead of SSH, key_file holds the password and host_key is "x509-sha256 AB:CD:…".
    """

    name: str
    address: str
    port: int = 22
    user: str = "root"
    key_file: Path | None = None
    host_key: str = ""
    place: str = ""  # where a server has several hosts (vCenter): the path of the cluster, host or pool meant
    way: Way | None = None  # to an API


@dataclass(frozen=True)
class Shown:
    """What a server shows of itself. public: "ssh-ed25519 AAAA…", to be pinned; fingerprint: "SHA256:…", to be seen."""

    algorithm: str
    public: str
    fingerprint: str


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str


Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


def socket_name(where: int | str) -> str:
    """Return a TCP port or the path of a unix socket in words."""
    return f"port {where}" if isinstance(where, int) else f"socket {where}"


class Transport(Protocol):
    """One connection to one host. Errors: Unreachable, Busy (much is under way), CredentialRejected, HostFault."""

    @property
    def endpoint(self) -> Endpoint: ...

    async def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 60.0,
        stdin: bytes | None = None,
        sudo: bool = False,
        check: bool = True,
    ) -> Result:
        """Run argv (quoted by the transport, never a shell string). check: raise HostFault on exit != 0.

        A lost connection is Unreachable, so is a deadline (the remote process is ended first).
        sudo: as root, by `sudo -n` when the user is not root.
        """
        ...

    async def put(
        self,
        source: Path | bytes,
        target: str,
        *,
        mode: int = 0o644,
        resume: bool = False,
        sudo: bool = False,
        progress: Progress | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        """Write a file on the host, under a temporary name, then renamed. resume: go on from the bytes there."""
        ...

    async def get(self, source: str, *, sudo: bool = False, max_bytes: int = 2**24, timeout_s: float = 60.0) -> bytes:
        """Return a small file's content. Raise NotFound."""
        ...

    def read(self, argv: Sequence[str], *, sudo: bool = False, timeout_s: float = 600.0) -> AsyncIterator[bytes]:
        """Yield what a command prints, as it comes, bounded in memory. Raise HostFault when it ends badly, Unreachable.

        Left early, the command is ended.
        """
        ...

    async def write(
        self, content: AsyncIterator[bytes], argv: Sequence[str], *, sudo: bool = False, timeout_s: float = 600.0
    ) -> Result:
        """Give content to a command's stdin as it comes. An error of content ends the command. Raise as `run`."""
        ...

    def connect(self, where: int | str) -> AbstractAsyncContextManager[ByteStream]:
        """Open a connection to a TCP port of the host's 127.0.0.1, or to a unix socket by its path.

        Raise HostFault (nobody listens), Unreachable.
        """
        ...

    async def forward(self, remote_socket: str) -> Path:
        """Return a local unix socket that leads to remote_socket; the same one when asked again."""
        ...

    def cut(self, remote_socket: str) -> None:
        """Close the connections that go through a forwarded socket, so that calls blocked on them end."""
        ...

    def is_alive(self) -> bool:
        """Say whether a call could still succeed; a lost connection never comes back, a new one must be made."""
        ...

    def session(self, argv: Sequence[str], *, sudo: bool = False) -> AbstractAsyncContextManager[Session]:
        """Open a long-lived command (a lock holder, a console) whose stdin stays open while the context lives."""
        ...

    async def close(self) -> None:
        """Close the connection; what is under way fails with Unreachable. Ends blocked calls on forwarded sockets."""
        ...


@runtime_checkable
class LocksItself(Protocol):
    """A transport without a shell, which holds the lock of its host in its own way for as long as it is alive."""

    async def lock(self, worker: str, alive: Callable[[str], Awaitable[bool]]) -> None:
        """Hold the lock for a worker; one whose claim has run out (alive) is put out. Raise Busy, Unreachable."""
        ...


class ByteStream(Protocol):
    """Bytes both ways. b"" from read: the other side has closed it."""

    async def read(self, n: int = 65536) -> bytes: ...
    async def write(self, data: bytes) -> None: ...


class Session(Protocol):
    """A running remote command. read and lines are not to be mixed."""

    def lines(self) -> AsyncIterator[str]: ...
    async def read(self, n: int = 65536) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    async def wait(self) -> int: ...
    def is_alive(self) -> bool: ...
