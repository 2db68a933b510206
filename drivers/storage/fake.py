"""A datastore in memory, laid out as the dir datastore is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache
from pathlib import Path

from core.errors import Busy, Conflict, HostFault, Invalid, NotFound
from drivers.carrier import Carrier, Parcel
from drivers.fake_files import content_of_image, pieces, since_of, unpack_volume
from drivers.fake_things import FakeHost, FakeImage, FakeStore, FakeVolume
from drivers.hypervisor.base import DiskAttachment
from drivers.storage.base import ImageFile, SeedSpec, Storage, StorageCapacity, VolumeSpec
from drivers.storage.fake_carrier import MEMORY, SEED, FakeCarrier, drop
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
                content = await asyncio.to_thread(content_of_image, image.path, image.sha256)
                store.images[image.sha256] = FakeImage(image.format, image.size_bytes, content)
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
            backed = {
                i: {d.spec.image_sha256 for d in disks.values() if d.spec} for i, disks in store.volumes.items()
            }
            users = [i for i, images in backed.items() if sha256 in images]
            if users:
                message = f"host {host.name}: image {sha256[:12]} is in use"
                raise Conflict(message, f"image/{sha256}", {"instances": users})
            found = store.images.pop(sha256, None)
            store.used_mib -= -(-found.size_bytes // 2**20) if found else 0
            return found is not None

    async def ensure_volume(self, spec: VolumeSpec) -> DiskAttachment:
        async with self._transport.call("storage.ensure_volume") as host:
            store = host.store(self._path)
            if spec.image_sha256 and spec.image_sha256 not in store.images:
                message = f"host {host.name}: no image {spec.image_sha256[:12]} in {self._path}"
                raise NotFound(message, f"instance/{spec.instance_id}")
            there = store.volumes.get(spec.instance_id, {}).get(spec.name)
            if there is None or (there.size_mib < spec.size_mib and not there.used_by):
                _need(host, store, 1, self._path)  # thin: a new overlay is about as large as its header
            if there is None:
                content = store.images[spec.image_sha256].content if spec.image_sha256 else ""
                there = FakeVolume(spec.name, spec.size_mib, spec, content)
                store.volumes.setdefault(spec.instance_id, {})[spec.name] = there
            elif not there.used_by:
                there.size_mib = max(there.size_mib, spec.size_mib)
            size_mib = max(there.size_mib, spec.size_mib)  # one in use is grown to it by its hypervisor
            file = f"{spec.name}.{there.spec.format if there.spec else spec.format}"
            return DiskAttachment(spec.name, "file", self._file(spec.instance_id, file), spec.format, size_mib=size_mib)

    async def ensure_seed(self, spec: SeedSpec) -> DiskAttachment:
        async with self._transport.call("storage.ensure_seed") as host:
            store = host.store(self._path)
            store.volumes.setdefault(spec.instance_id, {})
            store.seeds[spec.instance_id] = spec
            return DiskAttachment("seed", "file", self._file(spec.instance_id, SEED), "raw", read_only=True)

    def _file(self, instance_id: str, name: str) -> str:
        return f"{self._path}/instances/{instance_id}/{name}"

    async def volumes(self) -> list[str]:
        async with self._transport.call("storage.volumes") as host:
            return list(host.store(self._path).volumes)

    async def delete_volumes(self, instance_id: str) -> bool:
        async with self._transport.call("storage.delete_volumes") as host:
            return drop(host, self._path, instance_id)

    async def delete_volume(self, instance_id: str, name: str) -> bool:
        async with self._transport.call("storage.delete_volume") as host:
            volume = host.store(self._path).volumes.get(instance_id, {}).pop(name, None)
            if volume is not None and volume.used_by and host.around:
                host.around.note_harm(f"{name} of {instance_id} deleted, open in {sorted(volume.used_by)}")
            return volume is not None

    # snapshots of what is off

    async def snapshot_volume(self, instance_id: str, name: str, snapshot: str) -> bool:
        async with self._transport.call("storage.snapshot_volume") as host:
            return self._idle(host, instance_id, name).keep(snapshot)

    async def revert_volume(self, instance_id: str, name: str, snapshot: str) -> bool:
        async with self._transport.call("storage.revert_volume") as host:
            volume = self._idle(host, instance_id, name)
            if snapshot not in volume.snapshots:
                raise NotFound(f"host {host.name}: disk {name} has no snapshot {snapshot}", f"instance/{instance_id}")
            volume.revert(snapshot)
            return True

    async def drop_volume_snapshot(self, instance_id: str, name: str, snapshot: str) -> bool:
        async with self._transport.call("storage.drop_volume_snapshot") as host:
            volume = host.store(self._path).volumes.get(instance_id, {}).get(name)
            return volume is not None and volume.snapshots.pop(snapshot, None) is not None

    def _idle(self, host: FakeHost, instance_id: str, name: str) -> FakeVolume:
        volume = host.store(self._path).volumes.get(instance_id, {}).get(name)
        if volume is None:
            raise NotFound(f"host {host.name}: no disk {name} in {self._path}", f"instance/{instance_id}")
        if volume.used_by:
            raise Busy(f"disk {name} is in use in {sorted(volume.used_by)}", f"instance/{instance_id}", fix="stop it")
        return volume

    # a disk from copies of it

    async def restore_volume(
        self, instance_id: str, name: str, chain: Sequence[Parcel], content: Callable[[Parcel], AsyncIterator[bytes]]
    ) -> bool:
        async with self._transport.call("storage.restore_volume") as host:
            store, sums = host.store(self._path), tuple(parcel.sha256 for parcel in chain)
            there = store.volumes.get(instance_id, {}).get(name)
            if there is not None and there.before is not None and there.restored_from == sums:
                return False
            if there is not None:
                self._idle(host, instance_id, name)
            _need(host, store, 1, self._path)
            copies = [await self._copy_of(parcel, content, instance_id) for parcel in chain]
            if not copies or copies[0][1]:
                raise Invalid(f"the first copy of disk {name} is not whole", f"instance/{instance_id}")
            restored = copies[-1][0]
            restored.name, restored.restored_from, restored.before = name, sums, there
            restored.spec = there.spec if there is not None else restored.spec
            if there is not None and there.before is not None:  # of a restore that was not ended
                restored.before = there.before
            store.volumes.setdefault(instance_id, {})[name] = restored
            return True

    async def _copy_of(
        self, parcel: Parcel, content: Callable[[Parcel], AsyncIterator[bytes]], instance_id: str
    ) -> tuple[FakeVolume, str]:
        data = b""
        async for part in content(parcel):
            self._transport.require_alive("storage.restore_volume")
            data += part
        volume = unpack_volume(data)
        if volume is None or hashlib.sha256(data).hexdigest() != parcel.sha256:
            raise Invalid(f"{parcel.name} came with another checksum, or is no disk", f"instance/{instance_id}")
        return volume, since_of(data)

    async def undo_restore(self, instance_id: str, name: str) -> bool:
        async with self._transport.call("storage.undo_restore") as host:
            disks = host.store(self._path).volumes.get(instance_id, {})
            if name not in disks or disks[name].before is None:
                return False
            kept = self._idle(host, instance_id, name).before
            assert kept is not None
            disks[name] = kept
            return True

    async def drop_before(self, instance_id: str, name: str) -> bool:
        async with self._transport.call("storage.drop_before") as host:
            volume = host.store(self._path).volumes.get(instance_id, {}).get(name)
            if volume is None or volume.before is None:
                return False
            volume.before = None
            return True

    # files beside the disks

    def state_path(self, instance_id: str) -> str:
        return self._file(instance_id, MEMORY)

    async def delete_state(self, instance_id: str) -> bool:
        async with self._transport.call("storage.delete_state") as host:
            return host.store(self._path).files.pop(self.state_path(instance_id), None) is not None

    def _scratch(self, instance_id: str) -> str:
        return f"{self._path}/scratch/{instance_id}"

    async def ensure_scratch(self, instance_id: str) -> str:
        async with self._transport.call("storage.ensure_scratch") as host:
            host.store(self._path).scratch.add(instance_id)
            return self._scratch(instance_id)

    async def scratch_file(self, path: str) -> Parcel:
        async with self._transport.call("storage.scratch_file") as host:
            data = _file_of(host, path)
            return Parcel(path, len(data), hashlib.sha256(data).hexdigest())

    async def read_scratch(self, path: str) -> AsyncIterator[bytes]:
        async with self._transport.call("storage.read_scratch") as host:
            async for part in pieces(_file_of(host, path)):
                yield part
                self._transport.require_alive("storage.read_scratch")

    async def delete_scratch(self, instance_id: str) -> bool:
        async with self._transport.call("storage.delete_scratch") as host:
            store, folder = host.store(self._path), f"{self._scratch(instance_id)}/"
            there = instance_id in store.scratch
            store.scratch.discard(instance_id)
            for path in [path for path in store.files if path.startswith(folder)]:
                del store.files[path]
            return there

    def carrier(self) -> Carrier:
        return FakeCarrier(self._transport, self._path)


def _file_of(host: FakeHost, path: str) -> bytes:
    data = host.files_at(path).get(path)
    if data is None:
        raise NotFound(f"host {host.name}: no file {path}", f"host/{host.name}")
    return data


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
