"""Snapshots, backups and images of simulated instances."""

from __future__ import annotations

from collections.abc import Sequence

from core.clock import now, rfc3339
from core.errors import Conflict, NotFound, Unsupported
from core.states import InstanceKind
from drivers.fake_files import pack_image, pack_instance, pack_volume
from drivers.fake_things import FakeSnapshot, FakeVolume
from drivers.hypervisor.fake_part import FakePart, found, known
from drivers.hypervisor.powers import BacksUp, BackupFile, SavesImages, Snapshots, SnapshotSeen


class FakeSnapshots(FakePart, Snapshots):
    async def snapshots(self, name: str) -> list[SnapshotSeen]:
        async with self.call("snapshots") as host:
            kept = found(host, name).snapshots
            return [SnapshotSeen(s, one.memory is not None, one.created_at) for s, one in kept.items()]

    async def snapshot(self, name: str, snapshot: str, *, memory: bool = False) -> bool:
        async with self.call("snapshot") as host:
            instance = known(host, name)
            if snapshot in instance.snapshots:
                return False
            if instance.is_on and "snapshot_live" not in self.powers:
                raise Unsupported(f"{name} cannot be snapshot while it runs", f"host/{host.name}", fix="stop it")
            if memory and not instance.is_on:
                raise Conflict(f"host {host.name}: {name} does not run: no memory", f"host/{host.name}")
            for volume in host.disks(instance):
                volume.keep(snapshot)
            instance.snapshots[snapshot] = FakeSnapshot(rfc3339(now()) or "", instance.memory if memory else None)
            return True

    async def revert(self, name: str, snapshot: str) -> bool:
        async with self.call("revert") as host:
            instance = known(host, name)
            if snapshot not in instance.snapshots:
                raise NotFound(f"host {host.name}: {name} has no snapshot {snapshot}", f"host/{host.name}")
            on, memory = instance.is_on, instance.snapshots[snapshot].memory
            if on:
                host.power_off(instance)
            for volume in host.disks(instance):
                if snapshot in volume.snapshots:  # a disk that came later stays as it is
                    volume.revert(snapshot)
            if on or memory is not None:
                host.power_on(instance, memory=memory)
            return True

    async def drop_snapshot(self, name: str, snapshot: str) -> bool:
        async with self.call("drop_snapshot") as host:
            instance = host.instances.get(name)
            if instance is None:
                return False
            for volume in host.disks(instance):
                volume.snapshots.pop(snapshot, None)
            return instance.snapshots.pop(snapshot, None) is not None


class FakeBacksUp(FakePart, BacksUp):
    """Files of VMs are raw disks; those of containers one archive. An increment holds the whole content again."""

    async def backup(
        self, name: str, folder: str, *, checkpoint: str, since: str = "", disks: Sequence[str] = ()
    ) -> list[BackupFile]:
        async with self.call("backup") as host:
            instance = known(host, name)
            volumes = [v for v in host.disks(instance) if not disks or v.name in disks]
            going_on = "backup_incremental" in self.powers and all(since in v.checkpoints for v in volumes)
            base = since if going_on else ""
            if instance.kind is InstanceKind.CONTAINER:
                archive = BackupFile("instance", f"{folder}/instance.tar", "tar", base)
                files = [(archive, pack_instance(instance))]
            else:
                files = [
                    (BackupFile(v.name, f"{folder}/{v.name}.raw", "raw", base), pack_volume(v, whole=True, since=base))
                    for v in volumes
                ]
            for volume in volumes:
                volume.checkpoints[checkpoint] = volume.content
            for file, data in files:
                host.files_at(file.path)[file.path] = data
            return [file for file, _ in files]

    async def drop_checkpoint(self, name: str, checkpoint: str) -> bool:
        async with self.call("drop_checkpoint") as host:
            instance = host.instances.get(name)
            volumes = list(host.disks(instance)) if instance else []
            dropped = [volume.checkpoints.pop(checkpoint, None) for volume in volumes]
            return any(content is not None for content in dropped)


class FakeSavesImages(FakePart, SavesImages):
    """Images of containers are what LXD imports, those of VMs raw disks."""

    async def save_image(self, name: str, path: str) -> bool:
        async with self.call("save_image") as host:
            instance = found(host, name)
            if path in host.files_at(path):
                return False
            root = next(host.disks(instance), None) or FakeVolume("root", 0)
            container = instance.kind is InstanceKind.CONTAINER
            data = pack_image(root) if container else pack_volume(root, whole=True)
            host.files_at(path)[path] = data
            return True
