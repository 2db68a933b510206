"""MicroVMs on a Linux host: Firecracker, started and looked after over SSH, without an agent.

Proven on a shim that speaks its API with an emulated QEMU behind it, never on Firecracker itself: docs/firecracker.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from core.errors import Busy, Conflict, HostFault, Unreachable
from core.states import InstanceKind, PowerState
from drivers.hypervisor import firecracker_config as config
from drivers.hypervisor import firecracker_scripts as scripts
from drivers.hypervisor.base import Capabilities, Capacity, Hypervisor, InstanceSpec, ObservedInstance
from drivers.hypervisor.firecracker_console import ConsolesMicroVm
from drivers.hypervisor.firecracker_core import HELD_BY_USER, subject_of
from drivers.hypervisor.firecracker_power import MeasuresMicroVm, RebootsMicroVm, SuspendsMicroVm
from drivers.hypervisor.firecracker_seen import Vm
from drivers.hypervisor.firecracker_snapshots import SnapshotsMicroVm

PROVEN_ON = "a shim of its API with QEMU's microvm, emulated; never on Firecracker itself"


class FirecrackerHypervisor(
    SuspendsMicroVm, RebootsMicroVm, SnapshotsMicroVm, ConsolesMicroVm, MeasuresMicroVm, Hypervisor
):  # fmt: skip
    """One host's microVMs; groups of powers have files of their own. Each verb is a script on the host or two."""

    # -- the host

    async def prepare(self, *, bridges: Sequence[tuple[str, str]] = ()) -> list[str]:
        """Check that Firecracker and its tools are there, make the folders. Raise HostFault."""
        version, _, has_tools = await self._about()
        place, subject = self.place, f"host/{self._host}"
        if not version:
            raise HostFault(
                f"{place.program} is not installed on {self._host}", subject, {},
                "put a release of Firecracker there (1.8 or newer), or name it in the setting drivers.firecracker",
            )  # fmt: skip
        if config.is_too_old(version):
            oldest = ".".join(map(str, config.OLDEST))
            raise HostFault(
                f"{version} on {self._host} is too old", subject, {"version": version}, f"put {oldest} or newer there"
            )
        if not has_tools:
            raise HostFault(
                f"{self._host} lacks /dev/net/tun, ip, setsid or flock", subject, {},
                "modprobe tun; apt-get install iproute2 util-linux",
            )
        if place.jailer and not place.user:
            raise HostFault(f"no user for jails on {self._host}", subject, {}, "set drivers.jail_user to UID:GID")
        return (await self._script(scripts.PREPARE, place.state, place.run, place.kernels)).stdout.splitlines()

    async def capabilities(self) -> Capabilities:
        """Return what Firecracker can do here, and which kernels the host has. Raise HostFault (not installed)."""
        version, machine, _ = await self._about()
        if not version:
            raise HostFault(f"{self.place.program} is not installed on {self._host}", f"host/{self._host}")
        return Capabilities(
            driver="firecracker", kinds=(InstanceKind.VM,), version=version, architecture=machine,
            kernels=tuple(sorted(self._kernels)), proven_on=PROVEN_ON, console_log=True, suspend=True, reboot=True,
            snapshot=True, snapshot_live=True, console=True,
        )  # fmt: skip

    async def capacity(self) -> Capacity:
        """Return CPUs and memory of the whole host."""
        cpus, *lines = (await self._script(scripts.CAPACITY)).stdout.splitlines()
        mib = {words[0].rstrip(":"): int(words[1]) // 1024 for words in map(str.split, lines)}
        return Capacity(int(cpus), mib["MemTotal"], mib["MemTotal"] - mib["MemAvailable"])

    # -- looking

    async def instances(self) -> list[ObservedInstance]:
        """Return all microVMs in one call; only those that may be paused are asked themselves."""
        return list(await asyncio.gather(*(self._observed(vm) for vm in (await self._look()).values())))

    async def observe(self, name: str) -> ObservedInstance:
        """Return one; power ABSENT if there is none."""
        found = await self._find(name)
        return await self._observed(found) if found else _absent(name)

    async def _observed(self, vm: Vm) -> ObservedInstance:
        try:
            return vm.observed(await self._power(vm))
        except (Busy, Unreachable) as error:  # it hangs, or has just ended: the others are to be seen all the same
            return vm.observed(PowerState.UNKNOWN, error.message)

    # -- changing

    async def define(self, spec: InstanceSpec) -> bool:
        """Keep what it is to be started with. Raise Conflict (not ours), Invalid (kernel), Unsupported."""
        wanted = config.definition(spec)
        return await self.alone(spec.name, lambda: self._define(spec, config.dumps(wanted), wanted["kernel"]))

    async def _define(self, spec: InstanceSpec, text: str, kernel: str) -> bool:
        place = self.place
        found = await self._script(
            scripts.DEFINE, place.definition(spec.name), place.running(spec.name), config.mark(spec.id),
            place.kernel(kernel), stdin=text.encode(), check=False,
        )  # fmt: skip
        if found.exit_code == scripts.NO_KERNEL:
            await self._about()
            raise self.no_kernel(spec.name, kernel)
        if found.exit_code != 0:
            raise self.refused(spec.name, "defining", found)
        return found.stdout.strip() == scripts.CHANGED

    async def start(self, name: str) -> bool:
        """Start, or resume what was paused. Raise Conflict (absent), HostFault."""
        return await self.alone(name, lambda: self._start(name))

    async def _start(self, name: str) -> bool:
        vm = await self._there(name)
        if not vm.is_ours:
            raise Conflict(f"a microVM {name} on {self._host} is not ours", subject_of(name))
        if not vm.runs:
            return await self._start_vmm(name, vm.wanted)
        if await self._power(vm) is PowerState.PAUSED:
            await self._set_paused(name, False, HELD_BY_USER)
            return True
        return False

    async def stop(self, name: str, *, grace_s: float = 30.0) -> bool:
        """Ask the guest by Ctrl-Alt-Del, wait grace_s, then cut the power. Raise Conflict (absent)."""
        return await self.alone(name, lambda: self._stop(name, grace_s))

    async def _stop(self, name: str, grace_s: float) -> bool:
        vm = await self._there(name)
        if not vm.runs:
            return False
        hears = grace_s > 0 and await self._power(vm) is PowerState.RUNNING
        if hears and await self._shut_down(name, grace_s):
            return True
        return await self._cut(name)

    async def undefine(self, name: str) -> bool:
        """Take definition, logs and snapshots away. Raise Conflict (it runs; not ours); absent is fine."""
        return await self.alone(name, lambda: self._undefine(name))

    async def _undefine(self, name: str) -> bool:
        vm = await self._find(name)
        if vm is None:
            return False
        place, snapshots = self.place, config.snapshots_of(vm.wanted) if vm.is_ours else ""
        found = await self._script(
            scripts.UNDEFINE, place.definition(name), place.running(name),
            config.mark(str(vm.wanted.get("instance_id", ""))), place.jail(name), snapshots, check=False,
        )  # fmt: skip
        if found.exit_code != 0:
            raise self.refused(name, "undefining", found)
        return found.stdout.strip() == scripts.CHANGED


def _absent(name: str) -> ObservedInstance:
    return ObservedInstance(name, PowerState.ABSENT, InstanceKind.VM, None)
