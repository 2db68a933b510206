"""Contract of a datastore on one host: images by content, volumes from them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drivers.carrier import Carrier, Parcel
from drivers.hypervisor.base import DiskAttachment
from drivers.transport.base import Progress


@dataclass(frozen=True)
class StorageCapacity:
    total_mib: int
    free_mib: int


@dataclass(frozen=True)
class ImageFile:
    """Content in the front-end's store. path: local file; format: qcow2 | raw | vmdk | tar (containers)."""

    sha256: str
    format: str
    size_bytes: int
    path: Path
    virtual_size_mib: int = 0


@dataclass(frozen=True)
class VolumeSpec:
    """A writable disk of an instance. image_sha256 empty: a blank disk. size_mib 0: as large as the image."""

    instance_id: str
    name: str  # root, data1 …
    size_mib: int
    image_sha256: str = ""
    image_format: str = "qcow2"
    format: str = "qcow2"


@dataclass(frozen=True)
class SeedSpec:
    """cloud-init NoCloud seed; nics as in network-config version 2. All text is ready to be written."""

    instance_id: str
    meta_data: str
    user_data: str
    network_config: str


class Storage(Protocol):
    """One datastore on one host. Errors: Unreachable, HostFault (full, read-only), Invalid (wrong checksum)."""

    async def prepare(self) -> bool:
        """Ensure that the folders exist with the right owner and mode (QEMU does not run as root)."""
        ...

    async def capacity(self) -> StorageCapacity: ...
    async def images(self) -> list[str]:
        """Return the sha256 of every verified image here."""
        ...

    async def ensure_image(self, image: ImageFile, *, progress: Progress | None = None) -> bool:
        """Copy (resumable), verify the sha256 on the host, make it visible. A full store: HostFault before copying."""
        ...

    def image_path(self, sha256: str, format: str) -> str:
        """Return where an image lies, or would lie."""
        ...

    async def delete_image(self, sha256: str) -> bool:
        """Take a copy away. Raise Conflict while a volume is backed by it."""
        ...

    async def ensure_volume(self, spec: VolumeSpec) -> DiskAttachment:
        """Make a disk, or grow one that nothing uses; never smaller. One in use is grown by its hypervisor."""
        ...

    async def ensure_seed(self, spec: SeedSpec) -> DiskAttachment: ...
    async def volumes(self) -> list[str]:
        """Return the instance ids that have a folder of volumes here."""
        ...

    async def delete_volumes(self, instance_id: str) -> bool:
        """Take away all volumes and the seed of an instance; absent is fine."""
        ...

    async def delete_volume(self, instance_id: str, name: str) -> bool:
        """Take one writable disk away; absent is fine."""
        ...

    async def snapshot_volume(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Snapshot one disk of an instance that is off. Raise NotFound, Busy (in use), Unsupported (raw)."""
        ...

    async def revert_volume(self, instance_id: str, name: str, snapshot: str) -> bool:
        """Take one disk of an instance that is off back to a snapshot. Raise NotFound, Busy (in use)."""
        ...

    async def drop_volume_snapshot(self, instance_id: str, name: str, snapshot: str) -> bool: ...

    # a disk from copies of it

    async def restore_volume(
        self, instance_id: str, name: str, chain: Sequence[Parcel], content: Callable[[Parcel], AsyncIterator[bytes]]
    ) -> bool:
        """Make a disk of an instance that is off anew from qcow2 copies: the first is whole, the others go on from it.

        Whole or not at all; the disk that was there is kept until `drop_before`. Done already: False, unread.
        Raise Invalid (checksum; the first is not whole), Busy (in use), HostFault (full, before copying).
        """
        ...

    async def undo_restore(self, instance_id: str, name: str) -> bool:
        """Put back the disk that `restore_volume` kept; nothing is kept: False."""
        ...

    async def drop_before(self, instance_id: str, name: str) -> bool:
        """Take away the disk that `restore_volume` kept; nothing is kept: False."""
        ...

    # files beside the disks

    def state_path(self, instance_id: str) -> str:
        """Return where an instance's memory is saved (it is carried with the disks)."""
        ...

    async def delete_state(self, instance_id: str) -> bool:
        """Take saved memory away: once the instance runs, going back to it would spoil its disks. Absent is fine."""
        ...

    async def ensure_scratch(self, instance_id: str) -> str:
        """Return a folder for files on their way to the front-end, made unless it is there; QEMU may write to it."""
        ...

    async def scratch_file(self, path: str) -> Parcel:
        """Return the size and checksum of a file in a scratch folder (name: its path). Raise NotFound."""
        ...

    def read_scratch(self, path: str) -> AsyncIterator[bytes]: ...
    async def delete_scratch(self, instance_id: str) -> bool: ...

    def carrier(self) -> Carrier:
        """Return what moves an instance's disks, seed and saved memory."""
        ...
