"""The fake hypervisor as the carrier of the disks that it holds itself."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from core.errors import Conflict, Invalid
from drivers.carrier import Carrier, Parcel
from drivers.fake_files import pack_instance, pieces, unpack_instance
from drivers.fake_things import FakeHost, FakeInstance
from drivers.hypervisor.fake_part import FakePart
from drivers.hypervisor.powers import Carries

NAME = "instance.tar"


class FakeCarries(FakePart, Carries):
    def carrier(self) -> Carrier:
        return FakePoolCarrier(self)

    async def delete_disk(self, name: str, disk: str) -> bool:
        async with self.call("delete_disk") as host:
            instance = host.instances.get(name)
            if instance is None:
                return False
            specs = [spec for spec in (instance.spec, instance.active) if spec]
            if any(one.name == disk for spec in specs for one in spec.disks):
                raise Conflict(f"host {host.name}: {name} has disk {disk}", f"host/{host.name}", fix="detach it first")
            return instance.own.pop(disk, None) is not None


class FakePoolCarrier(Carrier):
    """One parcel for each instance: its definition and disks."""

    def __init__(self, hypervisor: FakePart) -> None:
        self._hypervisor = hypervisor

    async def parcels(self, instance_id: str) -> list[Parcel]:
        async with self._hypervisor.call("carrier.parcels") as host:
            instance = _that_is_off(host, instance_id)
            return [] if instance is None else [_parcel(pack_instance(instance))]

    async def read(self, instance_id: str, parcel: Parcel) -> AsyncIterator[bytes]:
        async with self._hypervisor.call("carrier.read") as host:
            instance = _that_is_off(host, instance_id)
            data = pack_instance(instance) if instance else b""
            if _parcel(data) != parcel:
                raise Invalid(f"host {host.name}: {parcel.name} is not what it was", f"instance/{instance_id}")
            async for part in pieces(data):
                yield part
                self._hypervisor.transport.require_alive("hypervisor.carrier.read")

    async def write(self, instance_id: str, parcel: Parcel, content: AsyncIterator[bytes]) -> bool:
        async with self._hypervisor.call("carrier.write") as host:
            there = _that_is_off(host, instance_id)
            if there is not None and _parcel(pack_instance(there)) == parcel:
                return False
            data = b""
            async for part in content:
                self._hypervisor.transport.require_alive("hypervisor.carrier.write")
                data += part
            if _parcel(data).sha256 != parcel.sha256:
                raise Invalid(f"host {host.name}: {parcel.name} came with another checksum", f"instance/{instance_id}")
            instance = unpack_instance(data)
            host.instances[instance.name] = instance
            return True

    async def drop(self, instance_id: str) -> bool:
        async with self._hypervisor.call("carrier.drop") as host:
            instance = _that_is_off(host, instance_id)
            return instance is not None and host.instances.pop(instance.name, None) is not None


def _parcel(data: bytes) -> Parcel:
    return Parcel(NAME, len(data), hashlib.sha256(data).hexdigest())


def _that_is_off(host: FakeHost, instance_id: str) -> FakeInstance | None:
    found = (one for one in host.instances.values() if one.spec and one.spec.id == instance_id)
    instance = next(found, None)
    if instance is not None and instance.is_on:
        raise Conflict(f"host {host.name}: {instance.name} is not off", f"instance/{instance_id}", fix="stop it")
    return instance
