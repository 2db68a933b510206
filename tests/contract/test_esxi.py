"""The drivers of VMware pass the suites of all drivers, against govmomi's simulator: an ESXi host, and a vCenter."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import Invalid
from core.ids import mac_address, new_id, on_host
from core.states import InstanceKind
from drivers.conformance.on_esxi import VmfsTools
from drivers.conformance.rigs import Effort, HypervisorRig, NetworkRig, StorageRig
from drivers.hypervisor.base import Hypervisor, InstanceSpec
from drivers.hypervisor.esxi import EsxiHypervisor, hypervisor_of
from drivers.hypervisor.powers import Move
from drivers.network.base import NetworkSpec, NicSpec
from drivers.network.portgroup import PortGroupNetwork
from drivers.storage.base import ImageFile, VolumeSpec
from drivers.storage.seed import seed_texts
from drivers.storage.vmfs import VmfsStorage
from drivers.transport.base import Endpoint
from drivers.transport.vsphere import VsphereTransport, connect
from tests.contract.suites import HypervisorContract, NetworkContract, PowersContract, StorageContract
from tests.vcsim import CLUSTER, HOSTS, SETTINGS, Vcsim, vcsim

MODES = {"esxi": (("-esx",), ""), "vcenter": ((), CLUSTER)}
LAN = NetworkSpec("lan", "bridge", "VM Network")
STORE = "[LocalDS_0] test"
EFFORT = Effort(3, 12, pause_s=0.05)


@pytest.fixture(scope="module", params=list(MODES))
def sim(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    options, place = MODES[request.param]
    with vcsim(tmp_path_factory.mktemp("vcsim"), *options, place=place) as found:
        yield found


@asynccontextmanager
async def session(endpoint: Endpoint) -> AsyncIterator[VsphereTransport]:
    transport = await connect(endpoint, SETTINGS)
    try:
        yield transport
    finally:
        await transport.close()


@pytest.fixture
async def transport(sim: Vcsim) -> AsyncIterator[VsphereTransport]:
    async with session(sim.endpoint()) as found:
        yield found


class Vms:
    """Makes VMs whose disks are there."""

    def __init__(self, transport: VsphereTransport) -> None:
        self.storage = VmfsStorage(transport, STORE)
        self.network = PortGroupNetwork(transport)

    async def new(self) -> InstanceSpec:
        instance_id = new_id()
        root = await self.storage.ensure_volume(VolumeSpec(instance_id, "root", 16))
        nic = await self.network.ensure_nic(LAN, NicSpec(0, mac_address(instance_id, 0)))
        seed = await self.storage.ensure_seed(seed_texts(
            instance_id=instance_id, hostname="web", ssh_keys=["ssh-ed25519 AAAA me"], user_data="", nics=[nic],
        ))  # fmt: skip
        return InstanceSpec(instance_id, on_host(instance_id), "vm", InstanceKind.VM, 1, 64, (root, seed), (nic,))

    async def take_name(self, name: str, hypervisor: EsxiHypervisor) -> None:
        """Make a VM as somebody else does."""
        spec = replace(await self.new(), name=name)
        await hypervisor.define(spec)
        await hypervisor.disown(name)


class TestEsxi(HypervisorContract):
    @pytest.fixture
    async def rig(self, transport: VsphereTransport) -> AsyncIterator[HypervisorRig]:
        hypervisor, vms = hypervisor_of(transport), Vms(transport)

        def broken(spec: InstanceSpec) -> InstanceSpec:
            root = spec.disks[0]
            return replace(spec, disks=(replace(root, source=f"{root.source}.gone"),))

        async def take_name(name: str) -> None:
            await vms.take_name(name, hypervisor)

        yield HypervisorRig(
            hypervisor, vms.new, broken, take_name, at_once=5, delays_s=(0.0, 0.02), guests=False, effort=EFFORT
        )
        await hypervisor.close()


def tiny_image(folder: Path) -> ImageFile:
    """Make a small qcow2 image with something in it."""
    raw, path = folder / "raw", folder / "tiny.qcow2"
    raw.write_bytes(b"content" * 10000 + bytes(2**23))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    content = path.read_bytes()
    return ImageFile(hashlib.sha256(content).hexdigest(), "qcow2", len(content), path)


class TestVmfs(StorageContract):
    @pytest.fixture
    def rig(self, transport: VsphereTransport, tmp_path: Path) -> StorageRig:
        storage = VmfsStorage(transport, f"[LocalDS_0] store-{new_id()[-8:]}")
        image, tools = tiny_image(tmp_path), VmfsTools(transport)
        return StorageRig(storage, image, tools, format="vmdk", overlays=False, effort=EFFORT)

    async def test_a_path_elsewhere_is_refused(self, rig: StorageRig) -> None:
        with pytest.raises(Invalid):
            await rig.storage.scratch_file("[LocalDS_0] elsewhere/file")


class TestPortGroups(NetworkContract):
    """Of one host: the simulator refuses a port group on the second host of a cluster that has it on the first."""

    @pytest.fixture
    async def rig(self, sim: Vcsim) -> AsyncIterator[NetworkRig]:
        async with session(sim.endpoint(place=sim.place and HOSTS[0])) as transport:
            network, free = PortGroupNetwork(transport), f"new-{new_id()[-6:]}"
            yield NetworkRig(network, "VM Network", free, "Management Network", cidr="", effort=EFFORT)


class TestEsxiPowers(PowersContract):
    @pytest.fixture
    async def rig(self, sim: Vcsim) -> AsyncIterator[HypervisorRig]:
        async with session(sim.endpoint("e1", sim.place and HOSTS[0])) as here, session(
            sim.endpoint("e2", sim.place and HOSTS[1])
        ) as there:
            hypervisor, other, vms = hypervisor_of(here), hypervisor_of(there), Vms(here)

            async def with_disk(spec: InstanceSpec) -> InstanceSpec:
                more = await vms.storage.ensure_volume(VolumeSpec(spec.id, "data1", 16))
                return replace(spec, disks=(*spec.disks, more))

            async def with_nic(spec: InstanceSpec) -> InstanceSpec:
                nic = await vms.network.ensure_nic(LAN, NicSpec(1, mac_address(spec.id, 1)))
                return replace(spec, nics=(*spec.nics, nic))

            async def move(spec: InstanceSpec) -> tuple[Move, Hypervisor]:
                return Move(spec, "127.0.0.1"), other

            async def take_name(name: str) -> None:
                await vms.take_name(name, hypervisor)

            async def left_of(spec: InstanceSpec) -> list[str]:
                return await vms.network.interfaces_of([nic.mac for nic in spec.nics])

            yield HypervisorRig(
                hypervisor, vms.new, lambda spec: spec, take_name, delays_s=(0.0, 0.02), with_disk=with_disk,
                with_nic=with_nic, move=move, other=other, guests=False, left_of=left_of,
            )  # fmt: skip
            await hypervisor.close()
            await other.close()
