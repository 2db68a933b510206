"""The processes of one SSH connection: few at once, each with a deadline, none left behind."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

import asyncssh

from core.errors import Unreachable
from core.settings import DriverSettings
from drivers.transport.base import Endpoint
from drivers.transport.channels import Channels, Kind
from drivers.transport.errors import subject_of, translate

GRACE_S = 3.0  # for a process that was asked to end
_CHUNK_BYTES = 2**16
_KEPT_BYTES = 2**16  # of stderr
_OPEN_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SAY_PID = 'echo "rackflow-pid $$" >&2; LC_ALL=C exec "$@"'
# The whole group, if it leads one: `timeout` dies without its child when the signal comes just as it forks.
_KILL = 'kill -- "-$1" 2>/dev/null || kill "$1"'
_PID = re.compile(rb"^rackflow-pid (\d+)\n", re.MULTILINE)

Process = asyncssh.SSHClientProcess[bytes]


def without_pid(stderr: bytes | None) -> bytes:
    """Return what a process itself wrote to stderr."""
    return _PID.sub(b"", stderr or b"", count=1)


class Stderr:
    """Reads a process's stderr meanwhile and keeps its end: unread, it would fill the window that stdout needs."""

    def __init__(self, process: Process) -> None:
        self.pid = b""
        self._kept = bytearray()
        self._reading = asyncio.ensure_future(self._read(process))

    async def _read(self, process: Process) -> None:
        with contextlib.suppress(asyncssh.Error, OSError):  # of the connection: who reads stdout is told
            while data := await process.stderr.read(_CHUNK_BYTES):
                self._kept += data
                if not self.pid and (said := _PID.search(self._kept)):
                    self.pid = said[1]
                    del self._kept[said.start() : said.end()]
                del self._kept[:-_KEPT_BYTES]

    async def text(self) -> str:
        """Return the end of what the process wrote, once it has closed stderr."""
        await asyncio.shield(self._reading)
        return self._kept.decode(errors="replace")

    def stop(self) -> None:
        """Read no more."""
        self._reading.cancel()


class Processes:
    """Opens, watches and ends processes."""

    def __init__(
        self, endpoint: Endpoint, settings: DriverSettings, connection: asyncssh.SSHClientConnection
    ) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._connection = connection
        self._channels = Channels(endpoint, settings.channels_per_connection)
        self._killing = asyncio.Lock()
        self._stderr: dict[Process, Stderr] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def is_alive(self) -> bool:
        """Say whether the connection stands."""
        return not self._connection.is_closed()

    def _line(self, argv: Sequence[str], sudo: bool, timeout_s: float | None) -> str:
        """Return the command line. It says its pid on stderr, and ends by itself a little after the deadline.

        sshd passes no signals to root's processes ("requires privilege separation", OpenSSH 9.2 session.c), nor
        can a user signal what sudo started. So a process is ended by its pid, over another channel.
        """
        limit = ["timeout", "-k", "5", f"{timeout_s + GRACE_S:.0f}"] if timeout_s is not None else []
        return shlex.join([*self._sudo(sudo), "sh", "-c", _SAY_PID, "sh", *limit, *argv])

    def _sudo(self, wanted: bool) -> list[str]:
        return ["sudo", "-n"] if wanted and self._endpoint.user != "root" else []

    @contextlib.asynccontextmanager
    async def process(
        self, argv: Sequence[str], sudo: bool, timeout_s: float | None, kind: Kind, *, eof: bool = True
    ) -> AsyncIterator[Process]:
        """Open a process in a free channel; end it if it still runs when the context is left.

        The channel is waited for and opened within timeout_s each; None: as fast as a connection has to stand.
        eof: its stdin may be closed first. Not where it would take that for the end of a content that was cut short.
        Raise Busy (no channel is free), Unreachable.
        """
        limit_s = timeout_s or self._settings.connect_timeout_s
        free = await self._channels.take(kind, argv, limit_s)
        opening = asyncio.ensure_future(self._open(self._line(argv, sudo, timeout_s)))
        try:
            async with self.deadline(argv, limit_s):
                process = await asyncio.shield(opening)
        except BaseException:  # late or cancelled, it opens all the same, and would keep its session for ever
            self._background(self._abandon(opening, sudo, eof, free))
            raise
        try:
            yield process
        finally:
            await asyncio.shield(self._background(self._end(process, sudo, eof, free)))

    def stderr(self, process: Process) -> Stderr:
        """Begin to read a process's stderr, until the process is ended."""
        self._stderr[process] = found = Stderr(process)
        return found

    def _background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _abandon(
        self, opening: asyncio.Future[Process], sudo: bool, eof: bool, free: Callable[[], None]
    ) -> None:
        await asyncio.wait([opening])
        if opening.cancelled() or opening.exception() is not None:
            free()
        else:
            await self._end(opening.result(), sudo, eof, free)

    async def _open(self, line: str) -> Process:
        # sshd counts a session for a moment after its channel has closed, so that ours may be one too many.
        for pause_s in _OPEN_PAUSES_S:
            with contextlib.suppress(asyncssh.ChannelOpenError):
                return await self._create(line)
            await asyncio.sleep(pause_s)
        try:
            return await self._create(line)
        except asyncssh.ChannelOpenError as error:
            raise translate(error, self._endpoint) from error

    async def _create(self, line: str) -> Process:
        try:
            return await self._connection.create_process(line, encoding=None)
        except (asyncssh.Error, OSError) as error:
            if isinstance(error, asyncssh.ChannelOpenError) and self.is_alive():
                raise
            raise translate(error, self._endpoint, closed=not self.is_alive()) from error

    async def _end(self, process: Process, sudo: bool, eof: bool, free: Callable[[], None]) -> None:
        """End a process that still runs; then its channel is free."""
        try:
            if process.exit_status is None and self.is_alive():
                with contextlib.suppress(asyncssh.Error, OSError):
                    if eof:
                        process.stdin.write_eof()
                    await asyncio.wait_for(self._kill(process, sudo), GRACE_S)
        finally:
            if (stderr := self._stderr.pop(process, None)) is not None:
                stderr.stop()
            process.close()
            free()

    async def _kill(self, process: Process, sudo: bool) -> None:
        while not (pid := self._pid(process)):
            if process.exit_status is not None:
                return
            await asyncio.sleep(0.02)  # it has hardly begun
        async with self._killing:  # in a session that the ordinary channels leave free
            await self._connection.run(shlex.join([*self._sudo(sudo), "sh", "-c", _KILL, "sh", pid.decode()]))
        rest = asyncio.ensure_future(_discard(process))  # what is unread would hold back that it has ended
        try:
            await process.wait_closed()
        finally:
            rest.cancel()

    def _pid(self, process: Process) -> bytes:
        if process in self._stderr:
            return self._stderr[process].pid
        said = _PID.search(process.collect_output()[1] or b"")
        return said[1] if said else b""

    @contextlib.asynccontextmanager
    async def deadline(self, argv: Sequence[str], timeout_s: float, left_s: float | None = None) -> AsyncIterator[None]:
        """Bound what is done with a process. left_s: what is left of timeout_s.

        Raise Unreachable at the deadline or when the connection is lost.
        """
        left_s = timeout_s if left_s is None else left_s
        try:
            if left_s <= 0:
                raise TimeoutError
            async with asyncio.timeout(left_s):
                yield
        except TimeoutError as error:
            raise Unreachable(
                f"{argv[0]} on {self._endpoint.name} did not end within {timeout_s:g} s",
                subject_of(self._endpoint), {"argv": list(argv), "timeout_s": timeout_s},
                "see what the host is busy with",
            ) from error
        except (asyncssh.Error, ConnectionError) as error:
            raise translate(error, self._endpoint, closed=not self.is_alive()) from error

    def status(self, process: Process, argv: Sequence[str]) -> int:
        """Return the exit code of a process that has ended. Raise Unreachable if the connection ended first."""
        status = process.exit_status
        if status is None:  # what asyncssh gives when the connection was lost in between
            raise Unreachable(
                f"the connection to {self._endpoint.name} was lost while {argv[0]} ran",
                subject_of(self._endpoint), {"argv": list(argv)}, "check the host and its network",
            )
        return int(process.returncode) if status == -1 and process.returncode is not None else int(status)


async def _discard(process: Process) -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        while await process.stdout.read(_CHUNK_BYTES):
            pass
