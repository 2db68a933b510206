"""Two KVM hosts of the lab, and what tests of optional powers need besides."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from core.ids import mac_address
from drivers.conformance.rigs import HypervisorRig
from drivers.hypervisor.base import DiskAttachment, Hypervisor, InstanceSpec
from drivers.hypervisor.kvm import KvmHypervisor
from drivers.hypervisor.powers import Move
from drivers.network.base import NicSpec
from drivers.storage.base import VolumeSpec
from drivers.storage.seed import seed_texts
from tests.labs import Lab
from tests.live.kvm import DATASTORE, LAN, KvmHost, kvm_host, tiny

SHARED = "/srv/shared/rackflow-test"


@dataclass
class Pair:
    """A source and a target, and a folder on the source that QEMU may write to."""

    here: KvmHost
    there: KvmHost
    folder: str
    foreign: list[str] = field(default_factory=list)  # domains that were made by hand

    @property
    def source(self) -> KvmHypervisor:
        return self.here.hypervisor

    @property
    def target(self) -> KvmHypervisor:
        return self.there.hypervisor

    async def new(self) -> InstanceSpec:
        """Return the spec of a tiny VM that may grow while it runs."""
        spec = await self.here.new()
        return replace(spec, options=(("cpu_max", "2"), ("memory_max_mib", "192")))

    @staticmethod
    def larger(spec: InstanceSpec) -> InstanceSpec:
        return replace(spec, cpu=2, memory_mib=192)

    async def running(self, spec: InstanceSpec | None = None) -> InstanceSpec:
        """Return the spec of a VM whose agent answers."""
        spec = spec or await self.new()
        await self.source.define(spec)
        await self.source.start(spec.name)
        await self.here.ready(spec.name)
        return spec

    async def disk(self, spec: InstanceSpec, name: str = "data1", size_mib: int = 32) -> DiskAttachment:
        """Return one more disk, which is there."""
        return await self.here.host.storage(DATASTORE).ensure_volume(VolumeSpec(spec.id, name, size_mib))

    async def with_disk(self, spec: InstanceSpec) -> InstanceSpec:
        return replace(spec, disks=(*spec.disks, await self.disk(spec)))

    async def with_nic(self, spec: InstanceSpec) -> InstanceSpec:
        nic = await self.here.host.network.ensure_nic(LAN, NicSpec(1, mac_address(spec.id, 1)))
        return replace(spec, nics=(*spec.nics, nic))

    async def move(self, spec: InstanceSpec) -> tuple[Move, Hypervisor]:
        """Make blank volumes on the target, which are to be copied."""
        storage, image = self.there.host.storage(DATASTORE), tiny(self.there.lab)
        await storage.prepare()
        await storage.ensure_image(image)
        self.there.made.append(spec.id)
        root = await storage.ensure_volume(VolumeSpec(spec.id, "root", 0, image.sha256, image.format))
        seed = await storage.ensure_seed(seed_texts(
            instance_id=spec.id, hostname="vm", ssh_keys=[self.there.public_key()], user_data="", nics=spec.nics,
        ))  # fmt: skip
        address = self.there.host.transport.endpoint.address
        return Move(replace(spec, disks=(root, seed)), address, ("root",)), self.target

    async def shared(self) -> tuple[InstanceSpec, Move]:
        """Return a VM whose disks lie in the folder that all hosts see, and its way to the target."""
        spec = replace(await self.here.new(datastore=SHARED), options=(("cpu_max", "2"),))
        self.there.made.append(spec.id)
        return spec, Move(spec, self.there.host.transport.endpoint.address)

    async def file_bytes(self, path: str) -> int:
        found = await self.here.host.transport.run(["stat", "-c", "%s", path], check=False)
        return int(found.stdout) if found.exit_code == 0 else 0

    async def left_of(self, spec: InstanceSpec) -> list[str]:
        return await self.here.host.network.interfaces_of([nic.mac for nic in spec.nics])

    async def take_name(self, name: str) -> None:
        await self.here.take_name(name)
        self.foreign.append(name)


def rig_of(pair: Pair) -> HypervisorRig:
    """Return what the contract suites need."""
    return HypervisorRig(
        pair.source, pair.new, pair.here.broken, pair.take_name, pair.here.ready, at_once=4, delays_s=(0.01, 0.3),
        folder=pair.folder, file_bytes=pair.file_bytes, with_disk=pair.with_disk, with_nic=pair.with_nic,
        larger=pair.larger, move=pair.move, other=pair.target, left_of=pair.left_of,
    )  # fmt: skip


@asynccontextmanager
async def pair_of(lab: Lab, here: str = "h1", there: str = "h2") -> AsyncIterator[Pair]:
    """Connect to two hosts, and leave them as they were."""
    async with kvm_host(lab, here) as one, kvm_host(lab, there) as other:
        folder = f"/var/lib/rackflow-test/scratch-{uuid.uuid4().hex}"
        await one.host.transport.run(["install", "-d", "-m", "2770", "-g", "kvm", folder])
        pair = Pair(one, other, folder)
        try:
            yield pair
        finally:
            for name in pair.foreign:
                lab.run(here, f"virsh -q destroy {name}; virsh -q undefine {name}", check=False)
            lab.run(here, f"rm -rf {folder}", check=False)
            made = " ".join(f"{SHARED}/instances/{spec_id}" for spec_id in one.made)
            lab.run(here, f"rm -rf {made}", check=False)
