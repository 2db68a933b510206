"""VMs on VMware ESXi: on a host by itself, or on a host, a cluster or a resource pool of a vCenter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pyVmomi import vim

from core.errors import Conflict, HostFault, Unsupported
from core.states import InstanceKind, PowerState
from drivers.hypervisor import esxi_config as config
from drivers.hypervisor.base import Capabilities, Capacity, Hypervisor, InstanceSpec, ObservedInstance
from drivers.hypervisor.esxi_changes import AdoptsEsxi, MigratesEsxi, SnapshotsEsxi
from drivers.hypervisor.esxi_core import subject
from drivers.hypervisor.esxi_events import TellsEventsEsxi
from drivers.hypervisor.esxi_power import RebootsEsxi, SuspendsEsxi, TicketsEsxi
from drivers.hypervisor.powers import MigratesLive
from drivers.transport.vsphere import VsphereTransport
from drivers.transport.vsphere_place import VM_FOLDER, read, read_one

_LIMITS = ("config.cpuAllocation.limit", "config.memoryAllocation.limit")  # of a pool, in MHz and MiB
_HOST = (
    "summary.hardware", "summary.quickStats", "summary.runtime.inMaintenanceMode", "summary.runtime.connectionState",
)  # fmt: skip


PROVEN_ON = "vcsim 0.51.0, a simulator of vSphere's API; never on a real ESXi or vCenter"
WHY_NOT = {
    "save": "vSphere keeps the memory of a suspended VM in the VM's own folder, and takes it from nowhere else: "
    "suspend frees the host's memory, and the VM stays on its host",
    "console": "vSphere has no way to a VM's serial port but one that the host itself opens to somebody: "
    "rackflow console --ticket leads to its screen",
    "display": "a screen of vSphere speaks VMware's own protocol, not VNC: rackflow console --ticket leads to it",
}


class EsxiHypervisor(
    SuspendsEsxi, RebootsEsxi, TicketsEsxi, SnapshotsEsxi, AdoptsEsxi, TellsEventsEsxi, Hypervisor
):
    """One place in one vSphere inventory; groups of powers have files of their own."""

    # -- the host

    async def prepare(self, *, bridges: Sequence[tuple[str, str]] = ()) -> list[str]:
        """Check that hosts are there and in use. Raise HostFault (none is), Unreachable."""
        if not await self._hosts():
            raise HostFault(
                f"no host of {self._host} is connected and out of maintenance mode", f"host/{self._host}",
                fix="see to its hosts in vSphere",
            )
        await self.refreshed()
        return []

    async def _hosts(self) -> list[dict[str, Any]]:
        """Return what is known of the hosts that can take VMs now."""
        found = await self._transport.call("measuring", lambda c: read(c, self.place.hosts, _HOST))
        return [
            values for _, values in found
            if values.get("summary.runtime.connectionState") == "connected"
            and not values.get("summary.runtime.inMaintenanceMode")
        ]  # fmt: skip

    async def capabilities(self) -> Capabilities:
        """Return what vSphere can do here."""
        about = await self._transport.call("asking for the version of", lambda c: c.about)
        return Capabilities(
            driver="esxi", kinds=(InstanceKind.VM,), version=f"{about.name} {about.version} build {about.build}",
            architecture="x86_64", proven_on=PROVEN_ON, why_not=WHY_NOT, suspend=True, reboot=True, reconfigure=True,
            resize_live=True, snapshot=True, snapshot_live=True, migrate_live=isinstance(self, MigratesLive),
            ticket=True, adopt=True,
        )  # fmt: skip

    async def capacity(self) -> Capacity:
        """Return CPUs (threads) and memory of the place's hosts that are in use, within the limits of its pool."""
        hosts = await self._hosts()
        hardware = [one["summary.hardware"] for one in hosts]
        used = sum(one["summary.quickStats"].overallMemoryUsage or 0 for one in hosts)
        cpus, memory_mib = sum(one.numCpuThreads for one in hardware), sum(one.memorySize for one in hardware) // 2**20
        mhz, most_mib = await self._limits()
        fastest = max((one.cpuMhz for one in hardware), default=1)
        return Capacity(int(min(cpus, mhz // fastest)), int(min(memory_mib, most_mib)), used)

    async def _limits(self) -> list[float]:
        """Return the limits of the pool in MHz and MiB. Those of a whole cluster or host only repeat its size."""
        found = await self._transport.call("measuring", lambda c: read_one(c, self.place.pool, ("parent", *_LIMITS)))
        is_inner = isinstance(found.get("parent"), vim.ResourcePool)
        return [found[one] if is_inner and found.get(one, -1) >= 0 else math.inf for one in _LIMITS]  # -1: none

    # -- looking

    async def instances(self) -> list[ObservedInstance]:
        """Return all VMs of the place: in full the first time, afterwards what changed is asked for."""
        return (await self.refreshed()).all()

    async def observe(self, name: str) -> ObservedInstance:
        """Return one; power ABSENT if there is none."""
        seen = (await self.refreshed()).seen(name)
        return seen or ObservedInstance(name, PowerState.ABSENT, InstanceKind.VM, None)

    # -- changing

    async def define(self, spec: InstanceSpec) -> bool:
        """Make the VM, or bring it to its spec. Raise Conflict (somebody else's), HostFault (disk, port group)."""
        if spec.kind is not InstanceKind.VM:
            raise Unsupported(f"{spec.name} is a {spec.kind}; esxi runs VMs", f"instance/{spec.id}")
        return await self.alone(spec.name, lambda: self._define(spec))

    async def _define(self, spec: InstanceSpec) -> bool:
        inventory = await self.refreshed()
        vm, seen = inventory.find(spec.name), inventory.seen(spec.name)
        if vm is None or seen is None:
            return await self._create(spec)
        if seen.instance_id != spec.id:
            raise Conflict(
                f"a VM {spec.name} on {self._host} is not ours", f"instance/{spec.id}",
                {"instance_id": seen.instance_id}, "rename or remove it there",
            )  # fmt: skip
        return await self._reconfigure(vm, spec)

    async def _create(self, spec: InstanceSpec) -> bool:
        settings, networks, folder = await self.guestinfo(spec), await self.networks(), await self._folder()
        config.require_networks(spec, networks)
        host = self.place.hosts[0] if self.place.one_host else None
        wanted = config.new(spec, settings, networks)
        await self.change(spec.name, "making", lambda: folder.CreateVM_Task(wanted, self.place.pool, host))
        return True

    async def _folder(self) -> Any:
        """Return where VMs are made: in a vCenter a folder of ours."""
        parent = self.place.vm_folder
        if not self.place.is_vcenter:
            return parent

        def ensure(content: Any) -> Any:
            try:
                return parent.CreateFolder(VM_FOLDER)
            except vim.fault.DuplicateName as there:
                return there.object

        return await self._transport.call("looking for our folder on", ensure)

    async def start(self, name: str) -> bool:
        """Start, or resume what was suspended. Raise Conflict (absent), NoCapacityNow, HostFault."""
        return await self.alone(name, lambda: self._start(name))

    async def _start(self, name: str) -> bool:
        vm, seen = await self.look(name)
        if seen.power is PowerState.RUNNING:
            return False
        await self.change(name, "starting", lambda: vm.PowerOnVM_Task(None))
        return True

    async def stop(self, name: str, *, grace_s: float = 30.0) -> bool:
        """Ask the guest by its Tools, wait grace_s, then cut the power. Raise Conflict (absent)."""
        return await self.alone(name, lambda: self._stop(name, grace_s))

    async def _stop(self, name: str, grace_s: float) -> bool:
        vm, seen = await self.look(name)
        if seen.power is PowerState.STOPPED:
            return False
        if seen.power is PowerState.RUNNING and grace_s > 0 and await self.shut_down(vm, name, grace_s):
            return True
        await self.change(name, "cutting the power of", lambda: vm.PowerOffVM_Task())
        return True

    async def undefine(self, name: str) -> bool:
        """Take the VM away with its snapshots, not its disks. Raise Conflict (it runs; not ours); absent is fine."""
        return await self.alone(name, lambda: self._undefine(name))

    async def _undefine(self, name: str) -> bool:
        inventory = await self.refreshed()
        vm, seen = inventory.find(name), inventory.seen(name)
        if vm is None or seen is None:
            return False
        if seen.instance_id is None or seen.power is not PowerState.STOPPED:
            why = "is not ours" if seen.instance_id is None else f"is {seen.power}"
            raise Conflict(f"{name} on {self._host} {why}", subject(name), {"power": seen.power}, "stop it first")
        if await self.snapshots(name):
            await self.change(name, "dropping the snapshots of", lambda: vm.RemoveAllSnapshots_Task(True))
        kept = config.without_disks(await self.settings(name, vm))
        if kept is not None:  # a VM is destroyed with the disks that it has
            await self.reconfigured(name, vm, kept)
        await self.change(name, "undefining", lambda: vm.Destroy_Task())
        return True

    # -- Reconfigures

    async def reconfigure(self, spec: InstanceSpec) -> bool:
        """Bring what runs to its spec. Raise Unsupported (what can only grow), Conflict (absent, off)."""

        async def work() -> bool:
            vm, _ = await self.running(spec.name)
            return await self._reconfigure(vm, spec)

        return await self.alone(spec.name, work)

    async def _reconfigure(self, vm: Any, spec: InstanceSpec) -> bool:
        settings, networks = await self.guestinfo(spec), await self.networks()
        config.require_networks(spec, networks)
        changes = config.changes(await self.settings(spec.name, vm), spec, settings, networks)
        if changes is None:
            return False
        await self.reconfigured(spec.name, vm, changes)
        return True


class VcenterHypervisor(MigratesEsxi, EsxiHypervisor):
    """With vMotion, which takes a vCenter."""


def hypervisor_of(transport: VsphereTransport) -> EsxiHypervisor:
    """Return the driver of the place that a session is about."""
    return (VcenterHypervisor if transport.place.is_vcenter else EsxiHypervisor)(transport)
