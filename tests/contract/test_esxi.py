"""The drivers of VMware pass the suites of all drivers, against govmomi's simulator: an ESXi host, and a vCenter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from core.ids import mac_address, new_id, on_host
from core.states import InstanceKind
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.esxi import EsxiHypervisor
from drivers.network.base import NetworkSpec, NicSpec
from drivers.network.portgroup import PortGroupNetwork
from drivers.transport.base import Endpoint
from drivers.transport.vsphere import VsphereTransport, connect
from drivers.transport.vsphere_files import Files
from tests.contract.hypervisor import HypervisorContract, HypervisorRig
from tests.contract.network import NetworkContract, NetworkRig
from tests.vcsim import CLUSTER, HOSTS, SETTINGS, Vcsim, vcsim

MODES = {"esxi": (("-esx",), ""), "vcenter": ((), CLUSTER)}
LAN = NetworkSpec("lan", "bridge", "VM Network")
STORE = "[LocalDS_0] test"


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
        self.files = Files(transport)
        self.network = PortGroupNetwork(transport)

    async def new(self) -> InstanceSpec:
        from drivers.hypervisor.base import DiskAttachment
        instance_id = new_id()
        folder = f"{STORE}/instances/{instance_id}"
        await self.files.make_folder(folder)
        await self.files.make_disk(f"{folder}/root.vmdk", 16)
        root = DiskAttachment("root", "file", f"{folder}/root.vmdk", "vmdk", 16)
        nic = await self.network.ensure_nic(LAN, NicSpec(0, mac_address(instance_id, 0)))
        return InstanceSpec(instance_id, on_host(instance_id), "vm", InstanceKind.VM, 1, 64, (root,), (nic,))


class TestEsxi(HypervisorContract):
    @pytest.fixture
    async def rig(self, transport: VsphereTransport) -> AsyncIterator[HypervisorRig]:
        hypervisor, vms = EsxiHypervisor(transport), Vms(transport)

        def broken(spec: InstanceSpec) -> InstanceSpec:
            root = spec.disks[0]
            return replace(spec, disks=(replace(root, source=f"{root.source}.gone"),))
        yield HypervisorRig(hypervisor, vms.new, broken, delays_s=(0.0, 0.005, 0.02))
        await hypervisor.close()


class TestPortGroups(NetworkContract):
    """Of one host: the simulator refuses a port group on the second host of a cluster that has it on the first."""

    @pytest.fixture
    async def rig(self, sim: Vcsim) -> AsyncIterator[NetworkRig]:
        async with session(sim.endpoint(place=sim.place and HOSTS[0])) as transport:
            network, free = PortGroupNetwork(transport), f"new-{new_id()[-6:]}"
            yield NetworkRig(network, "VM Network", free, "Management Network", cidr="")
