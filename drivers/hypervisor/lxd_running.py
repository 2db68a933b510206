"""LXD: what is done to containers that run: power, commands, consoles."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from core.errors import Busy, Conflict, HostFault, NotFound
from core.states import PowerState
from drivers.hypervisor import lxd_config, lxd_console
from drivers.hypervisor.base import ExecResult
from drivers.hypervisor.lxd_api import CHANGE_S
from drivers.hypervisor.lxd_core import OFF, LxdCore, concerns, subject_of
from drivers.hypervisor.powers import ConsoleLogs, Consoles, Executes, Reboots, Suspends
from drivers.transport.base import ByteStream

_ACTIONS = {
    (PowerState.PAUSED, PowerState.RUNNING): "unfreeze", (PowerState.RUNNING, PowerState.PAUSED): "freeze",
}  # fmt: skip  # others: start, stop
_LET_GO_S = 3.0  # after a console was closed
ON = (PowerState.RUNNING, PowerState.PAUSED)


class LxdRunning(LxdCore, Executes, ConsoleLogs, Suspends, Reboots, Consoles):
    """Part of LxdHypervisor."""

    async def start(self, name: str) -> bool:
        return await self._turn(name, PowerState.RUNNING, CHANGE_S)

    async def stop(self, name: str, *, grace_s: float = 30.0) -> bool:
        if grace_s <= 0:
            return await self._turn(name, PowerState.STOPPED, CHANGE_S, force=True)
        try:
            return await self._turn(name, PowerState.STOPPED, grace_s + 10, timeout=math.ceil(grace_s))
        except HostFault:  # it does not listen
            await self._turn(name, PowerState.STOPPED, CHANGE_S, force=True)
            return True

    async def suspend(self, name: str) -> bool:
        """Freeze its processes; they stay in memory. Raise Conflict (absent, off)."""
        return await self._turn(name, PowerState.PAUSED, CHANGE_S, among=ON)

    async def resume(self, name: str) -> bool:
        """Let frozen processes go on. Raise Conflict (absent, off)."""
        return await self._turn(name, PowerState.RUNNING, CHANGE_S, among=ON)

    async def reboot(self, name: str, *, hard: bool = False, grace_s: float = 30.0) -> bool:
        """Stop and start it in one request, so that LXD ends it when we are killed. Raise Conflict (absent, off)."""
        if not hard and grace_s > 0:
            try:
                return await self._restart(name, grace_s + 10, timeout=math.ceil(grace_s))
            except HostFault:  # it does not listen
                pass
        return await self._restart(name, CHANGE_S, force=True)

    async def _restart(self, name: str, timeout_s: float, **options: Any) -> bool:
        was_on = False

        async def attempt() -> bool:
            nonlocal was_on
            power = await self._power(name, () if was_on else ON)
            if power in OFF:  # by another restart, of one that was killed, which ours has kept from its start
                return await self.start(name)
            was_on = True
            if power is PowerState.PAUSED:
                await self._change(name, "put", "state", json={"action": "unfreeze"}, doing="unfreeze")
            action = {"action": "restart", **options}
            await self._change(name, "put", "state", json=action, doing="restart", timeout_s=timeout_s)
            return True

        return await self._persist(name, attempt)

    async def _turn(
        self, name: str, wanted: PowerState, timeout_s: float, *, among: Collection[PowerState] = (), **options: Any
    ) -> bool:
        """Bring it into a state. among: from these only. Raise Conflict if it is absent, or in another one."""

        async def attempt() -> bool:
            power = await self._power(name, among)
            if power is wanted:
                return False
            action = _ACTIONS.get((power, wanted)) or ("stop" if wanted is PowerState.STOPPED else "start")
            await self._change(
                name, "put", "state", json={"action": action, **options}, doing=action, timeout_s=timeout_s
            )
            return True

        return await self._persist(name, attempt)

    async def _power(self, name: str, among: Collection[PowerState] = ()) -> PowerState:
        found = await self._find(name)
        if found is None:
            raise Conflict(f"{self._host} has no container {name}", subject_of(name))
        power = lxd_config.observed(found).power
        if among and power not in among:
            raise Conflict(f"{name} on {self._host} is {power}", subject_of(name), {}, "start it first")
        return power

    # inside

    async def exec(
        self, name: str, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: bytes = b""
    ) -> ExecResult:
        """Run argv in a container. At the deadline Unreachable is raised, and LXD ends the process."""
        code, out, err = await self._api.execute(name, list(argv), stdin, subject=subject_of(name), timeout_s=timeout_s)
        return ExecResult(code, out.decode(errors="replace"), err.decode(errors="replace"))

    async def console_log(self, name: str, *, max_bytes: int = 65536) -> str:
        """Return the end of the console's log; LXD keeps it for the present, or else the last, run."""
        try:
            text = await self._api.get("instances", name, "console", subject=subject_of(name))
        except NotFound:
            if await self._find(name) is None:
                raise
            return ""  # nothing was written yet
        return str(text).encode()[-max_bytes:].decode(errors="ignore") if max_bytes > 0 else ""

    @asynccontextmanager
    async def console(self, name: str) -> AsyncIterator[ByteStream]:
        """Open /dev/console of a container. Raise Conflict (it does not run), Busy (somebody has it open).

        LXD gives no sign when it has attached: what is typed in the first tenths of a second may be lost.
        """
        await self._power(name, (PowerState.RUNNING,))

        def shown(operation: dict[str, Any]) -> bool:
            return operation["description"] == "Showing console" and concerns(operation, name)

        subject = subject_of(name)
        try:
            await self._wait_for(shown, subject, _LET_GO_S)
        except Busy as error:
            raise Busy(f"somebody has the console of {name} open", subject, {}, "close it there") from error
        async with lxd_console.opened(self._api, name, subject_of(name)) as stream:
            yield stream
