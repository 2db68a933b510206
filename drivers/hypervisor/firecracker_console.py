"""Firecracker: the serial console. Its log is what the VMM prints; what is typed goes in by a pipe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from drivers.hypervisor import firecracker_scripts as scripts
from drivers.hypervisor.console_session import opened
from drivers.hypervisor.firecracker_core import FirecrackerCore, subject_of
from drivers.hypervisor.powers import ConsoleLogs, Consoles
from drivers.transport.base import ByteStream

_OPEN_S = 10.0


class ConsolesMicroVm(FirecrackerCore, ConsoleLogs, Consoles):
    """Part of FirecrackerHypervisor."""

    async def console_log(self, name: str, *, max_bytes: int = 65536) -> str:
        """Return the end of the console's log since the last start. Raise NotFound."""
        await self._known(name)
        argv = ["tail", "-c", str(max_bytes), "--", f"{self.place.definition(name)}/console.log"]
        found = await self._transport.run(argv, sudo=True, check=False)
        return found.stdout if found.exit_code == 0 else ""  # never started

    @asynccontextmanager
    async def console(self, name: str) -> AsyncIterator[ByteStream]:
        """Open the serial console. Raise Conflict (it does not run), Busy (somebody has it open)."""
        vm = await self._running(name)
        run = self.place.running(name)
        words = (f"{run}/console.in", f"{self.place.definition(name)}/console.log", f"{run}/console.lock", str(vm.pid))
        async with self._transport.session(scripts.argv(scripts.CONSOLE, *words), sudo=True) as session:
            yield await opened(session, name, subject_of(name), _OPEN_S)
