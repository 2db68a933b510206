"""What every storage driver must do."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

from core.errors import Conflict, Invalid, NotFound, Unsupported
from core.ids import new_id
from drivers.conformance.cases import Suite, raises, unsupported
from drivers.conformance.rigs import StorageRig
from drivers.conformance.tools import cancelled_after, settle
from drivers.hosts import verbs_of
from drivers.hypervisor.base import DiskAttachment
from drivers.storage.base import SeedSpec, Storage, VolumeSpec

CASES: Suite[StorageRig] = Suite("storage", verbs_of(Storage))


async def staged(rig: StorageRig) -> VolumeSpec:
    await rig.storage.prepare()
    await rig.storage.ensure_image(rig.image)
    return VolumeSpec(new_id(), "root", 0, rig.image.sha256, rig.image.format)


@CASES.case("prepare")
async def prepare_changes_nothing_the_second_time(rig: StorageRig) -> None:
    assert await rig.storage.prepare() is True
    assert await rig.storage.prepare() is False
    assert await rig.storage.images() == []
    assert await rig.storage.volumes() == []


@CASES.case("capacity")
async def capacity(rig: StorageRig) -> None:
    await rig.storage.prepare()
    found = await rig.storage.capacity()
    assert found.total_mib >= found.free_mib > 0


@CASES.case("ensure_image", "images", "image_path")
async def an_image_is_copied_once(rig: StorageRig) -> None:
    await rig.storage.prepare()
    done: list[tuple[int, int]] = []
    assert await rig.storage.ensure_image(rig.image, progress=lambda now, all_: done.append((now, all_))) is True
    assert await rig.storage.ensure_image(rig.image) is False
    assert await rig.storage.images() == [rig.image.sha256]
    assert done == sorted(done)
    assert done[-1] == (rig.image.size_bytes, rig.image.size_bytes)
    assert rig.image.sha256 in rig.storage.image_path(rig.image.sha256, rig.image.format)


@CASES.case("ensure_image")
async def wrong_content_is_refused(rig: StorageRig) -> None:
    await rig.storage.prepare()
    with raises(Invalid):
        await rig.storage.ensure_image(replace(rig.image, sha256="0" * 64))
    assert await rig.storage.images() == []


@CASES.case("ensure_image")
async def the_same_image_by_several_at_once(rig: StorageRig) -> None:
    await rig.storage.prepare()
    changed = await asyncio.gather(*(settle(lambda: rig.storage.ensure_image(rig.image)) for _ in range(4)))
    assert any(changed)
    assert await rig.storage.images() == [rig.image.sha256]


@CASES.case("ensure_image", "delete_image")
async def a_killed_copy_is_finished_by_the_next(rig: StorageRig) -> None:
    await rig.storage.prepare()
    for moment in (2, 3, 4, 6, 0.005, 0.02, 0.1):
        await cancelled_after(rig.storage.ensure_image(rig.image), moment)
        listed = await rig.storage.images()
        changed = await settle(lambda: rig.storage.ensure_image(rig.image))
        assert not (listed and changed), f"killed after {moment}: it was listed before it was whole"
        assert await rig.storage.images() == [rig.image.sha256]
        assert await rig.storage.delete_image(rig.image.sha256) is True
        assert await rig.storage.delete_image(rig.image.sha256) is False
        assert await rig.storage.images() == []


@CASES.case("ensure_volume", "volumes", "delete_volumes", "delete_image")
async def a_volume_backed_by_an_image(rig: StorageRig) -> None:
    spec = await staged(rig)
    found = await rig.storage.ensure_volume(spec)
    assert isinstance(found, DiskAttachment)
    assert (found.name, found.kind, found.format) == ("root", "file", rig.format)
    assert spec.instance_id in found.source
    assert await rig.storage.ensure_volume(spec) == found
    assert await rig.storage.volumes() == [spec.instance_id]
    if rig.overlays:
        with raises(Conflict):
            await rig.storage.delete_image(rig.image.sha256)
    assert await rig.storage.delete_volumes(spec.instance_id) is True
    assert await rig.storage.delete_volumes(spec.instance_id) is False
    assert await rig.storage.volumes() == []
    assert await rig.storage.delete_image(rig.image.sha256) is True


@CASES.case("ensure_volume", "ensure_seed", "delete_volumes")
async def a_blank_volume_and_a_seed(rig: StorageRig) -> None:
    await rig.storage.prepare()
    instance_id = new_id()
    blank = await rig.storage.ensure_volume(VolumeSpec(instance_id, "data1", 16))
    assert (blank.name, blank.size_mib, blank.read_only) == ("data1", 16, False)
    seed_spec = SeedSpec(instance_id, "instance-id: x\n", "#cloud-config\n", "version: 2\n")
    seed = await rig.storage.ensure_seed(seed_spec)
    assert (seed.name, seed.format, seed.read_only) == ("seed", "raw", True)
    assert await rig.storage.ensure_seed(seed_spec) == seed
    assert seed.source != blank.source
    assert await rig.storage.volumes() == [instance_id]
    assert await rig.storage.delete_volumes(instance_id) is True


@CASES.case("ensure_volume")
async def a_volume_of_an_image_that_is_not_there(rig: StorageRig) -> None:
    await rig.storage.prepare()
    with raises(NotFound):
        await rig.storage.ensure_volume(VolumeSpec(new_id(), "root", 0, "0" * 64))
    assert await rig.storage.volumes() == []


@CASES.case("ensure_volume", "delete_volumes")
async def many_volumes_at_once(rig: StorageRig) -> None:
    spec = await staged(rig)
    specs = [replace(spec, instance_id=new_id()) for _ in range(10)]
    found = await asyncio.gather(*map(rig.storage.ensure_volume, specs))
    assert len({disk.source for disk in found}) == 10
    assert sorted(await rig.storage.volumes()) == sorted(one.instance_id for one in specs)
    assert await asyncio.gather(*(rig.storage.delete_volumes(one.instance_id) for one in specs)) == [True] * 10


@CASES.case("ensure_volume", "delete_volumes")
async def a_killed_volume_is_finished_by_the_next(rig: StorageRig) -> None:
    spec = await staged(rig)
    for delay_s in (0.0, 0.005, 0.02, 0.1):
        await cancelled_after(rig.storage.ensure_volume(spec), delay_s)
        found = await settle(lambda: rig.storage.ensure_volume(spec))
        assert spec.instance_id in found.source
        await cancelled_after(rig.storage.delete_volumes(spec.instance_id), delay_s)
        await settle(lambda: rig.storage.delete_volumes(spec.instance_id))
        assert await rig.storage.volumes() == []


@CASES.case("ensure_volume")
async def a_disk_grows_and_never_shrinks(rig: StorageRig) -> None:
    await rig.storage.prepare()
    spec = VolumeSpec(new_id(), "data1", 16)
    disk = await rig.storage.ensure_volume(spec)
    await rig.tools.write(disk, "kept")
    assert (await rig.storage.ensure_volume(replace(spec, size_mib=40))).size_mib == 40
    assert (await rig.storage.ensure_volume(replace(spec, size_mib=24))).size_mib == 40
    assert (await rig.storage.ensure_volume(spec)).source == disk.source
    assert await rig.tools.read(disk) == "kept"


@CASES.case("delete_volume")
async def one_disk_is_deleted(rig: StorageRig) -> None:
    spec = await staged(rig)
    root = await rig.storage.ensure_volume(spec)
    await rig.storage.ensure_volume(VolumeSpec(spec.instance_id, "data1", 16))
    await rig.tools.write(root, "kept")
    assert await rig.storage.delete_volume(spec.instance_id, "data1") is True
    assert await rig.storage.delete_volume(spec.instance_id, "data1") is False
    assert await rig.tools.read(root) == "kept"
    assert await rig.storage.delete_volume(spec.instance_id, "root") is True
    assert await rig.storage.delete_volume(new_id(), "root") is False
    assert await rig.storage.delete_image(rig.image.sha256) is True


@CASES.case("state_path", "delete_state")
async def saved_memory_is_taken_away(rig: StorageRig) -> None:
    await rig.storage.prepare()
    instance_id = new_id()
    disk = await rig.storage.ensure_volume(VolumeSpec(instance_id, "data1", 16))
    await rig.tools.write(disk, "kept")
    assert await rig.storage.delete_state(instance_id) is False
    await rig.tools.put(rig.storage.state_path(instance_id), b"memory")
    assert await rig.storage.delete_state(instance_id) is True
    assert await rig.storage.delete_state(instance_id) is False
    assert await rig.tools.read(disk) == "kept"


@CASES.case("carrier")
async def what_is_on_its_way_is_not_carried(rig: StorageRig) -> None:
    await rig.storage.prepare()
    try:
        carrier = rig.storage.carrier()
    except Unsupported as error:
        unsupported(str(error))
    instance_id = new_id()
    await rig.tools.put(f"{await rig.storage.ensure_scratch(instance_id)}/root.disk", b"backup")
    assert await carrier.parcels(instance_id) == []
    await rig.storage.ensure_volume(VolumeSpec(instance_id, "data1", 16))
    assert len(await carrier.parcels(instance_id)) == 1


@CASES.case("snapshot_volume", "revert_volume", "drop_volume_snapshot")
async def snapshots_of_a_disk(rig: StorageRig) -> None:
    store, spec = rig.storage, await staged(rig)
    disk, of = await store.ensure_volume(spec), (spec.instance_id, "root")
    for text in ("2", "1"):  # a name that could be taken for the other's number
        await rig.tools.write(disk, text)
        assert await store.snapshot_volume(*of, text) is True
        assert await store.snapshot_volume(*of, text) is False
    for text in ("1", "2", "1"):
        await rig.tools.write(disk, "spoilt")
        await store.revert_volume(*of, text)
        assert await rig.tools.read(disk) == text
    assert await store.drop_volume_snapshot(*of, "2") is True
    assert await store.drop_volume_snapshot(*of, "2") is False
    with raises(NotFound):
        await store.revert_volume(*of, "2")
    with raises(NotFound):
        await store.snapshot_volume(spec.instance_id, "data1", "s")
    assert await rig.tools.read(disk) == "1"


@CASES.case("ensure_scratch", "scratch_file", "read_scratch", "delete_scratch", "state_path")
async def files_on_their_way(rig: StorageRig) -> None:
    await rig.storage.prepare()
    instance_id, data = new_id(), b"backup" * 2**18
    folder = await rig.storage.ensure_scratch(instance_id)
    assert await rig.storage.ensure_scratch(instance_id) == folder
    await rig.tools.put(f"{folder}/root.disk", data)
    found = await rig.storage.scratch_file(f"{folder}/root.disk")
    assert (found.size_bytes, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert b"".join([chunk async for chunk in rig.storage.read_scratch(found.name)]) == data
    with raises(NotFound):
        await rig.storage.scratch_file(f"{folder}/none")
    assert await rig.storage.delete_scratch(instance_id) is True
    assert await rig.storage.delete_scratch(instance_id) is False
    with raises(NotFound):
        await rig.storage.scratch_file(found.name)
    assert instance_id in rig.storage.state_path(instance_id)
    assert await rig.storage.volumes() == []
