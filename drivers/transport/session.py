"""A command that runs for long on a host, with its stdin held open: a lock holder, a console."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import asyncssh

from drivers.transport.base import Endpoint
from drivers.transport.errors import translate
from drivers.transport.processes import Process, Processes


class SshSession:
    """One running command; it is ended by who opened it."""

    def __init__(self, processes: Processes, endpoint: Endpoint, process: Process, argv: Sequence[str]) -> None:
        self._processes = processes
        self._endpoint = endpoint
        self._process = process
        self._argv = argv
        processes.stderr(process)

    async def lines(self) -> AsyncIterator[str]:
        """Yield lines of stdout, without their ends, until the command closes it. Raise Unreachable."""
        try:
            async for line in self._process.stdout:
                yield line.decode(errors="replace").rstrip("\r\n")
        except (asyncssh.Error, OSError) as error:
            raise translate(error, self._endpoint, closed=True) from error

    async def read(self, n: int = 65536) -> bytes:
        """Return what it has printed to stdout, at most n bytes; b"" once it has closed it. Raise Unreachable."""
        try:
            data = await self._process.stdout.read(n)
        except (asyncssh.Error, OSError) as error:
            raise translate(error, self._endpoint, closed=True) from error
        if not data and not self._processes.is_alive():
            raise translate(ConnectionError("the connection was lost"), self._endpoint)
        return data

    async def write(self, data: bytes) -> None:
        """Write to its stdin. Raise Unreachable."""
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except (asyncssh.Error, OSError) as error:
            raise translate(error, self._endpoint, closed=True) from error

    async def wait(self) -> int:
        """Wait for its end and return the exit code. Raise Unreachable when the connection is lost."""
        await self._process.wait_closed()
        return self._processes.status(self._process, self._argv)

    def is_alive(self) -> bool:
        """Return whether it still runs, as far as is known here."""
        return self._process.exit_status is None and self._processes.is_alive()
