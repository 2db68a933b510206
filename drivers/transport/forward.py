"""A unix socket of a host, as a unix socket here, whose open connections can be cut.

asyncssh's own listener leaves accepted connections open when it is closed. A library call that hangs on such
a socket (libvirt, LXD) can only be ended by cutting it, so the connections are kept track of here.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import weakref
from pathlib import Path

import asyncssh
from asyncssh.forward import SSHLocalPathForwarder


def socket_dir() -> Path:
    """Return a new private folder with a short path (a socket's path holds 107 bytes at most)."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    short = runtime and len(runtime) < 60 and os.access(runtime, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="rf-", dir=runtime if short else "/tmp"))


class Forward:
    """One forwarded socket. path: where it is reached on this machine."""

    def __init__(self, connection: asyncssh.SSHClientConnection, remote_socket: str, path: Path) -> None:
        self.path = path
        self.remote_socket = remote_socket
        self._connection = connection
        self._server: asyncio.AbstractServer | None = None
        self._open: weakref.WeakSet[SSHLocalPathForwarder] = weakref.WeakSet()

    async def listen(self) -> None:
        """Begin to accept connections; each becomes a direct-streamlocal channel (no session to sshd)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accepted, path=str(self.path))

    def _accepted(self) -> SSHLocalPathForwarder:
        async def open_channel(session_factory: object) -> object:
            return await self._connection.create_unix_connection(session_factory, self.remote_socket)  # type: ignore[arg-type]

        forwarder = SSHLocalPathForwarder(self._connection, open_channel)
        self._open.add(forwarder)
        return forwarder

    def cut(self) -> None:
        """Close every open connection; calls under way on them end. New ones are still accepted."""
        for forwarder in list(self._open):
            forwarder.close()

    def close(self) -> None:
        """Stop to accept, close every open connection, take the socket away."""
        if self._server is not None:
            self._server.close()
        self.cut()
        self.path.unlink(missing_ok=True)
