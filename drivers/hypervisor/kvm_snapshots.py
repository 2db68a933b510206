"""KVM: snapshots inside the qcow2 files."""

from __future__ import annotations

from collections.abc import Sequence

from drivers.hypervisor import domain_snapshots as snapshots
from drivers.hypervisor.domain_copies import writable
from drivers.hypervisor.domain_seen import DomainSeen
from drivers.hypervisor.kvm_core import KvmCore
from drivers.hypervisor.powers import Snapshots, SnapshotSeen

# $1 snapshot, then files: what a killed attempt has left in some of them. libvirt knows nothing of it.
_CLEAN = """name=$1; shift
for file; do while qemu-img snapshot -d "$name" "$file" 2>/dev/null; do :; done; done
"""
# $1 bitmap, then files
_FORGET = """name=$1; shift
for file; do qemu-img bitmap --remove "$file" "$name" 2>/dev/null || :; done
"""


class SnapshotsVm(KvmCore, Snapshots):
    """Part of KvmHypervisor."""

    async def snapshots(self, name: str) -> list[SnapshotSeen]:
        """Return its snapshots, oldest first. Raise Conflict if absent."""
        return await self._call(name, "listing the snapshots of", lambda c: snapshots.seen(c, name))

    async def snapshot(self, name: str, snapshot: str, *, memory: bool = False) -> bool:
        """Snapshot all disks; memory: and the memory of what runs. Raise Unsupported (running without memory, raw)."""
        found = await self._call(
            name, "looking at", lambda c: snapshots.plan(c, name, snapshot, memory=memory)
        )
        if found is None:
            return False
        if not memory:
            await self._script(_CLEAN, snapshot, _files(found))
        await self._job(
            name, "taking a snapshot of", lambda c: snapshots.take(c, name, snapshot, found, memory=memory)
        )
        return True

    async def revert(self, name: str, snapshot: str) -> bool:
        """Go back. With memory it runs afterwards, else as before. Raise NotFound, Conflict (other disks)."""
        # The bitmaps of checkpoints do not see what a snapshot brings back: the next backup has to be whole.
        await self._forget_checkpoints(name)
        await self._job(name, "taking back", lambda c: snapshots.revert(c, name, snapshot))
        return True

    async def drop_snapshot(self, name: str, snapshot: str) -> bool:
        """Take a snapshot away; absent is fine."""
        return await self._job(name, "taking a snapshot from", lambda c: snapshots.drop(c, name, snapshot))

    async def drop_checkpoint(self, name: str, checkpoint: str) -> bool:
        """Take a checkpoint away; absent is fine."""
        files = await self._call(
            name, "taking a checkpoint from", lambda c: snapshots.drop_checkpoint(c, name, checkpoint)
        )
        if files:
            await self._script(_FORGET, checkpoint, files)
        return files is not None

    async def _forget_checkpoints(self, name: str) -> None:
        for one in await self._call(name, "listing the checkpoints of", lambda c: snapshots.checkpoints(c, name)):
            await self.drop_checkpoint(name, one)

    async def _script(self, script: str, what: str, files: Sequence[str]) -> None:
        await self._transport.run(["sh", "-c", script, "sh", what, *files], sudo=True)


def _files(found: DomainSeen) -> list[str]:
    return [disk.source for disk in writable(found)]
