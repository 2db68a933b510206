"""Content in datastores of vSphere, on its way in and out; and what vSphere tells of by itself. On the simulator."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import Busy, Conflict, Invalid
from core.ids import new_id
from drivers.carrier import Parcel
from drivers.conformance.carrier import CarrierRig
from drivers.conformance.on_esxi import VmfsTools
from drivers.hypervisor.esxi import hypervisor_of
from drivers.storage.base import VolumeSpec
from drivers.storage.seed import seed_texts
from drivers.storage.vmfs import VmfsStorage
from drivers.storage.vmfs_carrier import VmfsCarrier
from drivers.storage.vmfs_folder import Folder
from drivers.transport.vsphere import VsphereTransport
from drivers.transport.vsphere_files import Files
from tests.contract.suites import CarrierContract
from tests.contract.test_esxi import Vms, sim, tiny_image, transport

__all__ = ["sim", "transport"]  # fixtures


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


async def test_an_image_arrives_with_its_content(transport: VsphereTransport, tmp_path: Path) -> None:
    """qcow2 becomes a stream of vmdk, that a disk of the datastore, and that a volume: the bytes stay the same."""
    storage, image = VmfsStorage(transport, f"[LocalDS_0] store-{new_id()[-8:]}"), tiny_image(tmp_path)
    await storage.prepare()
    await storage.ensure_image(image)
    root = await storage.ensure_volume(VolumeSpec(new_id(), "root", 0, image.sha256, image.format))
    raw = (tmp_path / "raw").read_bytes()
    for disk in (storage.image_path(image.sha256, "vmdk"), root.source):
        kept = await Files(transport).get(disk.replace(".vmdk", "-flat.vmdk"))
        assert kept == raw + bytes(-len(raw) % 2**20)


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
        await VmfsTools(transport).write(root, "text" * 2**18)
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
