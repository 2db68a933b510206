"""The fakes pass the suites that the real drivers pass."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import Busy, HostFault, Unreachable
from core.ids import mac_address, new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind, MachinePower, PowerState
from drivers import bmcs
from drivers.baremetal.base import BmcEndpoint, PowerChange
from drivers.baremetal.facets import Inspects
from drivers.conformance.baremetal import BareMetalRig
from drivers.conformance.carrier import CarrierRig
from drivers.conformance.flags import DEGREES, PROTOCOLS
from drivers.conformance.on_fake import FakeTools
from drivers.conformance.rigs import Effort, HypervisorRig, NetworkRig, StorageRig
from drivers.conformance.transport import TransportRig
from drivers.facts import gather_facts
from drivers.fake_files import pack_memory
from drivers.fake_world import ANY, POWERS, FakeHost, world
from drivers.hosts import Host, connect
from drivers.hypervisor.base import DiskAttachment, Hypervisor, InstanceSpec, NicAttachment
from drivers.hypervisor.powers import KeepsImages, Move
from drivers.storage.base import ImageFile, SeedSpec, VolumeSpec
from drivers.transport.base import Endpoint
from tests.contract.suites import (
    BareMetalContract,
    CarrierContract,
    HypervisorContract,
    NetworkContract,
    PowersContract,
    StorageContract,
    TransportContract,
)

ENDPOINT, OTHER = Endpoint("fake-1", "192.0.2.1"), Endpoint("fake-2", "192.0.2.2")
STORE = "/store"
EFFORT = Effort(20, 25, inside=True, pause_s=0.001)


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    world.reset()
    world.add(FakeHost("fake-1", powers=POWERS | {"carry"}))
    world.add(FakeHost("fake-2", powers=POWERS | {"carry"}))
    host = await connect("fake", ENDPOINT, DriverSettings())
    yield host
    await host.close()
    assert world.harm == []
    world.reset()


@pytest.fixture
async def other() -> Host:
    return await connect("fake", OTHER, DriverSettings())


def a_spec(image: str = "") -> InstanceSpec:
    instance_id = new_id()
    nic = NicAttachment("eth0", mac_address(instance_id, 0), "br0", address="192.0.2.7/24")
    disk = DiskAttachment("root", "pool", "default", image_fingerprint=image)
    return InstanceSpec(
        instance_id, on_host(instance_id), "web", InstanceKind.CONTAINER, 1, 64, (disk,) if image else (), (nic,)
    )


async def a_vm(host: Host) -> InstanceSpec:
    """Return the spec of a VM whose disk is there, blank."""
    spec = a_spec()
    disk = await host.storage(STORE).ensure_volume(VolumeSpec(spec.id, "root", 16))
    return replace(spec, kind=InstanceKind.VM, disks=(disk,))


def with_nic(spec: InstanceSpec) -> InstanceSpec:
    return replace(spec, nics=(*spec.nics, NicAttachment("eth1", mac_address(spec.id, 1), "br0")))


async def lose_the_next_answer() -> None:
    world.fail("fake-1", ANY, Unreachable("the answer was lost"), after=True)


def a_rig(host: Host, new: Callable[[], Awaitable[InstanceSpec]], broken: dict[str, Any]) -> HypervisorRig:
    """Return a rig without what VMs and containers do not share."""

    async def take_name(name: str) -> None:
        world.host("fake-1").add_foreign(name)

    async def file_bytes(path: str) -> int:
        return len(world.host("fake-1").files_at(path).get(path, b""))

    async def one_nic_more(spec: InstanceSpec) -> InstanceSpec:
        return with_nic(spec)

    async def left_of(spec: InstanceSpec) -> list[str]:
        return await host.network.interfaces_of([nic.mac for nic in spec.nics])

    return HypervisorRig(
        host.hypervisor, new, lambda spec: replace(spec, disks=(replace(spec.disks[0], **broken),)), take_name,
        tools=FakeTools("fake-1"), left_of=left_of, disturb=lose_the_next_answer, effort=EFFORT,
        folder=f"{STORE}/scratch/x",
        file_bytes=file_bytes, with_nic=one_nic_more, console_talk=(b"a2b", b"a2b"),
        reboot_grace_s=0.1,
    )  # fmt: skip


class TestFakeTransport(TransportContract):
    @pytest.fixture
    def rig(self, host: Host) -> TransportRig:
        return TransportRig(host.transport, "/tmp/test")


class FakeContainers:
    """Containers, whose disks the hypervisor holds and carries."""

    @pytest.fixture
    async def rig(self, host: Host, other: Host) -> HypervisorRig:
        for one in (host, other):
            assert isinstance(one.hypervisor, KeepsImages)
            await one.transport.put(b"image", "/images/x")
            await one.hypervisor.import_image("/images/x", "abc", name="x")

        async def new() -> InstanceSpec:
            return a_spec("abc")

        async def with_disk(spec: InstanceSpec) -> InstanceSpec:
            return replace(spec, disks=(*spec.disks, DiskAttachment("data1", "pool", "default", size_mib=16)))

        rig = a_rig(host, new, {"image_fingerprint": "def"})
        return replace(rig, with_disk=with_disk, other=other.hypervisor, moves=())


class TestFakeContainers(FakeContainers, HypervisorContract):
    pass


class TestFakeContainerPowers(FakeContainers, PowersContract):
    pass


class FakeVms:
    """VMs, whose disks storage holds: the hypervisor has no carrier."""

    @pytest.fixture
    async def rig(self, host: Host, other: Host) -> HypervisorRig:
        world.host("fake-1").powers = world.host("fake-2").powers = POWERS
        here, there = [await connect("fake", one, DriverSettings()) for one in (ENDPOINT, OTHER)]

        async def with_disk(spec: InstanceSpec) -> InstanceSpec:
            disk = await here.storage(STORE).ensure_volume(VolumeSpec(spec.id, "data1", 16))
            return replace(spec, disks=(*spec.disks, disk))

        async def move(spec: InstanceSpec) -> tuple[Move, Hypervisor]:
            await there.storage(STORE).ensure_volume(VolumeSpec(spec.id, "root", 16))
            return Move(spec, "192.0.2.2", ("root",)), there.hypervisor

        rig = a_rig(here, lambda: a_vm(here), {"source": f"{STORE}/instances/none/root.qcow2"})
        return replace(rig, with_disk=with_disk, move=move)


class TestFakeVms(FakeVms, HypervisorContract):
    pass


class TestFakeVmPowers(FakeVms, PowersContract):
    pass


class TestFakeCarrier(CarrierContract):
    @pytest.fixture
    async def rig(self, host: Host, other: Host) -> CarrierRig:
        spec = await a_vm(host)
        storage = host.storage(STORE)
        await storage.ensure_seed(SeedSpec(spec.id, "m", "u", "n"))
        await host.transport.put(pack_memory("thought", {}), storage.state_path(spec.id))
        return CarrierRig(storage.carrier(), other.storage(STORE).carrier(), spec.id)


class TestFakeStorage(StorageContract):
    @pytest.fixture
    def rig(self, host: Host, tmp_path: Path) -> StorageRig:
        path, content = tmp_path / "image.qcow2", b"not really an image" * 1000
        path.write_bytes(content)
        image = ImageFile(hashlib.sha256(content).hexdigest(), "qcow2", len(content), path, 16)
        return StorageRig(host.storage(STORE), image, FakeTools("fake-1"), disturb=lose_the_next_answer, effort=EFFORT)


class TestFakeNetwork(NetworkContract):
    @pytest.fixture
    def rig(self, host: Host) -> NetworkRig:
        return NetworkRig(host.network, "br0", "rftest0", "mgmt0", disturb=lose_the_next_answer, effort=EFFORT)


class TestFakeBmc(BareMetalContract):
    @pytest.fixture
    async def rig(self, host: Host) -> BareMetalRig:
        world.host("fake-2").bmc_answers = False

        async def boots() -> int:
            return world.host("fake-1").boots

        bmc, nobody = [await bmcs.connect(BmcEndpoint(f"fake-{n}", "fake://"), DriverSettings()) for n in (1, 2)]
        return BareMetalRig(bmc, boots, nobody=nobody)

    async def test_it_tells_what_the_host_has(self, host: Host, rig: BareMetalRig) -> None:
        assert isinstance(rig.bmc, Inspects)
        found, real = await rig.bmc.inspect(), world.host("fake-1")
        assert (found.cpu.count, found.memory_mib, found.serial) == (real.cpus, real.memory_mib, "fake-1")

    async def test_what_runs_on_a_cut_host_ends_with_its_power(self, host: Host, rig: BareMetalRig) -> None:
        spec = await a_vm(host)
        await host.hypervisor.define(spec)
        await host.hypervisor.start(spec.name)
        world.cut("fake-1")
        assert await rig.bmc.power() is MachinePower.ON
        await rig.bmc.set_power(PowerChange.FORCE_OFF)
        assert world.host("fake-1").instances[spec.name].power is PowerState.STOPPED
        await rig.bmc.set_power(PowerChange.ON)
        with pytest.raises(Unreachable):  # its network is still cut
            await connect("fake", ENDPOINT, DriverSettings())


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

    async def test_powers_can_be_taken_away(self, host: Host) -> None:
        for powers in (frozenset[str](), frozenset({"suspend", "snapshot"})):
            world.host("fake-1").powers = powers
            found = (await connect("fake", ENDPOINT, DriverSettings())).hypervisor
            flags = await found.capabilities()
            assert {flag for flag in PROTOCOLS | DEGREES if getattr(flags, flag)} == powers
            assert {flag for flag, protocol in PROTOCOLS.items() if isinstance(found, protocol)} == powers

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
