"""Single disks in a dir datastore: grown, snapshot, taken away. qemu-img's lock tells whether one is in use."""

from __future__ import annotations

from typing import Any

from core.errors import NotFound, Unsupported
from drivers.storage import dir_scripts as scripts
from drivers.storage.dir_folder import MIB, Folder, is_locked


class DirDisks:
    """The disks of a datastore's instances."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    async def grow(self, file: str, format: str, size_mib: int, subject: str) -> int:
        """Grow a disk unless it is in use or large enough; return the size that it has, or is to be given, in MiB."""
        have = int((await self._folder.info(file, format, subject))["virtual-size"])
        if have >= size_mib * MIB:
            return -(-have // MIB)
        argv = ["qemu-img", "resize", "-q", "-f", format, file, f"{size_mib}M"]
        found = await self._folder.transport.run(argv, sudo=True, check=False)
        if not is_locked(found):
            self._folder.require_done(found, subject)
        return size_mib

    async def delete(self, instance_id: str, name: str) -> bool:
        """Take one disk away, with all that belongs to it."""
        self._folder.named(instance_id, name)
        found = await self._folder.script(scripts.DELETE_VOLUME, self._folder.of(instance_id), name)
        return found.stdout.strip() == scripts.CHANGED

    async def snapshot(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Snapshot a disk inside its file, unless there is one of that name."""
        file, known = await self._snapshots(instance_id, name)
        if snapshot in known:
            return False
        await self._change(instance_id, "-c", snapshot, file)
        return True

    async def revert(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Go back; always done anew, as nothing tells whether the disk was written to since."""
        file, known = await self._snapshots(instance_id, name)
        if snapshot not in known:
            raise NotFound(
                f"disk {name} has no snapshot {snapshot!r}", f"instance/{instance_id}", {"snapshots": sorted(known)}
            )
        await self._change(instance_id, "-a", known[snapshot], file)  # a name may be another one's id
        return True

    async def drop(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Take a snapshot away; absent, or without a disk, is fine."""
        try:
            file, known = await self._snapshots(instance_id, name)
        except NotFound:
            return False
        if snapshot not in known:
            return False
        await self._change(instance_id, "-d", snapshot, file)
        return True

    async def _change(self, instance_id: str, option: str, snapshot: str, file: str) -> None:
        words = ["snapshot", "-q", option, snapshot, file]
        await self._folder.qemu_img(*words, subject=f"instance/{instance_id}", timeout_s=600)

    async def _snapshots(self, instance_id: str, name: str) -> tuple[str, dict[str, str]]:
        """Return a disk's file, and its snapshots: name to id."""
        subject = f"instance/{instance_id}"
        file, format = await self._folder.disk(instance_id, name)
        if format != "qcow2":
            raise Unsupported(
                f"disk {name} is {format} and cannot hold snapshots", subject, {"format": format}, "make it a qcow2"
            )
        found: list[dict[str, Any]] = (await self._folder.info(file, format, subject)).get("snapshots", [])
        return file, {str(one["name"]): str(one["id"]) for one in found}
