"""KVM: the serial console and the screen, as streams over the transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core.errors import HostFault
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor.console_session import opened
from drivers.hypervisor.domain_seen import DomainSeen, read
from drivers.hypervisor.kvm_core import KvmCore
from drivers.hypervisor.powers import Consoles, Displays
from drivers.transport.base import ByteStream

_OPEN_S = 10.0
# $1 pty. Two readers would each get half of what comes, so one at a time. QEMU's log of the console goes on: it is
# written before the pty. It all ends when stdin ends (the caller is gone) and when the reader ends (the VM is gone).
_BRIDGE = """exec 9<>"$1" 3<&0 || exit 1
flock -n 9 || { echo taken; exit 75; }
stty raw -echo <&9
echo ready
cat <&9 2>/dev/null & reader=$!
trap 'kill "$reader" 2>/dev/null' EXIT
trap 'exit 143' TERM HUP INT
{ cat <&3 >&9; kill "$reader"; } 2>/dev/null &
wait "$reader"
"""


class ConsolesVm(KvmCore, Consoles, Displays):
    """Part of KvmHypervisor."""

    @asynccontextmanager
    async def console(self, name: str) -> AsyncIterator[ByteStream]:
        """Open the serial console. Raise Conflict (it does not run), Busy (somebody has it open)."""
        found = await self._running(name, "opening the console of")
        if not found.pty:
            raise HostFault(
                f"{name} has no serial console on a pty", calls.subject(name), {}, "define it with a pty serial port"
            )
        async with self._transport.session(["sh", "-c", _BRIDGE, "sh", found.pty], sudo=True) as session:
            yield await opened(session, name, calls.subject(name), _OPEN_S)

    @asynccontextmanager
    async def display(self, name: str) -> AsyncIterator[ByteStream]:
        """Open its screen: VNC (RFB). Raise Conflict (it does not run)."""
        found = await self._running(name, "opening the screen of")
        if not found.vnc_port:
            raise HostFault(f"{name} has no VNC screen", calls.subject(name), {}, "define it with VNC graphics")
        async with self._transport.connect(found.vnc_port) as stream:
            yield stream

    async def _running(self, name: str, doing: str) -> DomainSeen:
        def look(c: Any) -> DomainSeen:
            return read(calls.require_active(c, name).XMLDesc(0))

        return await self._call(name, doing, look)

