"""The fakes pass the suites that the real drivers pass."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import Busy, HostFault, Unreachable
from core.ids import mac_address, new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind, PowerState
from drivers.facts import gather_facts
from drivers.fake_world import ANY, FakeHost, world
from drivers.hosts import Host, connect
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.storage.base import ImageFile
from drivers.transport.base import Endpoint
from tests.contract.hypervisor import HypervisorContract, HypervisorRig
from tests.contract.network import NetworkContract, NetworkRig
from tests.contract.storage import StorageContract, StorageRig
from tests.contract.transport import TransportContract, TransportRig

ENDPOINT = Endpoint("fake-1", "192.0.2.1")


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    world.reset()
    world.add(FakeHost("fake-1"))
    host = await connect("fake", ENDPOINT, DriverSettings())
    yield host
    await host.close()
    world.reset()


def a_spec(image: str = "") -> InstanceSpec:
    instance_id = new_id()
    nic = NicAttachment("eth0", mac_address(instance_id, 0), "br0", address="192.0.2.7/24")
    disk = DiskAttachment("root", "pool", "default", image_fingerprint=image)
    return InstanceSpec(
        instance_id, on_host(instance_id), "web", InstanceKind.CONTAINER, 1, 64, (disk,) if image else (), (nic,)
    )


class TestFakeTransport(TransportContract):
    @pytest.fixture
    def rig(self, host: Host) -> TransportRig:
        return TransportRig(host.transport, "/tmp/test")


class TestFakeHypervisor(HypervisorContract):
    @pytest.fixture
    async def rig(self, host: Host) -> HypervisorRig:
        await host.transport.put(b"image", "/images/x")
        await host.hypervisor.import_image("/images/x", "abc", name="x")  # type: ignore[attr-defined]

        async def new() -> InstanceSpec:
            return a_spec("abc")

        async def take_name(name: str) -> None:
            world.host("fake-1").add_foreign(name)

        def broken(spec: InstanceSpec) -> InstanceSpec:
            return replace(spec, disks=(replace(spec.disks[0], image_fingerprint="def"),))

        return HypervisorRig(host.hypervisor, new, broken, take_name)


class TestFakeStorage(StorageContract):
    @pytest.fixture
    def rig(self, host: Host, tmp_path: Path) -> StorageRig:
        path, content = tmp_path / "image.qcow2", b"not really an image" * 1000
        path.write_bytes(content)
        image = ImageFile(hashlib.sha256(content).hexdigest(), "qcow2", len(content), path, 16)
        return StorageRig(host.storage("/store"), image)


class TestFakeNetwork(NetworkContract):
    @pytest.fixture
    def rig(self, host: Host) -> NetworkRig:
        return NetworkRig(host.network, "br0", "rftest0", "mgmt0")


class TestFaults:
    """What can be done to the simulated world."""

    async def test_a_fault_is_raised_as_often_as_asked(self, host: Host) -> None:
        world.fail("fake-1", "define", Busy("later"), times=2)
        spec = a_spec()
        for _ in range(2):
            with pytest.raises(Busy):
                await host.hypervisor.define(spec)
        assert await host.hypervisor.define(spec) is True

    async def test_a_lost_answer_leaves_the_change(self, host: Host) -> None:
        world.fail("fake-1", "hypervisor.define", Unreachable("lost"), after=True)
        spec = a_spec()
        with pytest.raises(Unreachable):
            await host.hypervisor.define(spec)
        assert await host.hypervisor.define(spec) is False

    async def test_a_hung_call_ends_with_its_deadline_or_its_host(self, host: Host) -> None:
        world.deadline_s = 0.05
        world.hang("fake-1", ANY)
        with pytest.raises(Unreachable):
            await host.hypervisor.instances()
        world.release("fake-1", ANY)
        assert await host.hypervisor.instances() == []

    async def test_a_crash_stops_instances_and_connections(self, host: Host) -> None:
        spec = a_spec()
        await host.hypervisor.define(spec)
        await host.hypervisor.start(spec.name)
        world.crash("fake-1")
        with pytest.raises(Unreachable):
            await host.hypervisor.instances()
        with pytest.raises(Unreachable):
            await connect("fake", ENDPOINT, DriverSettings())
        world.revive("fake-1")
        with pytest.raises(Unreachable):
            await host.hypervisor.instances()
        again = await connect("fake", ENDPOINT, DriverSettings())
        assert (await again.hypervisor.observe(spec.name)).power is PowerState.STOPPED

    async def test_a_full_datastore(self, host: Host, tmp_path: Path) -> None:
        world.full("fake-1", "/store")
        with pytest.raises(HostFault) as caught:
            await host.storage("/store").ensure_image(ImageFile("a" * 64, "qcow2", 2**30, tmp_path / "none"))
        assert caught.value.evidence["free_mib"] == 0

    async def test_facts(self, host: Host) -> None:
        facts = await gather_facts(host.transport)
        assert (facts.hostname, facts.cpus, facts.kinds) == ("fake-1", 16, ["fake"])

    async def test_a_lock_holder_is_known_and_can_be_ended(self, host: Host) -> None:
        script = 'echo "$$ $1" > "$2.holder" && echo locked && exec cat > /dev/null'
        argv = ["flock", "--nonblock", "--conflict-exit-code", "75", "/l", "sh", "-c", script, "x", "w1", "/l"]
        async with host.transport.session(argv) as first:
            assert await anext(first.lines()) == "locked"
            async with host.transport.session(argv) as second:
                assert await second.wait() == 75
            pid, worker = (await host.transport.get("/l.holder")).decode().split()
            assert worker == "w1"
            await host.transport.run(["kill", "-9", pid])
            assert not first.is_alive()

    async def test_a_thousand_hosts(self) -> None:
        world.reset()
        hosts = [await connect("fake", Endpoint(f"h{n}", ""), DriverSettings()) for n in range(1000)]
        for host in hosts:
            await host.hypervisor.prepare()
        addresses = {b.addresses for host in hosts for b in await host.network.bridges() if b.name == "lxcbr0"}
        assert len(addresses) == 1000
        world.reset()
