"""Streams over SSH, bounded in memory: what a command prints, what it is given, and TCP connections of a host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import asyncssh

from core.errors import HostFault
from drivers.transport.base import Endpoint, Result, socket_name
from drivers.transport.channels import Kind
from drivers.transport.errors import failed, subject_of, translate
from drivers.transport.processes import Processes

_CHUNK_BYTES = 2**18

Opened = tuple[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]


async def read_from(
    processes: Processes, endpoint: Endpoint, argv: Sequence[str], sudo: bool, timeout_s: float
) -> AsyncGenerator[bytes, None]:
    """Yield what a command prints; who takes it slowly slows the command down.

    The deadline is that of each wait here: one around the whole would strike while the reader waits for other things.
    """
    loop = asyncio.get_running_loop()
    async with processes.process(argv, sudo, timeout_s, Kind.READ) as process:
        end = loop.time() + timeout_s
        stderr = processes.stderr(process)
        process.stdin.write_eof()
        while True:
            async with processes.deadline(argv, timeout_s, end - loop.time()):
                data = await process.stdout.read(_CHUNK_BYTES)
            if not data:
                break
            yield data
        async with processes.deadline(argv, timeout_s, end - loop.time()):
            await process.wait_closed()
            result = Result(tuple(argv), processes.status(process, argv), "", await stderr.text())
    if result.exit_code != 0:
        raise failed(endpoint, result)


async def write_to(
    processes: Processes, endpoint: Endpoint, content: AsyncIterator[bytes], argv: Sequence[str], sudo: bool,
    timeout_s: float,
) -> Result:  # fmt: skip
    """Give content to a command's stdin, as fast as it takes it."""
    async with processes.process(argv, sudo, timeout_s, Kind.WRITE, eof=False) as process:
        stderr = processes.stderr(process)
        stdout = asyncio.ensure_future(process.stdout.read())
        try:
            async with processes.deadline(argv, timeout_s):
                async for data in content:
                    try:
                        process.stdin.write(data)
                        await process.stdin.drain()
                    except BrokenPipeError:  # it ended early, and says why
                        break
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write_eof()
                await process.wait_closed()
                code = processes.status(process, argv)
                result = Result(tuple(argv), code, (await stdout).decode(errors="replace"), await stderr.text())
        finally:
            stdout.cancel()
    if result.exit_code != 0:
        raise failed(endpoint, result)
    return result


class SshStream:
    """A connection to a socket of the host, through a channel (no session to sshd)."""

    def __init__(
        self, endpoint: Endpoint, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes],
        is_alive: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._endpoint = endpoint
        self._reader = reader
        self._writer = writer
        self._is_alive = is_alive

    async def read(self, n: int = 65536) -> bytes:
        """Return what came, at most n bytes; b"" when the other side has closed it. Raise Unreachable."""
        try:
            data = await self._reader.read(n)
        except (asyncssh.Error, OSError) as error:
            raise translate(error, self._endpoint, closed=True) from error
        if not data and not self._is_alive():
            raise translate(ConnectionError("the connection was lost"), self._endpoint)
        return data

    async def write(self, data: bytes) -> None:
        """Send data. Raise Unreachable."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (asyncssh.Error, OSError) as error:
            raise translate(error, self._endpoint, closed=True) from error


def nobody_listens(endpoint: Endpoint, where: int | str, error: asyncssh.ChannelOpenError) -> HostFault:
    """Return the error for a socket that could not be connected to."""
    option = "AllowTcpForwarding" if isinstance(where, int) else "AllowStreamLocalForwarding"
    prohibited = error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
    return HostFault(
        f"{socket_name(where)} of {endpoint.name} could not be connected to: {error.reason}", subject_of(endpoint),
        {"port" if isinstance(where, int) else "socket": where, "seen": error.reason},
        f"set {option} in the host's sshd_config" if prohibited else "see whether something listens there",
    )


def close_late(opening: asyncio.Future[Any]) -> None:
    """Close a connection that was opened although nobody waited for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].close()
