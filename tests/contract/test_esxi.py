"""The drivers of VMware pass the suites of all drivers, against govmomi's simulator: an ESXi host, and a vCenter."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import Busy, Conflict, Invalid, NotFound, Unsupported
from core.ids import mac_address, new_id, on_host
from core.states import InstanceKind
from drivers.carrier import Parcel
from drivers.hypervisor.base import DiskAttachment, Hypervisor, InstanceSpec
from drivers.hypervisor.esxi import EsxiHypervisor, hypervisor_of
from drivers.hypervisor.powers import Move
from drivers.network.base import NetworkSpec, NicSpec
from drivers.network.portgroup import PortGroupNetwork
from drivers.storage.base import ImageFile, VolumeSpec
from drivers.storage.seed import seed_texts
from drivers.storage.vmfs import VmfsStorage
from drivers.storage.vmfs_carrier import VmfsCarrier
from drivers.storage.vmfs_folder import Folder
from drivers.transport.base import Endpoint
from drivers.transport.vsphere import VsphereTransport, connect
from drivers.transport.vsphere_files import Files
from tests.contract.carrier import CarrierContract, CarrierRig
from tests.contract.hypervisor import HypervisorContract, HypervisorRig
from tests.contract.hypervisor_powers import PowersContract
from tests.contract.network import NetworkContract, NetworkRig
from tests.contract.storage import Copies, StorageContract, StorageRig
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

        yield HypervisorRig(hypervisor, vms.new, broken, take_name, at_once=5, delays_s=(0.0, 0.02))
        await hypervisor.close()


async def test_what_vsphere_tells_of_by_itself(transport: VsphereTransport) -> None:
    hypervisor, vms = hypervisor_of(transport), Vms(transport)
    spec = await vms.new()
    none, mark = await hypervisor.events("")
    assert none == []
    await hypervisor.define(spec)
    await hypervisor.start(spec.name)
    told, after = await hypervisor.events(mark)
    mine = [one for one in told if one.instance_id == spec.id]
    assert {"VmCreatedEvent", "VmPoweredOnEvent"} <= {one.kind for one in mine}
    assert {one.by for one in mine} == {"user"}
    assert all(spec.name in one.text for one in mine if one.kind == "VmPoweredOnEvent")
    assert [one.at for one in told] == sorted(one.at for one in told)
    assert await hypervisor.events(after) == ([], after)
    await hypervisor.stop(spec.name, grace_s=0)
    await hypervisor.undefine(spec.name)
    told, _ = await hypervisor.events(after)
    assert "VmRemovedEvent" in {one.kind for one in told if one.instance_id == spec.id}, "it is gone, and still told of"
    await hypervisor.close()


class DiskTools:
    """Writes to what the simulator keeps of a disk beside its descriptor."""

    def __init__(self, transport: VsphereTransport) -> None:
        self.files = Files(transport)

    async def write(self, disk: DiskAttachment, text: str) -> None:
        await self.files.put(disk.source.replace(".vmdk", "-flat.vmdk"), text.encode())

    async def read(self, disk: DiskAttachment) -> str:
        return (await self.files.get(disk.source.replace(".vmdk", "-flat.vmdk"))).decode()

    async def put(self, path: str, data: bytes) -> None:
        await self.files.put(path, data)

    async def copies(self, *texts: str) -> list[bytes]:
        return [text.encode() for text in texts]


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
        return StorageRig(storage, tiny_image(tmp_path), DiskTools(transport), format="vmdk", overlays=False)

    async def test_files_on_their_way(self, rig: StorageRig) -> None:
        store, instance_id, data = rig.storage, new_id(), b"backup" * 2**16
        folder = await store.ensure_scratch(instance_id)
        assert await store.ensure_scratch(instance_id) == folder
        await rig.tools.put(f"{folder}/root.vmdk", data)
        found = await store.scratch_file(f"{folder}/root.vmdk")
        assert (found.size_bytes, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        with pytest.raises(NotFound):
            await store.scratch_file(f"{folder}/none")
        with pytest.raises(Invalid):
            await store.scratch_file("[LocalDS_0] elsewhere/file")
        assert [await store.delete_scratch(instance_id), await store.delete_scratch(instance_id)] == [True, False]

    async def test_an_image_arrives_with_its_content(self, rig: StorageRig, tmp_path: Path) -> None:
        """qcow2 becomes a stream of vmdk, that a disk of the datastore, and that a volume: the bytes stay the same."""
        root = await rig.storage.ensure_volume(await self.staged(rig))
        raw = (tmp_path / "raw").read_bytes()
        for disk in (rig.storage.image_path(rig.image.sha256, "vmdk"), root.source):
            kept = await rig.tools.files.get(disk.replace(".vmdk", "-flat.vmdk"))
            assert kept == raw + bytes(-len(raw) % 2**20)

    async def test_a_disk_is_restored(self, rig: StorageRig) -> None:
        """It is not: copies are qcow2 files."""
        store, spec = rig.storage, await self.staged(rig)
        await store.ensure_volume(spec)
        with pytest.raises(Unsupported):
            await store.restore_volume(spec.instance_id, "root", [], Copies([]))
        assert await store.undo_restore(spec.instance_id, "root") is False
        assert await store.drop_before(spec.instance_id, "root") is False

    test_a_disk_that_was_lost_is_restored = None
    test_copies_that_are_not_right_change_nothing = None
    test_a_killed_restore_is_finished_by_the_next = None


class Elsewhere(VmfsCarrier):
    """What vSphere is not asked to copy by itself, as if it were another one."""

    async def _is_same_vsphere(self, other: VmfsCarrier) -> bool:
        return False


class TestVmfsCarrier(CarrierContract):
    @pytest.fixture
    async def rig(self, transport: VsphereTransport) -> CarrierRig:
        return await self.given(transport, Elsewhere)

    async def given(self, transport: VsphereTransport, kind: type[VmfsCarrier]) -> CarrierRig:
        instance_id, mark = new_id(), new_id()[-8:]
        source, target = [VmfsStorage(transport, f"[LocalDS_{n}] carried-{mark}") for n in (0, 1)]
        await source.prepare()
        await target.prepare()
        root = await source.ensure_volume(VolumeSpec(instance_id, "root", 3))
        await DiskTools(transport).write(root, "text" * 2**18)
        await source.ensure_volume(VolumeSpec(instance_id, "data1", 1))
        await source.snapshot_volume(instance_id, "data1", "before")
        texts = seed_texts(instance_id=instance_id, hostname="web", ssh_keys=[], user_data="", nics=[])
        await source.ensure_seed(texts)
        carriers = [kind(Folder(transport, f"[LocalDS_{n}] carried-{mark}")) for n in (0, 1)]
        return CarrierRig(*carriers, instance_id, (0.0, 0.02, 0.1))

    async def test_what_is_carried(self, rig: CarrierRig) -> None:
        """Each disk as the bytes that its guest sees, in its whole size."""
        found = {one.name: one for one in await rig.source.parcels(rig.instance_id)}
        assert list(found) == ["data1.raw", "root.raw", "seed.guestinfo"]
        digest = hashlib.sha256(b"text" * 2**18 + bytes(2 * 2**20)).hexdigest()
        assert (found["root.raw"].size_bytes, found["root.raw"].sha256) == (3 * 2**20, digest)

    async def test_disks_that_change_are_not_carried(self, rig: CarrierRig, transport: VsphereTransport) -> None:
        """One that runs, and one whose newest content lies in a snapshot's files."""
        vms, hypervisor = Vms(transport), hypervisor_of(transport)
        spec, carrier = await vms.new(), vms.storage.carrier()
        await hypervisor.define(spec)
        assert len(await carrier.parcels(spec.id)) == 2
        await hypervisor.start(spec.name)
        with pytest.raises(Busy, match="is poweredOn"):
            await carrier.parcels(spec.id)
        await hypervisor.stop(spec.name, grace_s=0)
        await hypervisor.snapshot(spec.name, "one")
        with pytest.raises(Conflict, match="has snapshots"):
            await carrier.parcels(spec.id)
        await hypervisor.drop_snapshot(spec.name, "one")
        assert len(await carrier.parcels(spec.id)) == 2
        await hypervisor.close()

    async def test_what_a_disk_of_vsphere_cannot_be(self, rig: CarrierRig) -> None:
        data = bytes(2**20)
        digest = hashlib.sha256(data).hexdigest()

        async def content() -> AsyncIterator[bytes]:
            yield data

        for parcel, why in (
            (Parcel("root.qcow2", len(data), digest), "takes no 'root.qcow2'"),
            (Parcel("root.raw", len(data), digest, "ab" * 32, "qcow2"), "goes on from image abab"),
            (Parcel("root.raw", len(data) - 1, digest), "no disk of whole KiB"),
        ):
            with pytest.raises(Invalid, match=why):
                await rig.target.write(rig.instance_id, parcel, content())


class TestVmfsCarrierOfOneVsphere(CarrierContract):
    """The disks are copied where they lie, and none of their bytes come by."""

    @pytest.fixture
    async def rig(self, transport: VsphereTransport, monkeypatch: pytest.MonkeyPatch) -> CarrierRig:
        async def unasked(*_: object) -> bool:
            pytest.fail("a disk passes through the front-end")

        monkeypatch.setattr(VmfsCarrier, "_take_disk", unasked)
        return await TestVmfsCarrier().given(transport, VmfsCarrier)

    test_other_content_is_refused = None
    test_a_broken_stream_leaves_nothing_that_counts = None
    test_a_name_leads_nowhere_else = None


class TestPortGroups(NetworkContract):
    """Of one host: the simulator refuses a port group on the second host of a cluster that has it on the first."""

    @pytest.fixture
    async def rig(self, sim: Vcsim) -> AsyncIterator[NetworkRig]:
        async with session(sim.endpoint(place=sim.place and HOSTS[0])) as transport:
            network, free = PortGroupNetwork(transport), f"new-{new_id()[-6:]}"
            yield NetworkRig(network, "VM Network", free, "Management Network", cidr="")


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

            yield HypervisorRig(
                hypervisor, vms.new, lambda spec: spec, take_name, delays_s=(0.0, 0.02), with_disk=with_disk,
                with_nic=with_nic, move=move, other=other, guests=False,
            )  # fmt: skip
            await hypervisor.close()
            await other.close()
