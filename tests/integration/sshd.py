"""An SSH server in this process, whose commands run on this machine: the real transport, without a lab."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh

from drivers.transport.base import Endpoint


class _Server(asyncssh.SSHServer):
    """Lets everybody in."""

    def begin_auth(self, username: str) -> bool:
        return False

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True

    def unix_connection_requested(self, dest_path: str) -> bool:
        return True


async def _run(process: asyncssh.SSHServerProcess[bytes], prefix: Sequence[str] = ()) -> None:
    """Run a command. As with sshd, it meets closed pipes once its channel is gone."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *prefix, "/bin/sh", "-c", process.command or "true", stdin=pipe, stdout=pipe, stderr=pipe,
        start_new_session=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    giving = asyncio.ensure_future(_pump(process.stdin, child.stdin))
    await asyncio.gather(_pump(child.stdout, process.stdout), _pump(child.stderr, process.stderr))
    code = await child.wait()
    giving.cancel()
    process.exit(code if code >= 0 else 128 - code)


async def _pump(reader: Any, writer: Any) -> None:
    with suppress(asyncssh.Error, OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    if isinstance(writer, asyncio.StreamWriter):  # the stdin of the command
        writer.close()
    else:
        reader._transport.close()  # nobody hears it any more: SIGPIPE


@asynccontextmanager
async def sshd(folder: Path, *, prefix: Sequence[str] = ()) -> AsyncIterator[Endpoint]:
    """Serve until the context is left. folder: for the keys; prefix: of each command, e.g. one that enters a namespace.

    The user is root by name: nothing is asked of sudo.
    """
    host_key, own = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    (folder / "key").write_bytes(own.export_private_key())
    (folder / "key").chmod(0o600)
    server = await asyncssh.create_server(
        _Server, "127.0.0.1", 0, server_host_keys=[host_key], process_factory=partial(_run, prefix=prefix),
        encoding=None,
    )  # fmt: skip
    public = host_key.export_public_key().decode().strip()
    try:
        yield Endpoint("here", "127.0.0.1", server.get_port(), "root", folder / "key", public)
    finally:
        server.close()
        await server.wait_closed()
