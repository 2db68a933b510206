"""KVM, dir, bridge and SSH pass the suites of their families, against a host of the lab."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from core.settings import DriverSettings
from drivers.conformance.disks import DiskTools
from drivers.conformance.extras import LITTLE
from drivers.conformance.rigs import HypervisorRig, NetworkRig, StorageRig
from drivers.conformance.transport import TransportRig
from drivers.network.bridge import INTERFACES_DIR, BridgeNetwork
from drivers.storage.dir import DirStorage
from drivers.transport.base import Transport
from drivers.transport.ssh import connect
from tests.contract.suites import HypervisorContract, NetworkContract, StorageContract, TransportContract
from tests.labs import Lab
from tests.live.kvm import KvmHost, kvm_host, tiny


@pytest.fixture
async def kvm(lab: Lab) -> AsyncIterator[KvmHost]:
    async with kvm_host(lab, "h1") as found:
        yield found


@pytest.fixture
async def folder(kvm: KvmHost) -> AsyncIterator[str]:
    path = f"/var/lib/rackflow-test/{uuid.uuid4().hex}"
    await kvm.host.transport.run(["mkdir", "-p", path])
    yield path
    kvm.lab.run("h1", f"rm -rf {path}")


class TestSshTransport(TransportContract):
    @pytest.fixture
    def rig(self, kvm: KvmHost, folder: str) -> TransportRig:
        return TransportRig(kvm.host.transport, folder)


class TestKvmHypervisor(HypervisorContract):
    @pytest.fixture
    def rig(self, kvm: KvmHost) -> HypervisorRig:
        return HypervisorRig(
            kvm.hypervisor, kvm.new, kvm.broken, kvm.take_name, kvm.ready, at_once=4, delays_s=(0.0, 0.01, 0.2),
            tools=DiskTools(kvm.host.transport), effort=LITTLE,
        )  # fmt: skip


class TestDirStorage(StorageContract):
    @pytest.fixture
    def rig(self, kvm: KvmHost, folder: str) -> StorageRig:
        transport = kvm.host.transport
        return StorageRig(kvm.host.storage(f"{folder}/store"), tiny(kvm.lab), DiskTools(transport), effort=LITTLE)


class NotRoot:
    """The same by a user who has to ask sudo."""

    @pytest.fixture
    async def rack(self, lab: Lab) -> AsyncIterator[Transport]:
        transport = await connect(lab.endpoint("h1", user="rack"), DriverSettings())
        yield transport
        await transport.close()


class TestDirStorageBySudo(NotRoot, StorageContract):
    @pytest.fixture
    def rig(self, lab: Lab, rack: Transport, folder: str) -> StorageRig:
        return StorageRig(DirStorage(rack, f"{folder}/store"), tiny(lab), DiskTools(rack), effort=LITTLE)


class TestBridgeNetworkBySudo(NotRoot, NetworkContract):
    @pytest.fixture
    async def rig(self, lab: Lab, rack: Transport) -> AsyncIterator[NetworkRig]:
        yield NetworkRig(BridgeNetwork(rack), "br0", "rftest1", "mgmt0", effort=LITTLE)
        lab.run("h1", f"ip link del rftest1; rm -f {INTERFACES_DIR}/rackflow-rftest1", check=False)


class TestBridgeNetwork(NetworkContract):
    @pytest.fixture
    async def rig(self, kvm: KvmHost) -> AsyncIterator[NetworkRig]:
        yield NetworkRig(kvm.host.network, "br0", "rftest0", "mgmt0", effort=LITTLE)
        kvm.lab.run("h1", f"ip link del rftest0; rm -f {INTERFACES_DIR}/rackflow-rftest0", check=False)
