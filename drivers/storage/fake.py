"""A datastore in memory, laid out as the dir datastore is."""

from __future__ import annotations

import asyncio
import hashlib
from functools import lru_cache
from pathlib import Path

from core.errors import Conflict, HostFault, Invalid, NotFound
from drivers.fake_world import FakeHost, FakeStore
from drivers.hypervisor.base import DiskAttachment
from drivers.storage.base import ImageFile, SeedSpec, Storage, StorageCapacity, VolumeSpec
from drivers.transport.base import Progress
from drivers.transport.fake import FakeTransport

CHUNKS = 4  # of a copy: where it can be interrupted


class FakeStorage(Storage):
    """One datastore of one simulated host."""

    def __init__(self, transport: FakeTransport, path: str) -> None:
        self._transport = transport
        self._path = path

    async def prepare(self) -> bool:
        async with self._transport.call("storage.prepare") as host:
            store = host.store(self._path)
            changed, store.prepared = not store.prepared, True
            return changed

    async def capacity(self) -> StorageCapacity:
        async with self._transport.call("storage.capacity") as host:
            store = host.store(self._path)
            return StorageCapacity(store.total_mib, store.total_mib - store.used_mib)

    async def images(self) -> list[str]:
        async with self._transport.call("storage.images") as host:
            return list(host.store(self._path).images)

    async def ensure_image(self, image: ImageFile, *, progress: Progress | None = None) -> bool:
        async with self._transport.call("storage.ensure_image") as host:
            store = host.store(self._path)
            if image.sha256 in store.images:
                return False
            size_mib = -(-image.size_bytes // 2**20)
            _need(host, store, size_mib, self._path)
            await self._copy(store, image, progress)
            await _verify(image, host)
            if image.sha256 not in store.images:  # two at once: one wins
                store.images[image.sha256] = (image.format, image.size_bytes)
                store.used_mib += size_mib
            return True

    async def _copy(self, store: FakeStore, image: ImageFile, progress: Progress | None) -> None:
        for done in range(store.parts.get(image.sha256, 0), CHUNKS):
            await asyncio.sleep(0)
            store.parts[image.sha256] = done + 1
            if progress is not None:
                progress(image.size_bytes * (done + 1) // CHUNKS, image.size_bytes)
        store.parts.pop(image.sha256, None)

    def image_path(self, sha256: str, format: str) -> str:
        return f"{self._path}/images/{sha256}.{format}"

    async def delete_image(self, sha256: str) -> bool:
        async with self._transport.call("storage.delete_image") as host:
            store = host.store(self._path)
            backed = {i: {d.image_sha256 for d in disks.values()} for i, disks in store.volumes.items()}
            users = [i for i, images in backed.items() if sha256 in images]
            if users:
                message = f"host {host.name}: image {sha256[:12]} is in use"
                raise Conflict(message, f"image/{sha256}", {"instances": users})
            found = store.images.pop(sha256, None)
            store.used_mib -= -(-found[1] // 2**20) if found else 0
            return found is not None

    async def ensure_volume(self, spec: VolumeSpec) -> DiskAttachment:
        async with self._transport.call("storage.ensure_volume") as host:
            store = host.store(self._path)
            if spec.image_sha256 and spec.image_sha256 not in store.images:
                message = f"host {host.name}: no image {spec.image_sha256[:12]} in {self._path}"
                raise NotFound(message, f"instance/{spec.instance_id}")
            disks = store.volumes.get(spec.instance_id, {})
            if spec.name not in disks:
                _need(host, store, 1, self._path)  # thin: a new overlay is about as large as its header
                store.volumes.setdefault(spec.instance_id, {})[spec.name] = spec
            return DiskAttachment(
                spec.name, "file", self._file(spec.instance_id, f"{spec.name}.{spec.format}"), spec.format,
                size_mib=store.volumes[spec.instance_id][spec.name].size_mib,
            )

    async def ensure_seed(self, spec: SeedSpec) -> DiskAttachment:
        async with self._transport.call("storage.ensure_seed") as host:
            store = host.store(self._path)
            store.volumes.setdefault(spec.instance_id, {})
            store.seeds[spec.instance_id] = spec
            path = self._file(spec.instance_id, "seed.iso")
            return DiskAttachment("seed", "file", path, "raw", read_only=True)

    def _file(self, instance_id: str, name: str) -> str:
        return f"{self._path}/instances/{instance_id}/{name}"

    async def volumes(self) -> list[str]:
        async with self._transport.call("storage.volumes") as host:
            return list(host.store(self._path).volumes)

    async def delete_volumes(self, instance_id: str) -> bool:
        async with self._transport.call("storage.delete_volumes") as host:
            store = host.store(self._path)
            store.seeds.pop(instance_id, None)
            return store.volumes.pop(instance_id, None) is not None


def _need(host: FakeHost, store: FakeStore, size_mib: int, path: str) -> None:
    free_mib = store.total_mib - store.used_mib
    if free_mib < size_mib:
        raise HostFault(
            f"host {host.name}: datastore {path} is full ({free_mib} MiB free, {size_mib} MiB needed)",
            f"host/{host.name}", {"path": path, "free_mib": free_mib, "needed_mib": size_mib}, "make room",
        )


async def _verify(image: ImageFile, host: FakeHost) -> None:
    """Compare the checksum if there is a real file behind the image; a simulation may go without."""
    if not await asyncio.to_thread(image.path.is_file):
        return
    seen = await asyncio.to_thread(_sha256, image.path, image.path.stat().st_mtime_ns)
    if seen != image.sha256:
        raise Invalid(
            f"host {host.name}: image {image.sha256[:12]} has the wrong checksum after the copy",
            f"image/{image.sha256}", {"expected": image.sha256, "seen": seen},
        )


@lru_cache(maxsize=64)
def _sha256(path: Path, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
