"""Firecracker: paused, rebooted, its memory given back, its figures."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from core.errors import Busy, HostFault
from core.states import PowerState
from drivers.hypervisor import firecracker_scripts as scripts
from drivers.hypervisor.firecracker_core import FirecrackerCore, subject_of
from drivers.hypervisor.powers import Reboots, Suspends

_ASK_AGAIN_S = 5.0  # a guest that was booting when it was asked did not hear it


class SuspendsMicroVm(FirecrackerCore, Suspends):
    """Part of FirecrackerHypervisor."""

    async def suspend(self, name: str) -> bool:
        """Pause it in memory. Raise Conflict (absent, off)."""
        return await self.alone(name, lambda: self._hold(name, True))

    async def resume(self, name: str) -> bool:
        """Let it go on. Raise Conflict (absent, off)."""
        return await self.alone(name, lambda: self._hold(name, False))

    async def _hold(self, name: str, paused: bool) -> bool:
        await self._running(name)
        changed = await self._is_paused(name) is not paused
        await self._set_paused(name, paused)  # also when it is so already: a call that was killed left no mark
        return changed


class RebootsMicroVm(FirecrackerCore, Reboots):
    """Part of FirecrackerHypervisor. A microVM ends where a machine would reboot, so it is started again."""

    async def reboot(self, name: str, *, hard: bool = False, grace_s: float = 30.0) -> bool:
        """Ask the guest and wait grace_s, else (or hard) cut it off, then start it. Raise Conflict (absent, off)."""
        return await self.alone(name, lambda: self._reboot(name, 0.0 if hard else grace_s))

    async def _reboot(self, name: str, grace_s: float) -> bool:
        vm = await self._running(name)
        if await self._power(vm) is PowerState.PAUSED or not await self._shut_down(name, grace_s):
            await self._cut(name)
        defined = await self._there(name)
        return await self._start_vmm(name, defined.wanted)

    async def _shut_down(self, name: str, grace_s: float) -> bool:
        """Return whether the guest went down by itself within grace_s, asked by Ctrl-Alt-Del."""
        end = time.monotonic() + grace_s
        while (left_s := end - time.monotonic()) > 0:
            with suppress(Busy, HostFault):  # it has ended, or has not booted as far as that
                await self._call(name, "PUT", "/actions", {"action_type": "SendCtrlAltDel"}, doing="asking")
            tenths = str(max(1, int(10 * min(left_s, _ASK_AGAIN_S))))
            found = await self._script(scripts.ENDED, self.place.running(name), tenths)
            if found.stdout.strip() == "ended":
                return True
        return False


class MeasuresMicroVm(FirecrackerCore):
    """Part of FirecrackerHypervisor: what Firecracker itself counts, and the balloon that takes memory back."""

    async def metrics(self, name: str) -> dict[str, Any]:
        """Return Firecracker's own figures, flushed now (field names: its docs/metrics.md). Raise Conflict."""
        await self._running(name)
        await self._call(name, "PUT", "/actions", {"action_type": "FlushMetrics"}, doing="measuring")
        found = await self._script(scripts.METRICS, f"{self.place.definition(name)}/metrics")
        try:
            return dict(json.loads(found.stdout))
        except ValueError as error:
            raise HostFault(
                f"the metrics of {name} cannot be read", subject_of(name), {"seen": found.stdout[-500:]},
                "see its file metrics on the host",
            ) from error  # fmt: skip

    async def balloon(self, name: str) -> dict[str, Any]:
        """Return what the balloon holds (actual_mib, target_mib) and what the guest says of its memory, in bytes."""
        await self._running(name)
        return dict(await self._call(name, "GET", "/balloon/statistics", doing="measuring"))

    async def reclaim(self, name: str, mib: int) -> bool:
        """Ask the guest for mib of its memory; 0 gives all back. It keeps what it needs. Raise Conflict."""

        async def work() -> bool:
            await self._running(name)
            before = await self._call(name, "GET", "/balloon", doing="looking at")
            if before["amount_mib"] == mib:
                return False
            await self._call(name, "PATCH", "/balloon", {"amount_mib": mib}, doing="reclaiming memory of")
            return True

        return await self.alone(name, work)
