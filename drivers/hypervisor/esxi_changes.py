"""Snapshots, vMotion and adoption of VMs of ESXi."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyVmomi import vim

from core.clock import rfc3339
from core.errors import Conflict, NotFound, Unsupported
from core.states import InstanceKind, PowerState
from drivers.hypervisor import esxi_config as config
from drivers.hypervisor.base import DiskAttachment, Hypervisor, NicAttachment
from drivers.hypervisor.esxi_core import EsxiCore, subject
from drivers.hypervisor.powers import Adopts, Found, MigratesLive, Move, Snapshots, SnapshotSeen
from drivers.transport.base import Progress
from drivers.transport.vsphere_place import read_one


def _flat(trees: Any) -> Iterator[Any]:
    for one in trees or ():
        yield one
        yield from _flat(one.childSnapshotList)


class SnapshotsEsxi(EsxiCore, Snapshots):
    """Snapshots are vSphere's own, by name; each is one task, whole or not at all."""

    async def snapshots(self, name: str) -> list[SnapshotSeen]:
        """Return them, oldest first. Raise Conflict (absent)."""
        vm, _ = await self.look(name)
        return [
            SnapshotSeen(one.name, one.state == "poweredOn", rfc3339(one.createTime) or "")
            for one in await self._snapshots(name, vm)
        ]

    async def _snapshots(self, name: str, vm: Any) -> list[Any]:
        found = await self._transport.call(
            "listing snapshots on", lambda c: read_one(c, vm, ["snapshot"]), subject=subject(name)
        )
        return list(_flat(found["snapshot"].rootSnapshotList)) if "snapshot" in found else []

    async def snapshot(self, name: str, snapshot: str, *, memory: bool = False) -> bool:
        """Snapshot all disks, and with memory what runs. Raise Conflict (absent)."""

        async def work() -> bool:
            vm, seen = await self.look(name)
            if any(one.name == snapshot for one in await self._snapshots(name, vm)):
                return False
            with_memory = memory and seen.power is PowerState.RUNNING
            await self.change(
                name, "taking a snapshot of", lambda: vm.CreateSnapshot_Task(snapshot, "", with_memory, False)
            )
            return True

        return await self.alone(name, work)

    async def revert(self, name: str, snapshot: str) -> bool:
        """Go back. One without memory leaves the VM off: it is started again if it ran. Raise NotFound."""

        async def work() -> bool:
            vm, seen = await self.known(name)
            there = {one.name: one for one in await self._snapshots(name, vm)}
            if snapshot not in there:
                raise NotFound(f"{name} has no snapshot {snapshot}", subject(name), {"there": sorted(there)})
            ref = there[snapshot].snapshot
            await self.change(name, "reverting", lambda: ref.RevertToSnapshot_Task(None, True))
            ran = seen.power is PowerState.RUNNING or there[snapshot].state == "poweredOn"
            _, now = await self.look(name)
            if ran and now.power is PowerState.STOPPED:
                await self.change(name, "starting", lambda: vm.PowerOnVM_Task(None))
            return True

        return await self.alone(name, work)

    async def drop_snapshot(self, name: str, snapshot: str) -> bool:
        """Take one away, not those that follow it; absent is fine."""

        async def work() -> bool:
            vm, _ = await self.known(name)
            found = next((one for one in await self._snapshots(name, vm) if one.name == snapshot), None)
            if found is None:
                return False
            await self.change(
                name, "dropping a snapshot of", lambda: found.snapshot.RemoveSnapshot_Task(False, True)
            )
            return True

        return await self.alone(name, work)


class MigratesEsxi(EsxiCore, MigratesLive):
    """vMotion between places of one vCenter, whose disks stay where they are."""

    async def migrate(
        self, move: Move, target: Hypervisor, *, timeout_s: float, progress: Progress | None = None
    ) -> bool:
        """Move a VM that runs. Raise Conflict (absent on both), Unsupported (another vCenter; other disks)."""
        spec = move.spec
        if not isinstance(target, EsxiCore):
            raise Unsupported(f"{spec.name}: its target is no ESXi host", f"instance/{spec.id}")
        await self._require_same(target, move)

        async def work() -> bool:
            if (await target.refreshed()).find(spec.name) is not None:
                return False
            vm, _ = await self.running(spec.name)
            where = vim.vm.RelocateSpec(
                host=target.place.hosts[0] if target.place.one_host else None, pool=target.place.pool
            )
            await self.change(spec.name, "moving", lambda: vm.RelocateVM_Task(where, "highPriority"), timeout_s)
            return True

        return await self.alone(spec.name, work)

    async def _require_same(self, target: EsxiCore, move: Move) -> None:
        mine, other = [
            await one._transport.call("asking for the identity of", lambda c: c.about.instanceUuid)
            for one in (self, target)
        ]
        if mine is None or mine != other:
            why = "the hosts are not of one vCenter"
        elif move.copy_disks:
            why = "its disks lie where the target does not see them"
        else:
            return
        raise Unsupported(
            f"{move.spec.name} cannot be moved live: {why}", f"instance/{move.spec.id}",
            fix="use a datastore that both see, or migrate it --cold",
        )

    async def preflight(self, name: str) -> list[str]:
        """Return what is known against a vMotion of it now."""
        vm, seen = await self.look(name)
        found = await self.settings(name, vm)
        drives: list[Any] = [one for one in found.hardware.device if isinstance(one, vim.vm.device.VirtualCdrom)]
        local = [one for one in drives if not isinstance(one.backing, vim.vm.device.VirtualCdrom.IsoBackingInfo)]
        return [
            *([] if seen.power is PowerState.RUNNING else [f"it is {seen.power}"]),
            *(["a drive of its host is connected to it"] if any(one.connectable.connected for one in local) else []),
        ]


class AdoptsEsxi(EsxiCore, Adopts):
    """Adoption marks a VM in its notes."""

    async def describe(self, name: str) -> Found:
        """Describe a VM. Raise NotFound."""
        vm, seen = await self.known(name)
        found = await self.settings(name, vm)
        disks = tuple(
            DiskAttachment(
                "root" if number == 0 else f"data{number}", "file", file, "vmdk", int(one.capacityInKB) // 1024
            )
            for number, (file, one) in enumerate(found.disks().items())
        )
        networks = await self.networks()
        nics = tuple(
            NicAttachment(f"eth{number}", mac, _name_of(one, networks), type(one).__name__.rpartition(".")[2])
            for number, (mac, one) in enumerate(found.nics().items())
        )
        problems = ["it has no disk"] if not disks else []
        return Found(
            name, InstanceKind.VM, seen.power, float(seen.cpus), seen.memory_mib, disks, nics, tuple(problems)
        )

    async def adopt(self, name: str, instance_id: str) -> bool:
        """Mark a VM as ours. Raise NotFound, Conflict (it is another instance already)."""
        return await self.alone(name, lambda: self._mark(name, instance_id))

    async def disown(self, name: str) -> bool:
        """Take the mark away again. Raise NotFound."""
        return await self.alone(name, lambda: self._mark(name, ""))

    async def _mark(self, name: str, instance_id: str) -> bool:
        vm, seen = await self.known(name)
        if (seen.instance_id or "") == instance_id:
            return False
        if instance_id and seen.instance_id is not None:
            raise Conflict(
                f"{name} on {self._host} is instance {seen.instance_id} already", subject(name),
                {"instance_id": seen.instance_id}, "look at that instance",
            )  # fmt: skip
        notes = config.marked((await self.settings(name, vm)).notes, instance_id)
        await self.reconfigured(name, vm, vim.vm.ConfigSpec(annotation=notes))
        return True


def _name_of(nic: Any, networks: config.Networks) -> str:
    """Return the name of a NIC's port group, "" if it is none of this host's."""
    mine = nic.backing
    for name, one in networks.items():
        same_name = getattr(mine, "deviceName", None) == getattr(one, "deviceName", "")
        port, other = getattr(mine, "port", None), getattr(one, "port", None)
        if same_name or (port and other and port.portgroupKey == other.portgroupKey):
            return name
    return ""
