"""Suspending, shutting down and rebooting VMs of ESXi, and tickets to their screens."""

from __future__ import annotations

import asyncio
from typing import Any

from core.errors import Busy
from core.states import PowerState
from drivers.hypervisor.esxi_core import EsxiCore, subject
from drivers.hypervisor.powers import Reboots, ScreenTicket, Suspends, Tickets

_PAUSE_S = 1.0
_WEBMKS = "webmks"


class SuspendsEsxi(EsxiCore, Suspends):
    """A suspended VM of vSphere has its memory in a file of its own folder, and holds none of its host."""

    async def suspend(self, name: str) -> bool:
        """Suspend a VM. Raise Conflict (absent, off)."""

        async def work() -> bool:
            vm, seen = await self.running(name)
            if seen.power is PowerState.PAUSED:
                return False
            await self.change(name, "suspending", lambda: vm.SuspendVM_Task())
            return True

        return await self.alone(name, work)

    async def resume(self, name: str) -> bool:
        """Let it go on. Raise Conflict (absent, off)."""

        async def work() -> bool:
            vm, seen = await self.running(name)
            if seen.power is not PowerState.PAUSED:
                return False
            await self.change(name, "resuming", lambda: vm.PowerOnVM_Task(None))
            return True

        return await self.alone(name, work)


class RebootsEsxi(EsxiCore, Reboots):
    async def shut_down(self, vm: Any, name: str, grace_s: float) -> bool:
        """Return whether the guest went down by itself within grace_s; without Tools it cannot be asked."""
        try:
            await self._transport.call(f"shutting down {name} on", lambda _: vm.ShutdownGuest(), subject=subject(name))
        except Busy:
            return False
        loop = asyncio.get_running_loop()
        end, pause_s = loop.time() + grace_s, 0.05
        while loop.time() < end:
            seen = (await self.refreshed()).seen(name)
            if seen is not None and seen.power is PowerState.STOPPED:
                return True
            await asyncio.sleep(min(pause_s, max(0.0, end - loop.time())))
            pause_s = min(pause_s * 1.5, _PAUSE_S)
        return False

    async def reboot(self, name: str, *, hard: bool = False, grace_s: float = 30.0) -> bool:
        """Shut the guest down and start it, or (hard, or it stays up) reset it. Raise Conflict (absent, off)."""

        async def work() -> bool:
            vm, seen = await self.running(name)
            soft = not hard and seen.power is PowerState.RUNNING
            if soft and await self.shut_down(vm, name, grace_s):
                await self.change(name, "starting", lambda: vm.PowerOnVM_Task(None))
                return True
            if seen.power is PowerState.PAUSED:  # what is suspended cannot be reset
                await self.change(name, "resuming", lambda: vm.PowerOnVM_Task(None))
            await self.change(name, "resetting", lambda: vm.ResetVM_Task())
            return True

        return await self.alone(name, work)


class TicketsEsxi(EsxiCore, Tickets):
    """A ticket leads to the ESXi host that runs the VM, past vCenter and past us: VMware's viewers take it.

    Facts: VirtualMachine.AcquireTicket and VirtualMachineTicket of the vSphere API.
    """

    async def ticket(self, name: str) -> ScreenTicket:
        """Return a new ticket for a VM's screen. Raise Conflict (absent, off)."""
        vm, _ = await self.running(name)
        found = await self._transport.call(
            f"asking for a ticket to {name} on", lambda _: vm.AcquireTicket(_WEBMKS), subject=subject(name)
        )
        where = f"{found.host or self._transport.endpoint.address}:{found.port or 443}"  # both may be left out
        return ScreenTicket(_WEBMKS, f"wss://{where}/ticket/{found.ticket}", found.sslThumbprint or "")
