"""KVM: what runs is changed without a stop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import libvirt

from core.errors import Busy
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor import domain_live as live
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.domain_changes import Changes
from drivers.hypervisor.kvm_core import KvmCore
from drivers.hypervisor.powers import Reconfigures

_LET_GO_S = 20.0  # a guest that is still booting does not hear of it
_BALLOON_S = 30.0


class ReconfiguresVm(KvmCore, Reconfigures):
    """Part of KvmHypervisor."""

    async def reconfigure(self, spec: InstanceSpec) -> bool:
        """Bring what runs to spec, then the definition. Raise Unsupported before any change, Conflict, Busy.

        Busy: the guest has not let go of a device, or not given or taken memory; the same call goes on.
        """
        domain_type, _ = await self.find_domain_type()

        def begin(c: Any) -> Changes:
            domain = calls.require_active(c, spec.name)
            wanted = live.needed(domain, spec)
            try:
                live.apply(domain, wanted)
            except libvirt.libvirtError as error:
                if live.needed(domain, spec) == wanted:
                    raise
                raise Busy(  # a call that was killed, here or at libvirtd, has done a part in the meantime
                    f"{spec.name} is being changed by another call", calls.subject(spec.name), {"seen": str(error)},
                    "try again",
                ) from error
            return wanted

        wanted = await self._call(spec.name, "changing", begin)
        await self._wait_for_guest(spec, wanted)
        defined = await self._call(
            spec.name, "defining", lambda c: calls.define(c, spec, domain_type, self._marks)
        )
        return bool(wanted) or defined

    async def _wait_for_guest(self, spec: InstanceSpec, wanted: Changes) -> None:
        begin, pause_s = time.monotonic(), 0.05
        while True:
            left, has_memory = await self._call(spec.name, "looking at", lambda c: _state(c, spec.name, wanted))
            late_s = time.monotonic() - begin
            if not left and has_memory:
                return
            if (left and late_s > _LET_GO_S) or (not has_memory and late_s > _BALLOON_S):
                words = f"has not let go of {', '.join(left)}" if left else "has not given or taken memory"
                raise Busy(
                    f"the guest of {spec.name} {words}", calls.subject(spec.name), {"left": left},
                    "wait until it has booted; see that it does not use the disk, and has the balloon driver",
                )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.5)


def _state(c: Any, name: str, wanted: Changes) -> tuple[list[str], bool]:
    domain = calls.require_active(c, name)
    return live.gone(domain, wanted.detach), live.has_memory(domain, wanted.memory_kib)
