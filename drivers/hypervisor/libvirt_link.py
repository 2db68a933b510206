"""The connection to one host's libvirtd, over the transport's forwarded socket.

libvirt-python blocks. Its calls run in a small thread pool of the host's own, and a call that is past its deadline
is ended by cutting the forwarded socket under it, so that one sick host never takes threads from the others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import libvirt

from core.errors import HostFault, RackflowError, Unreachable
from core.settings import DriverSettings
from drivers.hypervisor.libvirt_errors import translate
from drivers.transport.base import Transport

SOCKET = "/run/libvirt/libvirt-sock"
JOBS_SOCKET = "/var/run/libvirt/libvirt-sock"  # the same one; under this name it is forwarded, and cut, apart
T = TypeVar("T")
_GOODBYE_S = 2.0
Call = Callable[[Any], T]  # takes a virConnect; libvirt-python is untyped

libvirt.registerErrorHandler(lambda _context, _error: None, None)  # else it prints every error on stderr


class LibvirtLink:
    """Runs functions of a virConnect. Opened when first used, opened again when found dead."""

    def __init__(self, transport: Transport, settings: DriverSettings, socket: str = SOCKET) -> None:
        self._transport = transport
        self._settings = settings
        self._socket = socket
        self._host = transport.endpoint.name
        self._threads = ThreadPoolExecutor(settings.threads_per_host, thread_name_prefix=f"libvirt-{self._host}")
        self._slots = asyncio.Semaphore(settings.threads_per_host)
        self._opening = threading.Lock()
        self._connection: Any = None
        self._closed = False

    async def call(self, doing: str, work: Call[T], *, subject: str = "", timeout_s: float | None = None) -> T:
        """Run work(connection) in a thread. Raise Unreachable at the deadline, else what translate() says."""
        about = subject or f"host/{self._host}"
        limit_s = timeout_s or self._settings.command_timeout_s
        path = str(await self._transport.forward(self._socket))
        await self._slots.acquire()
        if self._closed:
            self._slots.release()
            raise Unreachable(f"{doing}: the connection to {self._host} is closed", about)
        loop = asyncio.get_running_loop()
        job: Future[T] = self._threads.submit(self._run, path, work, time.monotonic() + limit_s)
        late = loop.call_later(limit_s, self._expire, job)
        # A cancelled caller leaves its thread behind: the slot and the deadline belong to the job, not to the caller.
        job.add_done_callback(lambda _: _threadsafe(loop, late.cancel, self._slots.release))
        try:
            return await asyncio.shield(asyncio.wrap_future(job))
        except TimeoutError as error:
            raise self._late(doing, about, limit_s) from error
        except libvirt.libvirtError as error:
            if loop.time() >= late.when():
                raise self._late(doing, about, limit_s) from error
            raise await self._explain(error, about, doing) from error

    def _run(self, path: str, work: Call[T], until: float) -> T:
        return work(self._open(path, until))

    def _open(self, path: str, until: float) -> Any:
        # Who waits here while another thread fails to connect must not begin after its own deadline: nobody would
        # cut its call any more.
        if not self._opening.acquire(timeout=max(0.0, until - time.monotonic())):
            raise TimeoutError
        try:
            if self._connection is None or not self._connection.isAlive():
                if time.monotonic() >= until:
                    raise TimeoutError
                self._connection = libvirt.open(f"qemu+unix:///system?socket={path}")
            return self._connection
        finally:
            self._opening.release()

    def cut(self) -> None:
        """End all calls under way on this connection, also those made elsewhere with what `call` returned."""
        self._transport.cut(self._socket)

    def _expire(self, job: Future[T]) -> None:
        if not job.done():
            self.cut()

    def _late(self, doing: str, subject: str, limit_s: float) -> Unreachable:
        return Unreachable(
            f"{doing}: libvirtd on {self._host} did not answer within {limit_s:g} s", subject,
            {"timeout_s": limit_s}, "see whether libvirtd or the QEMU process hangs",
        )

    async def _explain(self, error: Any, subject: str, doing: str) -> RackflowError:
        """Translate an error; when the daemon does not answer at all, find out why."""
        found = translate(error, subject, f"{doing} on {self._host}")
        if not isinstance(found, Unreachable) or not self._transport.is_alive():
            return found
        there = await self._transport.run(["test", "-S", SOCKET], check=False)
        if there.exit_code != 0:
            return Unreachable(  # maybe not yet: the host has just been booted
                f"{doing} on {self._host}: libvirtd does not run there", subject,
                {"socket": SOCKET, "seen": str(error)},
                "start it: systemctl enable --now libvirtd; or install libvirt-daemon-system",
            )
        usable = await self._transport.run(["test", "-w", SOCKET], check=False)
        if usable.exit_code != 0:
            user = self._transport.endpoint.user
            return HostFault(
                f"{doing} on {self._host}: the user {user} may not use libvirt", subject, {"socket": SOCKET},
                f"sudo usermod -aG libvirt {user}",
            )
        return found

    async def close(self) -> None:
        """Close the connection; calls under way end.

        It is closed in a thread: libvirt says good-bye over the socket, which this thread's event loop forwards.
        """
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            job = self._threads.submit(connection.close)
            done, _ = await asyncio.wait([asyncio.wrap_future(job)], timeout=_GOODBYE_S)
            for future in done:
                future.exception()
        self.cut()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _threadsafe(loop: asyncio.AbstractEventLoop, *calls: Callable[[], object]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(lambda: [call() for call in calls])
