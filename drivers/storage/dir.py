"""A datastore that is a folder on the host: images by content, volumes as files on top of them.

    PATH/images/SHA256.FORMAT             verified content, readable by QEMU, never written
    PATH/images/.SHA256.FORMAT.copied     complete but not verified yet (and .part: being copied)
    PATH/instances/ID/NAME.qcow2          a writable disk; NAME.qcow2.base is a hard link to the image it is backed by
    PATH/instances/ID/{seed.iso,memory.save,scratch/}

The hard link counts the users of an image: it is made before the volume and goes with the instance's folder, so an
image with one link left has no user, whatever was killed in between.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import PurePosixPath

from core.errors import Conflict, HostFault, Invalid, NotFound
from core.ids import from_host, on_host
from drivers.carrier import Carrier, Parcel, closing
from drivers.hypervisor.base import DiskAttachment
from drivers.storage import dir_scripts as scripts
from drivers.storage.base import ImageFile, SeedSpec, Storage, StorageCapacity, VolumeSpec
from drivers.storage.dir_carrier import DirCarrier
from drivers.storage.dir_disks import DirDisks
from drivers.storage.dir_folder import MIB, SPARE_BYTES, Folder, limit_s
from drivers.storage.dir_restore import DirRestore
from drivers.storage.seed import seed_iso
from drivers.transport.base import Progress, Transport


class DirStorage(Storage):
    """One folder on one host. Each verb is one command on the host, or two."""

    def __init__(self, transport: Transport, path: str) -> None:
        self._folder = Folder(transport, path)
        self._transport = transport
        self._path = self._folder.path
        self._host = self._folder.host
        self._disks = DirDisks(self._folder)
        self._carrier = DirCarrier(self._folder)
        self._restore = DirRestore(self._folder, self._carrier)
        self._copying: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._image_mib: dict[str, int] = {}  # virtual sizes; content never changes

    # -- the folder

    async def prepare(self) -> bool:
        """Ensure the folders: group kvm, inherited by what is made in them, so that QEMU (not root) gets in."""
        return (await self._folder.script(scripts.PREPARE, self._path)).stdout.strip() == scripts.CHANGED

    async def capacity(self) -> StorageCapacity:
        """Return the size of the file system, and what is free in it. Raise NotFound before prepare()."""
        total, free = await self._folder.room()
        return StorageCapacity(total // MIB, free // MIB)

    # -- images

    def image_path(self, sha256: str, format: str) -> str:
        """Return where an image lies, or would lie."""
        return self._folder.image(sha256, format)

    async def images(self) -> list[str]:
        """Return the sha256 of every verified image here."""
        names = await self._list(f"{self._path}/images")
        return sorted({name.split(".")[0] for name in names if len(name.split(".")[0]) == 64})

    async def _list(self, folder: str) -> list[str]:
        found = await self._transport.run(["ls", "-1", folder], sudo=True, check=False)
        return found.stdout.split() if found.exit_code == 0 else []

    async def ensure_image(self, image: ImageFile, *, progress: Progress | None = None) -> bool:
        """Copy (resumable), verify on the host, make visible. Raise HostFault (full), Invalid (wrong content)."""
        async with self._copying[image.sha256]:
            if image.sha256 in await self.images():
                return False
            folder, name = f"{self._path}/images", f".{image.sha256}.{image.format}.copied"
            copied, left = f"{folder}/{name}", await self._folder.files(folder)  # by a call that was killed
            if left.get(name) == image.size_bytes and not await self._wrong(image, copied):
                return True
            await self._folder.require_room(image.size_bytes - left.get(f"{name}.part", 0), "an image")
            await self._transport.put(
                image.path, copied, mode=0o644, resume=True, sudo=True, progress=progress,
                timeout_s=limit_s(image.size_bytes),
            )  # fmt: skip
            if found := await self._wrong(image, copied):
                raise Invalid(
                    f"the copy of image {image.sha256[:12]} on {self._host} has other content and was thrown away",
                    f"image/{image.sha256}", {"wanted": image.sha256, "found": found},
                    "the file in the front-end's store may be damaged: import the image again",
                )
            return True

    async def _wrong(self, image: ImageFile, copied: str) -> str:
        """Verify a copy and make it visible. If it has other content, throw it away and return its checksum."""
        words = (copied, self.image_path(image.sha256, image.format), image.sha256)
        found = await self._folder.script(scripts.VERIFY, *words, check=False, timeout_s=limit_s(image.size_bytes))
        if found.exit_code == scripts.WRONG:
            return found.stdout.strip()
        self._folder.require_done(found, f"image/{image.sha256}")
        return ""

    async def delete_image(self, sha256: str) -> bool:
        """Take a copy away, also a partial one. Raise Conflict while a volume is backed by it."""
        found = await self._folder.script(scripts.DELETE_IMAGE, self._path, sha256, check=False)
        if found.exit_code == scripts.IN_USE:
            users = found.stdout.split()
            raise Conflict(
                f"image {sha256[:12]} on {self._host} is in use by {len(users)} instances", f"image/{sha256}",
                {"instances": users}, "delete these instances first",
            )
        self._folder.require_done(found, f"image/{sha256}")
        self._image_mib.pop(sha256, None)
        return found.stdout.strip() == scripts.CHANGED

    # -- volumes

    async def ensure_volume(self, spec: VolumeSpec) -> DiskAttachment:
        """Make a disk, or grow one. Raise NotFound (no image), Invalid (name; smaller than its image), HostFault."""
        folder, subject = self._folder.of(spec.instance_id), f"instance/{spec.instance_id}"
        file = f"{self._folder.named(spec.instance_id, spec.name)}.{spec.format}"
        size_mib = await self._size_mib(spec)
        base = self.image_path(spec.image_sha256, spec.image_format) if spec.image_sha256 else ""
        found = await self._folder.script(
            scripts.VOLUME, folder, file, spec.format, str(size_mib), base, spec.image_format, str(SPARE_BYTES),
            check=False, timeout_s=600 if base and spec.format == "raw" else 60,
        )  # fmt: skip
        if found.exit_code == scripts.FULL and found.stdout.strip():
            raise self._folder.full(int(found.stdout), SPARE_BYTES, f"disk {spec.name}")
        if found.exit_code == scripts.NO_IMAGE:
            self._image_mib.pop(spec.image_sha256, None)
            raise self._folder.no_image(spec.image_sha256, subject)
        self._folder.require_done(found, subject)
        if found.stdout.strip() == "there":
            size_mib = await self._disks.grow(file, spec.format, size_mib, subject)
        return DiskAttachment(spec.name, "file", file, spec.format, size_mib)

    async def _size_mib(self, spec: VolumeSpec) -> int:
        if not spec.image_sha256:
            return spec.size_mib
        if spec.image_sha256 not in self._image_mib:
            argv = ["qemu-img", "info", "--output=json", self.image_path(spec.image_sha256, spec.image_format)]
            found = await self._transport.run(argv, sudo=True, check=False)
            if found.exit_code != 0 and "No such file" in found.stderr:
                raise self._folder.no_image(spec.image_sha256, f"instance/{spec.instance_id}")
            self._folder.require_done(found, f"instance/{spec.instance_id}")
            self._image_mib[spec.image_sha256] = -(-int(json.loads(found.stdout)["virtual-size"]) // MIB)
        least = self._image_mib[spec.image_sha256]
        if 0 < spec.size_mib < least:
            raise Invalid(
                f"disk {spec.name} of {spec.size_mib} MiB is smaller than its image ({least} MiB)",
                f"instance/{spec.instance_id}", {"size_mib": spec.size_mib, "image_mib": least},
                f"ask for at least {least} MiB",
            )
        return spec.size_mib or least

    async def ensure_seed(self, spec: SeedSpec) -> DiskAttachment:
        """Write the cloud-init seed anew; it may hold secrets, so only QEMU's group may read it."""
        folder = self._folder.of(spec.instance_id)
        iso, file = seed_iso(spec), f"{folder}/seed.iso"
        try:
            await self._transport.put(iso, file, mode=0o640, sudo=True)
        except HostFault:  # there is no folder yet
            await self._transport.run(["mkdir", "-p", "-m", "2770", folder], sudo=True)
            await self._transport.put(iso, file, mode=0o640, sudo=True)
        return DiskAttachment("seed", "file", file, "raw", read_only=True)

    async def volumes(self) -> list[str]:
        """Return the instance ids that have a folder of volumes here."""
        return [name for name in await self._list(f"{self._path}/instances") if from_host(on_host(name))]

    async def delete_volumes(self, instance_id: str) -> bool:
        """Take away all volumes and the seed of an instance; absent is fine."""
        found = await self._folder.script(scripts.DELETE_VOLUMES, self._folder.of(instance_id))
        return found.stdout.strip() == scripts.CHANGED

    async def delete_volume(self, instance_id: str, name: str) -> bool:
        """Take one disk away, with what is kept of it; absent is fine."""
        return await self._disks.delete(instance_id, name)

    async def snapshot_volume(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Snapshot a disk inside its file. Raise NotFound, Busy (in use), Unsupported (raw)."""
        return await self._disks.snapshot(instance_id, name, snapshot)

    async def revert_volume(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Take a disk back to a snapshot, always anew. Raise NotFound, Busy (in use), Unsupported (raw)."""
        return await self._disks.revert(instance_id, name, snapshot)

    async def drop_volume_snapshot(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Take a snapshot away; absent is fine. Raise Busy (in use)."""
        return await self._disks.drop(instance_id, name, snapshot)

    async def restore_volume(
        self, instance_id: str, name: str, chain: Sequence[Parcel], content: Callable[[Parcel], AsyncIterator[bytes]]
    ) -> bool:
        """Make a disk anew from copies. Raise Invalid, Busy (in use), HostFault (full), Unreachable."""
        return await self._restore.restore(instance_id, name, chain, content)

    async def undo_restore(self, instance_id: str, name: str) -> bool:
        """Put back the disk that was kept."""
        return await self._restore.undo(instance_id, name)

    async def drop_before(self, instance_id: str, name: str) -> bool:
        """Take away the disk that was kept."""
        return await self._restore.drop_before(instance_id, name)

    # -- files beside the disks

    def state_path(self, instance_id: str) -> str:
        """Return where an instance's memory is saved."""
        return f"{self._folder.of(instance_id)}/memory.save"

    async def delete_state(self, instance_id: str) -> bool:
        """Take saved memory away; absent is fine."""
        found = await self._folder.script(scripts.DELETE_STATE, self.state_path(instance_id))
        return found.stdout.strip() == scripts.CHANGED

    async def ensure_scratch(self, instance_id: str) -> str:
        """Return a folder that QEMU may write to."""
        await self._folder.script(scripts.SCRATCH, self._folder.of(instance_id))
        return f"{self._folder.of(instance_id)}/scratch"

    async def scratch_file(self, path: str) -> Parcel:
        """Return the size and checksum of a file in a scratch folder. Raise NotFound, Invalid (no such folder)."""
        return await self._carrier.described(path, await self._scratch_bytes(path))

    async def read_scratch(self, path: str) -> AsyncIterator[bytes]:
        """Yield a file of a scratch folder. Raise NotFound, Invalid (no such folder), HostFault, Unreachable."""
        async with closing(self._carrier.content(path, await self._scratch_bytes(path))) as content:
            async for chunk in content:
                yield chunk

    async def _scratch_bytes(self, path: str) -> int:
        folder, _, name = path.rpartition("/")
        instance_id = PurePosixPath(folder).parent.name
        if folder != f"{self._folder.of(instance_id)}/scratch":
            raise Invalid(f"{path} lies in no scratch folder of {self._path}", f"host/{self._host}", {"path": path})
        there = await self._folder.files(folder)
        if name not in there:
            raise NotFound(f"there is no file {path} on {self._host}", f"instance/{instance_id}", {"path": path})
        return there[name]

    async def delete_scratch(self, instance_id: str) -> bool:
        """Take the scratch folder away; absent is fine."""
        found = await self._folder.script(scripts.DELETE_SCRATCH, self._folder.of(instance_id))
        return found.stdout.strip() == scripts.CHANGED

    def carrier(self) -> Carrier:
        """Return what moves an instance's disks, seed and saved memory."""
        return self._carrier
