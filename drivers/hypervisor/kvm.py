"""VMs on a Linux host: QEMU under libvirt, with KVM or emulated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import libvirt

from core.errors import NotFound, Unreachable, Unsupported
from core.settings import DriverSettings
from core.states import InstanceKind, PowerState
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor import guest_agent
from drivers.hypervisor.base import (
    Capabilities,
    Capacity,
    ExecResult,
    Hypervisor,
    InstanceSpec,
    ObservedInstance,
)
from drivers.hypervisor.domain import LOG_DIR, console_path
from drivers.hypervisor.domain_stats import GROUPS, QUICK_GROUPS
from drivers.hypervisor.kvm_adopt import AdoptsVm
from drivers.hypervisor.kvm_backup import BacksUpVm
from drivers.hypervisor.kvm_console import ConsolesVm
from drivers.hypervisor.kvm_migration import MigratesVm
from drivers.hypervisor.kvm_power import RebootsVm, SavesVm, SuspendsVm
from drivers.hypervisor.kvm_reconfigure import ReconfiguresVm
from drivers.transport.base import Transport

_SWEEP_S = 15.0  # for all instances of a host; a QEMU that hangs must not hide the others
_HANGS_S = 5.0  # for one; libvirtd waits for its QEMU for ever
_ASK_AGAIN_S = 5.0  # a guest that was booting when asked to shut down did not hear it
_ROTATED = ("", ".0", ".1", ".2")  # virtlogd keeps three old files (max_backups in virtlogd.conf)


class KvmHypervisor(
    SuspendsVm, RebootsVm, SavesVm, ReconfiguresVm, BacksUpVm, MigratesVm, ConsolesVm, AdoptsVm, Hypervisor
):  # fmt: skip
    """One host's libvirtd; each power has a file of its own. Each verb is a call or two."""

    def __init__(self, transport: Transport, settings: DriverSettings) -> None:
        super().__init__(transport, settings)
        self._capabilities: Capabilities | None = None

    # -- the host

    async def prepare(self, *, bridges: Sequence[tuple[str, str]] = ()) -> list[str]:
        """Check that libvirtd answers, find the domain type. Bridges are the network driver's. Raise HostFault."""
        await self._link.call("asking libvirtd for its version", lambda c: c.getLibVersion())
        domain_type, why = await self.find_domain_type()
        # libvirt asks QEMU what it can do before the first definition, for seconds; better now than in a deployment.
        await self._link.call(
            "asking what QEMU can do", lambda c: c.getDomainCapabilities(None, None, None, domain_type)
        )
        await self.capabilities()
        return [f"domain type {domain_type}: {why}"] if why else []

    async def capabilities(self) -> Capabilities:
        """Return what this host can do; asked for once."""
        if self._capabilities is None:
            domain_type, _ = await self.find_domain_type()

            def ask(c: Any) -> tuple[str, int, int]:
                return c.getInfo()[0], c.getLibVersion(), c.getVersion()

            architecture, libvirt_version, qemu_version = await self._link.call("asking for versions", ask)
            self._capabilities = Capabilities(
                driver="kvm", kinds=(InstanceKind.VM,), architecture=architecture, domain_type=domain_type,
                version=f"libvirt {_dotted(libvirt_version)}, QEMU {_dotted(qemu_version)}",
                exec=True, console_log=True, suspend=True, reboot=True, save=True, reconfigure=True, resize_live=True,
                snapshot=True, snapshot_live=True, migrate_live=True, console=True, display=True, backup=True,
                backup_incremental=True, adopt=True, grants=("pinning", "numa", "hugepages", "pci"),
            )
        return self._capabilities

    async def capacity(self) -> Capacity:
        """Return CPUs and memory of the whole host."""

        def ask(c: Any) -> tuple[int, dict[str, int]]:
            return c.getCPUMap()[0], c.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)

        cpus, memory = await self._link.call("asking for the host's capacity", ask)
        idle = memory["free"] + memory.get("buffers", 0) + memory.get("cached", 0)
        return Capacity(cpus, memory["total"] // 1024, max(0, memory["total"] - idle) // 1024)

    # -- looking

    async def instances(self) -> list[ObservedInstance]:
        """Return all domains in one call; when one of them hangs, in a second one that asks no QEMU process."""
        doing = "listing the domains"
        asking = asyncio.ensure_future(self._link.call(doing, lambda c: calls.all_stats(c, GROUPS, self._marks)))
        if await self._answers(asking, _SWEEP_S):
            return asking.result()
        return await self._link.call(doing, lambda c: calls.all_stats(c, QUICK_GROUPS, self._marks))

    async def observe(self, name: str) -> ObservedInstance:
        """Return one; power ABSENT if there is none. Of one that hangs only what its QEMU need not be asked for."""
        asking = asyncio.ensure_future(self._call(name, "observing", lambda c: calls.stats(c, name, self._marks)))
        if await self._answers(asking, _HANGS_S):
            return asking.result()
        return await self._call(name, "observing", lambda c: calls.stats(c, name, self._marks, QUICK_GROUPS))

    # -- changing

    async def define(self, spec: InstanceSpec) -> bool:
        """Define the domain unless it is there as wanted. Raise Conflict if the name is somebody else's."""
        if spec.kind is not InstanceKind.VM:
            raise Unsupported(f"{spec.name} is a {spec.kind}; kvm runs VMs", f"instance/{spec.id}")
        domain_type, _ = await self.find_domain_type()
        return await self._call(
            spec.name, "defining", lambda c: calls.define(c, spec, domain_type, self._marks)
        )

    async def start(self, name: str) -> bool:
        """Start, or resume what was paused. Raise Conflict if absent, HostFault, NoCapacityNow (no memory left)."""
        return await self._call(name, "starting", lambda c: calls.start(c, name))

    async def stop(self, name: str, *, grace_s: float = 30.0) -> bool:
        """Ask the guest (agent, else power button), wait grace_s, then cut the power. Raise Conflict if absent."""
        if not await self._call(name, "stopping", lambda c: calls.is_active(c, name)):
            return False
        if grace_s > 0 and await self._shut_down(name, grace_s):
            return True
        return await self._call(name, "cutting the power of", lambda c: calls.cut_power(c, name))

    async def _shut_down(self, name: str, grace_s: float) -> bool:
        """Return whether the guest went down by itself within grace_s. One that does not take the order is cut off."""
        end, pause_s, ask_at = time.monotonic() + grace_s, 0.2, 0.0
        while (now := time.monotonic()) < end:
            if now >= ask_at:
                asking = asyncio.ensure_future(
                    self._call(name, "shutting down", lambda c: calls.ask_to_shut_down(c, name))
                )
                if await self._answers(asking, end - now):
                    asking.result()
                ask_at = time.monotonic() + _ASK_AGAIN_S
            await asyncio.sleep(min(pause_s, max(0.0, end - time.monotonic())))
            pause_s = min(pause_s * 1.5, 1.0)
            if not await self._call(name, "stopping", lambda c: calls.is_active(c, name)):
                return True
        return False

    async def undefine(self, name: str) -> bool:
        """Take the definition and its logs away. Raise Conflict if it runs or is not ours; absent is fine."""
        changed = await self._call(name, "undefining", lambda c: calls.undefine(c, name, self._marks))
        # Also when it was absent: a call that was killed, or a live migration, has left them.
        logs = [base + end for base in (console_path(name), f"{LOG_DIR}/{name}.log") for end in _ROTATED]
        await self._transport.run(["rm", "-f", "--", *logs], sudo=True)
        return changed

    # -- inside

    async def exec(
        self, name: str, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: bytes = b""
    ) -> ExecResult:
        """Run argv by the guest agent. Raise NotFound, Conflict (it does not run), Busy (no agent yet), Unreachable."""
        begun = await self._ask(name, guest_agent.start_request(argv, stdin))
        if begun is None:
            return ExecResult(guest_agent.COMMAND_NOT_FOUND, "", f"{argv[0]}: not found\n")
        pid, pause_s, end = int(begun["pid"]), 0.02, time.monotonic() + timeout_s
        while time.monotonic() < end:
            done = guest_agent.result(await self._ask(name, guest_agent.status_request(pid)))
            if done is not None:
                return done
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.6, 0.5)
        await self._ask(name, guest_agent.start_request(["kill", str(pid)], b""))
        raise Unreachable(
            f"{argv[0]} in {name} did not end within {timeout_s:g} s", calls.subject(name), {"argv": list(argv)},
            "give it more time, or see what it waits for",
        )

    async def _ask(self, name: str, request: Mapping[str, Any]) -> Any:
        return await self._call(
            name, "asking the guest agent of", lambda c: guest_agent.ask(calls.require_running(c, name), request)
        )

    async def console_log(self, name: str, *, max_bytes: int = 65536) -> str:
        """Return the end of the serial console's log. Raise NotFound."""
        argv = ["tail", "-c", str(max_bytes), "--", console_path(name)]
        found = await self._transport.run(argv, sudo=True, check=False)
        if found.exit_code == 0:
            return found.stdout
        if (await self.observe(name)).power is PowerState.ABSENT:
            raise NotFound(f"there is no {name} on {self._host}", calls.subject(name))
        return ""  # never started


def _dotted(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
