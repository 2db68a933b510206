"""KVM: paused, rebooted, its memory in a file."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import libvirt

from core.errors import Conflict
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor import domain_power as power
from drivers.hypervisor.kvm_core import KvmCore
from drivers.hypervisor.powers import Reboots, SavesState, Suspends

_WHOLE = "LibvirtQemudSave"  # of a file that is not complete: LibvirtQemudPart (qemu_saveimage.h)


class SuspendsVm(KvmCore, Suspends):
    """Part of KvmHypervisor."""

    async def suspend(self, name: str) -> bool:
        """Pause it in memory. Raise Conflict (absent, off)."""
        return await self._call(name, "suspending", lambda c: power.suspend(c, name))

    async def resume(self, name: str) -> bool:
        """Let it go on. Raise Conflict (absent, off)."""
        return await self._call(name, "resuming", lambda c: power.resume(c, name))


class RebootsVm(KvmCore, Reboots):
    """Part of KvmHypervisor."""

    async def reboot(self, name: str, *, hard: bool = False, grace_s: float = 30.0) -> bool:
        """Ask the guest and wait grace_s, else (or hard) reset it. Raise Conflict (absent, off)."""
        if hard or grace_s <= 0:
            return await self._call(name, "resetting", lambda c: power.reset(c, name))
        had_agent = await self._call(name, "rebooting", lambda c: power.ask_to_reboot(c, name))
        end = time.monotonic() + grace_s
        while time.monotonic() < end:
            if await self._call(name, "rebooting", lambda c: power.has_rebooted(c, name, had_agent)):
                return True
            await asyncio.sleep(0.2)
        return await self._call(name, "resetting", lambda c: power.reset(c, name))


class SavesVm(KvmCore, SavesState):
    """Part of KvmHypervisor. A file counts when its head says so: libvirt writes that last."""

    async def has_state(self, path: str) -> bool:
        """Say whether there is a whole saved file."""
        argv = ["head", "-c", str(len(_WHOLE)), "--", path]
        return (await self._transport.run(argv, sudo=True, check=False)).stdout == _WHOLE

    async def save(self, name: str, path: str) -> bool:
        """Write memory and devices to path. Raise Conflict (off and no such file). Cancelled: it runs on."""
        if not await self._call(name, "saving", lambda c: calls.is_active(c, name)):
            if await self.has_state(path):
                return False
            raise Conflict(
                f"{name} is off and {path} holds no saved state", calls.subject(name), {"path": path},
                "start it; its memory is lost",
            )
        # An old file would look like the new one if this is killed before libvirt begins; but one that libvirtd is
        # still writing, for a caller that died, holds the only memory there will be.
        await self._call(name, "saving", lambda c: calls.require_idle(c, name))
        await self._transport.run(["rm", "-f", "--", path], sudo=True)
        await self._job(name, "saving", lambda c: _save(c, name, path))
        return True

    async def restore(self, name: str, path: str) -> bool:
        """Let it run from a saved file; the file stays. Raise Conflict (no whole file there)."""
        if await self._call(name, "restoring", lambda c: calls.is_active(c, name)):
            return await self._call(name, "resuming", lambda c: power.resume(c, name))
        if not await self.has_state(path):
            raise Conflict(
                f"{path} holds no whole saved state of {name}", calls.subject(name), {"path": path},
                "start it; its memory is lost",
            )
        await self._job(name, "restoring", lambda c: power.restore(c, name, path))
        return True


def _save(c: Any, name: str, path: str) -> None:
    calls.require_active(c, name).saveFlags(path, None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
