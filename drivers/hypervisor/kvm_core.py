"""What all parts of the KVM driver share: two connections to libvirtd, and jobs that can be given up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from core.errors import Busy, RackflowError
from core.settings import DriverSettings
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor.accelerator import find_domain_type
from drivers.hypervisor.domain_calls import Marks
from drivers.hypervisor.libvirt_link import JOBS_SOCKET, Call, LibvirtLink
from drivers.transport.base import Progress, Transport

T = TypeVar("T")

_ABORT_S = 20.0  # for a job that was told to end
_LOOK_S = 1.0  # at a job's progress
FOREVER_S = 7 * 24 * 3600.0  # a job that moves on is left alone; who waits for it may cancel it


class KvmCore:
    """One host's libvirtd. Blocking calls run in threads; what lasts long has a connection of its own.

    A call past its deadline is ended by cutting its connection; that must never end somebody else's migration.
    """

    def __init__(self, transport: Transport, settings: DriverSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._host = transport.endpoint.name
        self._link = LibvirtLink(transport, settings)
        self._jobs = LibvirtLink(transport, settings, JOBS_SOCKET)
        self._marks = Marks()
        self._domain_type = settings.domain_type if settings.domain_type != "auto" else ""
        self._probing = asyncio.Lock()
        self._aborting: set[asyncio.Task[None]] = set()
        self._left: set[asyncio.Future[Any]] = set()  # calls that nobody waits for any more

    async def find_domain_type(self) -> tuple[str, str]:
        """Return kvm or qemu, and why if it was found just now."""
        if self._domain_type:
            return self._domain_type, ""
        async with self._probing:
            if not self._domain_type:
                machine = (await self._transport.run(["uname", "-m"])).stdout.strip()
                self._domain_type, why = await find_domain_type(self._transport, machine)
                return self._domain_type, why
        return self._domain_type, ""

    async def close(self) -> None:
        """Close the connections to libvirtd."""
        await self._jobs.close()
        await self._link.close()

    async def _call(self, name: str, doing: str, ask: Call[T]) -> T:
        return await self._link.call(f"{doing} {name}", ask, subject=calls.subject(name))

    async def _answers(self, asking: asyncio.Future[Any], limit_s: float) -> bool:
        """Say whether a call ends in time. Else it is left to its deadline: to cut it now would end others' calls too.

        When its QEMU is killed, or goes on, it ends by itself.
        """
        asking.add_done_callback(_heard)
        self._left.add(asking)
        asking.add_done_callback(self._left.discard)
        await asyncio.wait({asking}, timeout=limit_s)
        return asking.done()

    async def _job(
        self, name: str, doing: str, work: Call[T], *, timeout_s: float = FOREVER_S, progress: Progress | None = None
    ) -> T:
        """Run a call that is a job of the domain. Cancelled or late, the job is aborted and its end waited for.

        Raise Busy when it was late; the job may still have come to its end, which who calls again sees.
        """
        about, limit_s = f"{doing} {name}", timeout_s + 2 * _ABORT_S
        task = asyncio.ensure_future(self._jobs.call(about, work, subject=calls.subject(name), timeout_s=limit_s))
        try:
            async with asyncio.timeout(timeout_s):
                while not task.done():
                    await asyncio.wait({task}, timeout=_LOOK_S)
                    if progress is not None and not task.done():
                        await self._report(name, progress)
        except TimeoutError:
            await self._give_up(name, task)
            if not task.done() or task.cancelled() or task.exception() is not None:
                raise Busy(
                    f"{about} did not end within {timeout_s:g} s and was given up", calls.subject(name),
                    {"timeout_s": timeout_s}, "give it more time or bandwidth, or do it when it is less busy",
                ) from None
        except asyncio.CancelledError:
            await self._give_up(name, task)
            raise
        return task.result()

    async def _report(self, name: str, progress: Progress) -> None:
        def look(c: Any) -> dict[str, int]:
            found: dict[str, int] = calls.require(c, name).jobStats()
            return found

        with contextlib.suppress(RackflowError):  # it has just ended
            stats = await self._call(name, "looking at the job of", look)
            total = stats.get(libvirt.VIR_DOMAIN_JOB_DATA_TOTAL, 0)
            if total:
                progress(total - stats.get(libvirt.VIR_DOMAIN_JOB_DATA_REMAINING, 0), total)

    async def _give_up(self, name: str, task: asyncio.Future[Any]) -> None:
        """Abort until the call ends. A second cancellation leaves it going on in the background."""
        aborting = asyncio.ensure_future(self._abort(name, task))
        self._aborting.add(aborting)
        aborting.add_done_callback(self._aborting.discard)
        await asyncio.shield(aborting)

    async def _abort(self, name: str, task: asyncio.Future[Any]) -> None:
        end = time.monotonic() + _ABORT_S
        while not task.done() and time.monotonic() < end:
            with contextlib.suppress(RackflowError):  # none yet, or none any more
                await self._call(name, "aborting the job of", _abort_job(name))
            await asyncio.wait({task}, timeout=0.2)
        if task.done() and not task.cancelled():
            task.exception()
        task.cancel()


def _heard(call: asyncio.Future[Any]) -> None:
    """Take note of how a call has ended, so that asyncio does not complain that nobody did."""
    if not call.cancelled():
        call.exception()


def _abort_job(name: str) -> Callable[[Any], None]:
    def abort(c: Any) -> None:
        domain = calls.lookup(c, name)
        if domain is not None:
            domain.abortJob()

    return abort
