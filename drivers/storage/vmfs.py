"""A folder in a vSphere datastore: images by content, volumes as full copies of them.

    [STORE] FOLDER/images/SHA256.vmdk           verified content, never written
    [STORE] FOLDER/instances/ID/NAME.vmdk       a writable disk; NAME@SNAPSHOT.vmdk is what it was at a snapshot
    [STORE] FOLDER/instances/ID/seed.json       cloud-init's texts, which the hypervisor gives to the guest
    [STORE] FOLDER/instances/ID/scratch/        files on their way

The name of a disk appears when it is whole: it is made under another one (.NAME), and moved.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from core.errors import Invalid, NotFound, Unsupported
from core.ids import from_host, on_host
from drivers.carrier import Carrier, Parcel
from drivers.hypervisor.base import DiskAttachment
from drivers.storage.base import ImageFile, SeedSpec, Storage, StorageCapacity, VolumeSpec
from drivers.storage.vmfs_carrier import VmfsCarrier
from drivers.storage.vmfs_folder import MIB, SECTOR, Folder, half_of
from drivers.storage.vmfs_import import Import, convert
from drivers.storage.vmfs_snapshots import VmfsSnapshots
from drivers.transport.base import Progress
from drivers.transport.vsphere import VsphereTransport


class VmfsStorage(Storage):
    """One folder in one datastore, as all hosts of a place see it."""

    def __init__(self, transport: VsphereTransport, path: str) -> None:
        self._transport = transport
        self._folder = Folder(transport, path)
        self._files = self._folder.files
        self._host = self._folder.host
        self._carrier = VmfsCarrier(self._folder)
        self._snapshots = VmfsSnapshots(self._folder)
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def prepare(self) -> bool:
        """Ensure the folders."""
        base = await self._folder.base()
        return any([await self._files.make_folder(f"{base}/{one}") for one in ("images", "instances")])

    async def capacity(self) -> StorageCapacity:
        """Return the size of the datastore and what is free in it. Raise NotFound (no such datastore)."""
        return await self._folder.capacity()

    # -- images

    def image_path(self, sha256: str, format: str) -> str:
        """Return where an image lies, or would lie; always as a disk of VMFS."""
        return f"{self._folder.known}/images/{sha256}.vmdk"

    async def images(self) -> list[str]:
        """Return the sha256 of every image here."""
        names = await self._files.list(f"{await self._folder.base()}/images")
        return sorted(name[:64] for name in names if re.fullmatch(r"[0-9a-f]{64}\.vmdk", name))

    async def ensure_image(self, image: ImageFile, *, progress: Progress | None = None) -> bool:
        """Verify, convert and send an image; it appears whole. Raise Invalid (other content), HostFault (full)."""
        async with self._changing[image.sha256]:
            if image.sha256 in await self.images():
                return False
            await self._folder.require_room(image.size_bytes // MIB)
            await asyncio.to_thread(_require_content, image)
            with tempfile.TemporaryDirectory(prefix=".vmdk-", suffix=".part", dir=image.path.parent) as folder:
                stream = Path(folder) / "stream.vmdk"
                await convert(image.path, image.format, stream)
                size_mib = await asyncio.to_thread(_capacity_mib, stream)
                await self._folder.base()
                upload = Import(
                    self._transport, self._files, await self._folder.store(), f"image-{image.sha256[:20]}"
                )
                await upload.run(
                    stream, size_mib, self.image_path(image.sha256, "vmdk"), _scaled(progress, image.size_bytes)
                )
            return True

    async def delete_image(self, sha256: str) -> bool:
        """Take a copy away; volumes are copies of it and stay."""
        await self._folder.base()
        return await self._files.delete_disk(self.image_path(sha256, "vmdk"))

    # -- volumes

    async def ensure_volume(self, spec: VolumeSpec) -> DiskAttachment:
        """Copy a disk from its image, make a blank one, or grow one. Raise NotFound (no image), Invalid, HostFault."""
        file = await self._folder.disk(spec.instance_id, spec.name)
        async with self._changing[file]:
            there = await self._folder.size_mib(file)
            if there is None:
                there = await self._make(spec, file)
            if spec.size_mib > there:
                await self._files.grow_disk(file, spec.size_mib)
                there = spec.size_mib
        return DiskAttachment(spec.name, "file", file, "vmdk", there)

    async def _make(self, spec: VolumeSpec, file: str) -> int:
        """Make a disk under another name and move it; return its size in MiB."""
        folder, half = await self._folder.of(spec.instance_id), half_of(file)
        size_mib = spec.size_mib
        image = self.image_path(spec.image_sha256, "vmdk")
        if spec.image_sha256:
            size_mib = await self._require_image(spec, image)
        await self._files.make_folder(folder)
        await self._files.delete_disk(half)
        await self._folder.require_room(size_mib if spec.image_sha256 else 0)
        if spec.image_sha256:
            await self._files.copy_disk(image, half)
        else:
            await self._files.make_disk(half, size_mib * 1024)
        await self._files.move_disk(half, file)
        return size_mib

    async def _require_image(self, spec: VolumeSpec, image: str) -> int:
        """Return the size of the image in MiB. Raise NotFound, Invalid (the disk would be smaller)."""
        least = await self._folder.size_mib(image)
        if least is None:
            raise NotFound(
                f"image {spec.image_sha256[:12]} is not on {self._host}", f"instance/{spec.instance_id}",
                {"image": image}, "stage the image there first",
            )  # fmt: skip
        if 0 < spec.size_mib < least:
            raise Invalid(
                f"disk {spec.name} of {spec.size_mib} MiB is smaller than its image ({least} MiB)",
                f"instance/{spec.instance_id}", {"size_mib": spec.size_mib, "image_mib": least},
                f"ask for at least {least} MiB",
            )  # fmt: skip
        return least

    async def ensure_seed(self, spec: SeedSpec) -> DiskAttachment:
        """Write cloud-init's texts, for the hypervisor to hand over (guestinfo): no disk is attached."""
        folder = await self._folder.of(spec.instance_id)
        await self._files.make_folder(folder)
        texts = {key: getattr(spec, key) for key in ("meta_data", "user_data", "network_config")}
        await self._files.put(f"{folder}/seed.json", json.dumps(texts).encode())
        return DiskAttachment("seed", "guestinfo", f"{folder}/seed.json", "raw", read_only=True)

    async def volumes(self) -> list[str]:
        """Return the instance ids that have a folder here."""
        names = await self._files.list(f"{await self._folder.base()}/instances")
        return sorted(name for name in names if from_host(on_host(name)))

    async def delete_volumes(self, instance_id: str) -> bool:
        """Take an instance's folder away; absent is fine."""
        return await self._files.delete(await self._folder.of(instance_id))

    async def delete_volume(self, instance_id: str, name: str) -> bool:
        """Take one disk away, with what is kept of it; absent is fine."""
        file = await self._folder.disk(instance_id, name)
        await self._snapshots.drop_all(instance_id, name)
        return await self._files.delete_disk(file)

    # -- snapshots of a disk that is off

    async def snapshot_volume(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Copy a disk of an instance that is off. Raise NotFound, Busy (in use)."""
        async with self._changing[await self._folder.disk(instance_id, name)]:
            return await self._snapshots.take(instance_id, name, snapshot)

    async def revert_volume(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Put a snapshot's copy in the place of the disk. Raise NotFound, Busy (in use)."""
        async with self._changing[await self._folder.disk(instance_id, name)]:
            return await self._snapshots.revert(instance_id, name, snapshot)

    async def drop_volume_snapshot(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Take a snapshot's copy away; absent is fine."""
        return await self._snapshots.drop(instance_id, name, snapshot)

    # -- copies of disks from elsewhere are qcow2 files, which vSphere cannot read: not here

    def _unsupported(self, what: str) -> Unsupported:
        return Unsupported(
            f"{what} is not possible on the datastores of {self._host}", f"host/{self._host}",
            fix="use a host of kind kvm for that",
        )

    async def restore_volume(
        self, instance_id: str, name: str, chain: Sequence[Parcel], content: Callable[[Parcel], AsyncIterator[bytes]]
    ) -> bool:
        """Raise Unsupported."""
        raise self._unsupported("restoring a disk from a backup")

    async def undo_restore(self, instance_id: str, name: str) -> bool:
        """Nothing is ever kept."""
        return False

    async def drop_before(self, instance_id: str, name: str) -> bool:
        """Nothing is ever kept."""
        return False

    # -- files beside the disks

    def state_path(self, instance_id: str) -> str:
        """Return where memory would be saved: vSphere keeps it with the VM itself."""
        return f"{self._folder.known}/instances/{instance_id}/memory.save"

    async def delete_state(self, instance_id: str) -> bool:
        """Take saved memory away; absent is fine."""
        await self._folder.base()
        return await self._files.delete(self.state_path(instance_id))

    async def ensure_scratch(self, instance_id: str) -> str:
        """Return a folder for files on their way."""
        folder = f"{await self._folder.of(instance_id)}/scratch"
        await self._files.make_folder(folder)
        return folder

    async def scratch_file(self, path: str) -> Parcel:
        """Return the size and checksum of a file, which is read for it. Raise NotFound, Invalid (no such folder)."""
        digest, size = hashlib.sha256(), 0
        async for chunk in self.read_scratch(path):
            digest.update(chunk)
            size += len(chunk)
        return Parcel(path, size, digest.hexdigest())

    async def read_scratch(self, path: str) -> AsyncIterator[bytes]:
        """Yield a file of a scratch folder. Raise NotFound, Invalid (no such folder), Unreachable."""
        if not re.fullmatch(re.escape(f"{await self._folder.base()}/instances/") + r"[^/]+/scratch/[^/]+", path):
            raise Invalid(
                f"{path} lies in no scratch folder of {self._folder.path}", f"host/{self._host}", {"path": path}
            )
        async for chunk in self._files.read(path):
            yield chunk

    async def delete_scratch(self, instance_id: str) -> bool:
        """Take the scratch folder away, and the instance's with it when nothing else is there; absent is fine."""
        folder = await self._folder.of(instance_id)
        changed = await self._files.delete(f"{folder}/scratch")
        if changed and not await self._files.list(folder):
            await self._files.delete(folder)
        return changed

    def carrier(self) -> Carrier:
        """Return what moves an instance's disks and its cloud-init texts."""
        return self._carrier


def _require_content(image: ImageFile) -> None:
    with image.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != image.sha256:
        raise Invalid(
            f"image {image.sha256[:12]} has other content in the front-end's store", f"image/{image.sha256}",
            {"wanted": image.sha256, "found": found}, "the file may be damaged: import the image again",
        )  # fmt: skip


def _capacity_mib(stream: Path) -> int:
    """Return the capacity that a stream's header names (its second 64 bit word after magic, version and flags)."""
    with stream.open("rb") as file:
        return -(-int.from_bytes(file.read(20)[12:20], "little") // (MIB // SECTOR))


def _scaled(progress: Progress | None, size_bytes: int) -> Progress | None:
    """Return what tells of a stream's bytes as of the image's own."""
    if progress is None:
        return None
    return lambda done, total: progress(size_bytes * done // max(1, total), size_bytes)
