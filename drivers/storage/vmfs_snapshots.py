"""Snapshots of a VMFS disk that is off: copies, since a chain of deltas belongs to a VM in vSphere."""

from __future__ import annotations

import re

from core.errors import NotFound
from drivers.storage.vmfs_folder import Folder, half_of


class VmfsSnapshots:
    """The copies of the disks in one folder. Callers see to it that one call at a time changes a disk."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    async def names(self, instance_id: str, name: str) -> list[str]:
        """Return the snapshots of a disk."""
        names = await self._folder.files.list(await self._folder.of(instance_id))
        found = (re.fullmatch(rf"{re.escape(name)}@(.+?)\.vmdk", one) for one in names)
        return [one[1] for one in found if one and not one[1].endswith("-flat")]

    async def take(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Copy a disk. Raise NotFound, Busy (in use)."""
        file, copy = await self._both(instance_id, name, snapshot)
        if snapshot in await self.names(instance_id, name):
            return False
        await self._replace(file, copy, instance_id)
        return True

    async def revert(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Put a copy in the place of the disk. Raise NotFound, Busy (in use)."""
        file, copy = await self._both(instance_id, name, snapshot)
        await self._replace(copy, file, instance_id)
        return True

    async def drop(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Take a copy away; absent is fine."""
        return await self._folder.files.delete_disk(await self._folder.snapshot(instance_id, name, snapshot))

    async def drop_all(self, instance_id: str, name: str) -> None:
        """Take all copies of a disk away."""
        for snapshot in await self.names(instance_id, name):
            await self.drop(instance_id, name, snapshot)

    async def _both(self, instance_id: str, name: str, snapshot: str) -> tuple[str, str]:
        return (
            await self._folder.disk(instance_id, name), await self._folder.snapshot(instance_id, name, snapshot)
        )  # fmt: skip

    async def _replace(self, source: str, target: str, instance_id: str) -> None:
        """Make target a copy of source, at once."""
        files, half = self._folder.files, half_of(target)
        if await self._folder.size_bytes(source) is None:
            raise NotFound(
                f"there is no disk {source} on {self._folder.host}", f"instance/{instance_id}", {"path": source}
            )
        await files.delete_disk(half)
        await files.copy_disk(source, half)
        await files.move_disk(half, target)
