"""What moves the simulated files of an instance from one datastore to another."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator

from core.errors import Busy, HostFault, Invalid, NotFound
from drivers.carrier import Carrier, Parcel
from drivers.fake_files import pack_seed, pack_volume, pieces, unpack_seed, unpack_volume
from drivers.fake_things import FakeHost, FakeStore
from drivers.transport.fake import FakeTransport

SEED, MEMORY = "seed.iso", "memory.save"


class FakeCarrier(Carrier):
    """One datastore of one simulated host."""

    def __init__(self, transport: FakeTransport, path: str) -> None:
        self._transport = transport
        self._path = path

    async def parcels(self, instance_id: str) -> list[Parcel]:
        async with self._transport.call("storage.carrier.parcels") as host:
            _require_off(host, self._path, instance_id)
            return list(_parcels(host.store(self._path), self._path, instance_id))

    async def read(self, instance_id: str, parcel: Parcel) -> AsyncIterator[bytes]:
        async with self._transport.call("storage.carrier.read") as host:
            data = _parcels(host.store(self._path), self._path, instance_id).get(parcel)
            if data is None:
                raise NotFound(f"host {host.name}: {parcel.name} is not what it was", f"instance/{instance_id}")
            async for part in pieces(data):
                yield part
                self._transport.require_alive("storage.carrier.read")

    async def write(self, instance_id: str, parcel: Parcel, content: AsyncIterator[bytes]) -> bool:
        async with self._transport.call("storage.carrier.write") as host:
            store = host.store(self._path)
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", parcel.name):
                raise Invalid(f"{parcel.name!r} is no name of a parcel", f"instance/{instance_id}")
            if parcel in _parcels(store, self._path, instance_id):
                return False
            _require_off(host, self._path, instance_id)
            if parcel.base_sha256 and parcel.base_sha256 not in store.images:
                message = f"host {host.name}: no image {parcel.base_sha256[:12]} in {self._path}"
                raise NotFound(message, f"instance/{instance_id}")
            data = b""
            async for part in content:
                self._transport.require_alive("storage.carrier.write")
                data += part
            if hashlib.sha256(data).hexdigest() != parcel.sha256:
                raise Invalid(f"host {host.name}: {parcel.name} came with another checksum", f"instance/{instance_id}")
            if store.used_mib >= store.total_mib:
                raise HostFault(f"host {host.name}: datastore {self._path} is full", f"host/{host.name}")
            _take_in(store, self._path, instance_id, parcel.name, data)
            return True

    async def drop(self, instance_id: str) -> bool:
        async with self._transport.call("storage.carrier.drop") as host:
            return drop(host, self._path, instance_id)


def drop(host: FakeHost, path: str, instance_id: str) -> bool:
    """Take all files of an instance away, also from under it: that is harm."""
    store = host.store(path)
    for volume in store.volumes.get(instance_id, {}).values():
        if volume.used_by and host.around:
            host.around.note_harm(f"{volume.name} of {instance_id} deleted, open in {sorted(volume.used_by)}")
    files = [name for name in store.files if name.startswith(f"{path}/instances/{instance_id}/")]
    for name in files:
        del store.files[name]
    seed, volumes = store.seeds.pop(instance_id, None), store.volumes.pop(instance_id, None)
    return bool(files) or seed is not None or volumes is not None


def _parcels(store: FakeStore, path: str, instance_id: str) -> dict[Parcel, bytes]:
    found: dict[Parcel, bytes] = {}
    for volume in store.volumes.get(instance_id, {}).values():
        spec, data = volume.spec, pack_volume(volume)
        base = (spec.image_sha256, spec.image_format) if spec and spec.image_sha256 else ("", "")
        name = f"{volume.name}.{spec.format if spec else 'qcow2'}"
        found[Parcel(name, len(data), hashlib.sha256(data).hexdigest(), *base)] = data
    others = {MEMORY: store.files.get(f"{path}/instances/{instance_id}/{MEMORY}")}
    if instance_id in store.seeds:
        others[SEED] = pack_seed(store.seeds[instance_id])
    for name, content in others.items():
        if content is not None:
            found[Parcel(name, len(content), hashlib.sha256(content).hexdigest())] = content
    return dict(sorted(found.items(), key=lambda one: one[0].name))


def _take_in(store: FakeStore, path: str, instance_id: str, name: str, data: bytes) -> None:
    disks = store.volumes.setdefault(instance_id, {})
    if name == SEED:
        store.seeds[instance_id] = unpack_seed(data)
        return
    volume = unpack_volume(data)
    if volume is None:
        store.files[f"{path}/instances/{instance_id}/{name}"] = data
        return
    volume.name = name.rpartition(".")[0]
    disks[volume.name] = volume


def _require_off(host: FakeHost, path: str, instance_id: str) -> None:
    users = {user for volume in host.store(path).volumes.get(instance_id, {}).values() for user in volume.used_by}
    if users:
        message = f"disks of {instance_id} are in use in {sorted(users)}"
        raise Busy(message, f"instance/{instance_id}", fix="stop it")
