"""dir datastores of two hosts and the vault hand an instance's files on, also when things break in the middle."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.errors import Busy, HostFault, NotFound, Unreachable, Unsupported
from core.ids import new_id
from core.settings import DriverSettings
from drivers.carrier import Carrier, Parcel, carry
from drivers.conformance.carrier import CarrierRig, unread
from drivers.conformance.disks import DiskTools
from drivers.conformance.storage_restore import Copies, parcels_of
from drivers.conformance.tools import cancelled_after, settle
from drivers.hypervisor.base import DiskAttachment
from drivers.storage.base import ImageFile, SeedSpec, VolumeSpec
from drivers.storage.dir import DirStorage
from drivers.storage.vault import Vault
from drivers.transport.base import Transport
from drivers.transport.ssh import connect
from tests.contract.suites import CarrierContract
from tests.labs import Lab
from tests.live.kvm import tiny
from tests.live.test_transport import gone, sshd_of

DELAYS_S = (0.0, 0.05, 0.15, 0.4)


@dataclass
class Store:
    """A datastore on a host, in a folder for this test alone."""

    lab: Lab
    name: str
    folder: str
    transport: Transport
    storage: DirStorage
    tools: DiskTools

    @property
    def carrier(self) -> Carrier:
        return self.storage.carrier()

    def run(self, command: str) -> str:
        return self.lab.run(self.name, command)

    def parts(self) -> list[str]:
        return self.run(f"find {self.folder} -name '*.part'").split()


async def store(lab: Lab, name: str, folder: str, user: str = "root") -> Store:
    transport = await connect(lab.endpoint(name, user=user), DriverSettings())
    lab.run(name, f"mkdir -p {folder}")
    storage = DirStorage(transport, f"{folder}/store")
    await storage.prepare()
    return Store(lab, name, folder, transport, storage, DiskTools(transport))


@pytest.fixture
async def stores(lab: Lab) -> AsyncIterator[tuple[Store, Store]]:
    """One on each KVM host, at the same path; on the second by a user who has to ask sudo."""
    folder = f"/var/lib/rackflow-test/{uuid.uuid4().hex}"
    found = [await store(lab, "h1", folder), await store(lab, "h2", folder, "rack")]
    yield (found[0], found[1])
    for one in found:
        await one.transport.close()
        one.run(f"umount {folder} 2>/dev/null; rm -rf {folder}")


@dataclass
class Made:
    """An instance's files: an overlay, a blank disk of 6 MiB that are not zeros, a seed, saved memory."""

    id: str
    image: ImageFile
    root: DiskAttachment


async def made(lab: Lab, one: Store) -> Made:
    image, instance_id = tiny(lab), new_id()
    await one.storage.ensure_image(image)
    root = await one.storage.ensure_volume(VolumeSpec(instance_id, "root", 0, image.sha256, image.format))
    await one.tools.write(root, "of the guest")
    data = await one.storage.ensure_volume(VolumeSpec(instance_id, "data1", 32))
    one.run(f"head -c 6291456 /dev/urandom >{one.folder}/noise; "
            f"qemu-io -f qcow2 -c 'write -q -s {one.folder}/noise 0 6M' {data.source}")  # fmt: skip
    await one.storage.ensure_seed(SeedSpec(instance_id, "instance-id: x\n", "#cloud-config\n", "version: 2\n"))
    await one.tools.put(one.storage.state_path(instance_id), b"memory" * 9999)
    return Made(instance_id, image, root)


class TestHostToHost(CarrierContract):
    @pytest.fixture
    async def rig(self, lab: Lab, stores: tuple[Store, Store]) -> CarrierRig:
        found = await made(lab, stores[0])
        await stores[1].storage.ensure_image(found.image)
        return CarrierRig(stores[0].carrier, stores[1].carrier, found.id, DELAYS_S)


class TestHostToVault(CarrierContract):
    @pytest.fixture
    async def rig(self, lab: Lab, stores: tuple[Store, Store], tmp_path: Path) -> CarrierRig:
        return CarrierRig(stores[0].carrier, Vault(tmp_path), (await made(lab, stores[0])).id, DELAYS_S)


class TestVaultToHost(CarrierContract):
    @pytest.fixture
    async def rig(self, lab: Lab, stores: tuple[Store, Store], tmp_path: Path) -> CarrierRig:
        found = await made(lab, stores[0])
        await carry(stores[0].carrier, Vault(tmp_path), found.id)
        await stores[1].storage.ensure_image(found.image)
        return CarrierRig(Vault(tmp_path), stores[1].carrier, found.id, DELAYS_S)


async def test_what_is_carried(lab: Lab, stores: tuple[Store, Store]) -> None:
    found = await made(lab, stores[0])
    await stores[0].storage.ensure_scratch(found.id)
    parcels = {parcel.name: parcel for parcel in await stores[0].carrier.parcels(found.id)}
    assert sorted(parcels) == ["data1.qcow2", "memory.save", "root.qcow2", "seed.iso"]
    assert (parcels["root.qcow2"].base_sha256, parcels["root.qcow2"].base_format) == (found.image.sha256, "qcow2")
    assert parcels["data1.qcow2"].base_sha256 == ""


async def test_an_image_that_is_not_staged(lab: Lab, stores: tuple[Store, Store]) -> None:
    one, two = stores
    found = await made(lab, one)
    with pytest.raises(NotFound):
        await carry(one.carrier, two.carrier, found.id)
    assert "root.qcow2" not in {parcel.name for parcel in await two.carrier.parcels(found.id)}
    await two.storage.ensure_image(found.image)
    assert await carry(one.carrier, two.carrier, found.id) > 0
    with pytest.raises(Exception, match="in use"):
        await two.storage.delete_image(found.image.sha256)
    assert await two.tools.read(found.root) == "of the guest"


async def test_a_datastore_at_another_path(lab: Lab, stores: tuple[Store, Store]) -> None:
    """The overlay's path to its image is rewritten; a second try still knows that it is there."""
    one, two = stores
    found = await made(lab, one)
    other = DirStorage(two.transport, f"{two.folder}/other")
    await other.prepare()
    await other.ensure_image(found.image)
    assert await carry(one.carrier, other.carrier(), found.id) > 0
    assert await carry(one.carrier, other.carrier(), found.id) == 0
    root = await other.ensure_volume(VolumeSpec(found.id, "root", 0, found.image.sha256, "qcow2"))
    assert await two.tools.read(root) == "of the guest"
    assert other.image_path(found.image.sha256, "qcow2") in two.run(f"qemu-img info {root.source}")
    two.run(f"qemu-img check -q {root.source} && qemu-img compare -q {root.source} {root.source}")
    await two.tools.write(root, "spoilt")
    assert await carry(one.carrier, other.carrier(), found.id) > 0
    assert await two.tools.read(root) == "of the guest"


async def test_a_connection_killed_in_the_middle(lab: Lab, stores: tuple[Store, Store]) -> None:
    one, two = stores
    found = await made(lab, one)
    await two.storage.ensure_image(found.image)
    pid = await sshd_of(two.transport)

    def kill(done: int, total: int) -> None:
        if 2**20 < done < 4 * 2**20:
            lab.run("h2", f"kill -9 {pid}", check=False)

    with pytest.raises(Unreachable):
        await asyncio.wait_for(carry(one.carrier, two.carrier, found.id, kill), 20)
    await gone(lab, two.folder, host="h2")
    assert two.parts() == []
    again = await connect(lab.endpoint("h2"), DriverSettings())
    target = DirStorage(again, two.storage._path).carrier()
    assert await target.parcels(found.id) == []
    await carry(one.carrier, target, found.id)
    assert await target.parcels(found.id) == await one.carrier.parcels(found.id)
    await again.close()


async def test_cancelled_in_the_middle_nothing_is_left_on_either_host(lab: Lab, stores: tuple[Store, Store]) -> None:
    one, two = stores
    found = await made(lab, one)
    await two.storage.ensure_image(found.image)
    middle = asyncio.Event()
    task = asyncio.ensure_future(
        carry(one.carrier, two.carrier, found.id, lambda done, _: middle.set() if done > 2**20 else None)
    )
    await middle.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for host, kept in (("h1", one), ("h2", two)):
        await gone(lab, kept.folder, host=host)
        assert kept.parts() == []
    assert await two.carrier.parcels(found.id) == []


async def test_a_full_store(lab: Lab, stores: tuple[Store, Store]) -> None:
    """Known before it is copied; and found out in the middle, when somebody else fills it."""
    two = stores[1]
    two.run(f"mount -t tmpfs -o size=90m none {two.folder}")
    await two.storage.prepare()
    with pytest.raises(HostFault) as caught:
        await two.carrier.write(new_id(), Parcel("root.qcow2", 40 * 2**20, "0" * 64), unread())
    assert caught.value.evidence["free_bytes"] < caught.value.evidence["needed_bytes"]

    async def content() -> AsyncIterator[bytes]:
        yield bytes(2**20)
        await asyncio.to_thread(two.run, f"head -c 100M /dev/zero >{two.folder}/filler || true")
        for _ in range(9):
            yield bytes(2**20)

    instance_id = new_id()
    with pytest.raises(HostFault) as caught:
        await two.carrier.write(instance_id, Parcel("root.qcow2", 10 * 2**20, "0" * 64), content())
    assert "No space left" in str(caught.value)
    assert "make room" in caught.value.fix
    assert two.parts() == []
    assert await two.carrier.parcels(instance_id) == []


async def test_a_disk_in_use_is_left_alone(lab: Lab, stores: tuple[Store, Store]) -> None:
    one = stores[0]
    found = await made(lab, one)
    of = (found.id, "root")
    copies = await one.tools.copies("new")
    await one.storage.snapshot_volume(*of, "s")
    async with one.transport.session(["qemu-io", "-f", "qcow2", found.root.source]) as holder:
        await holder.write(b"write -P 1 0 64k\n")
        while b"wrote" not in await holder.read():
            pass
        grown = await one.storage.ensure_volume(VolumeSpec(*of, 4096, found.image.sha256, "qcow2"))
        assert grown.size_mib == 4096
        for call in (
            one.storage.snapshot_volume(*of, "t"), one.storage.revert_volume(*of, "s"),
            one.storage.drop_volume_snapshot(*of, "s"), one.carrier.parcels(found.id),
            one.storage.restore_volume(*of, parcels_of(copies), Copies([])),
        ):  # fmt: skip
            with pytest.raises(Busy):
                await call
    info = one.run(f"qemu-img info {found.root.source}")
    assert "4 GiB" not in info
    grown = await settle(lambda: one.storage.ensure_volume(VolumeSpec(*of, 4096, found.image.sha256, "qcow2")))
    assert grown.size_mib == 4096
    assert "4 GiB" in one.run(f"qemu-img info {found.root.source}")


async def test_a_raw_disk(lab: Lab, stores: tuple[Store, Store]) -> None:
    one, two = stores
    spec = VolumeSpec(new_id(), "data1", 8, format="raw")
    disk = await one.storage.ensure_volume(spec)
    await one.tools.write(disk, "before")
    with pytest.raises(Unsupported):
        await one.storage.snapshot_volume(spec.instance_id, "data1", "s")
    copies = await one.tools.copies("one", "two")
    assert await one.storage.restore_volume(spec.instance_id, "data1", parcels_of(copies), Copies(copies)) is True
    assert await one.tools.read(disk) == "two"
    assert (await one.storage.ensure_volume(VolumeSpec(spec.instance_id, "data1", 16, format="raw"))).size_mib == 16
    await carry(one.carrier, two.carrier, spec.instance_id)
    assert await two.tools.read(disk) == "two"


async def test_an_image_is_let_go_with_the_last_disk_on_it(lab: Lab, stores: tuple[Store, Store]) -> None:
    one = stores[0]
    found = await made(lab, one)
    copies, of = await one.tools.copies("one", "two"), (found.id, "root")
    await one.storage.restore_volume(*of, parcels_of(copies), Copies(copies))
    assert {p.name: p.base_sha256 for p in await one.carrier.parcels(found.id)}["root.qcow2"] == ""
    with pytest.raises(Exception, match="in use"):
        await one.storage.delete_image(found.image.sha256)
    await one.storage.drop_before(*of)
    assert await one.storage.delete_image(found.image.sha256) is True
    one.run(f"qemu-img check -q {found.root.source}")
    assert await one.tools.read(found.root) == "two"
    left = one.run(f"ls -A {one.folder}/store/instances/{found.id}").split()
    assert [name for name in left if "root" in name] == [".root.qcow2.restored", "root.qcow2"]


async def test_a_full_store_is_known_before_a_restore(lab: Lab, stores: tuple[Store, Store]) -> None:
    two = stores[1]
    two.run(f"mount -t tmpfs -o size=90m none {two.folder}")
    await two.storage.prepare()
    chain = [Parcel("0.qcow2", 20 * 2**20, "0" * 64), Parcel("1.qcow2", 2**20, "1" * 64)]
    with pytest.raises(HostFault):
        await two.storage.restore_volume(new_id(), "root", chain, Copies([]))


async def test_qemu_may_write_to_scratch(lab: Lab, stores: tuple[Store, Store]) -> None:
    folder = await stores[0].storage.ensure_scratch(new_id())
    stores[0].run(f"chmod a+x {stores[0].folder} {stores[0].folder}/store; "
                  f"runuser -u libvirt-qemu -g kvm -- sh -c 'echo x >{folder}/file'")  # fmt: skip
    assert (await stores[0].storage.scratch_file(f"{folder}/file")).size_bytes == 2


async def test_a_killed_call_leaves_no_process(lab: Lab, stores: tuple[Store, Store]) -> None:
    one = stores[0]
    copies = await one.tools.copies("one", "two")
    for delay_s in (0.05, 0.1, 0.2):
        await cancelled_after(
            one.storage.restore_volume(new_id(), "root", parcels_of(copies), Copies(copies)), delay_s
        )
        await gone(lab, one.folder)
    assert one.parts() == []
