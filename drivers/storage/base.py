"""Contract of a datastore on one host: images by content, volumes from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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

    async def ensure_volume(self, spec: VolumeSpec) -> DiskAttachment: ...
    async def ensure_seed(self, spec: SeedSpec) -> DiskAttachment: ...
    async def volumes(self) -> list[str]:
        """Return the instance ids that have a folder of volumes here."""
        ...

    async def delete_volumes(self, instance_id: str) -> bool:
        """Take away all volumes and the seed of an instance; absent is fine."""
        ...


Argv = Sequence[str]
