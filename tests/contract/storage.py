"""What every storage driver must do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from core.errors import Conflict, Invalid, NotFound
from core.ids import new_id
from drivers.hypervisor.base import DiskAttachment
from drivers.storage.base import ImageFile, SeedSpec, Storage, VolumeSpec
from tests.contract.tools import cancelled_after, settle


@dataclass
class StorageRig:
    """storage: an empty datastore for this test alone, not yet prepared; image: a small, real qcow2 image."""

    storage: Storage
    image: ImageFile


class StorageContract:
    """Subclass it and give the fixture `rig`."""

    @pytest.fixture
    def rig(self) -> StorageRig:
        pytest.fail("a driver that joins this suite gives its own rig")

    async def staged(self, rig: StorageRig) -> VolumeSpec:
        await rig.storage.prepare()
        await rig.storage.ensure_image(rig.image)
        return VolumeSpec(new_id(), "root", 0, rig.image.sha256, rig.image.format)

    async def test_prepare_changes_nothing_the_second_time(self, rig: StorageRig) -> None:
        assert await rig.storage.prepare() is True
        assert await rig.storage.prepare() is False
        assert await rig.storage.images() == []
        assert await rig.storage.volumes() == []

    async def test_capacity(self, rig: StorageRig) -> None:
        await rig.storage.prepare()
        found = await rig.storage.capacity()
        assert found.total_mib >= found.free_mib > 0

    async def test_an_image_is_copied_once(self, rig: StorageRig) -> None:
        await rig.storage.prepare()
        done: list[tuple[int, int]] = []
        assert await rig.storage.ensure_image(rig.image, progress=lambda now, all_: done.append((now, all_))) is True
        assert await rig.storage.ensure_image(rig.image) is False
        assert await rig.storage.images() == [rig.image.sha256]
        assert done == sorted(done)
        assert done[-1] == (rig.image.size_bytes, rig.image.size_bytes)
        assert rig.image.sha256 in rig.storage.image_path(rig.image.sha256, rig.image.format)

    async def test_wrong_content_is_refused(self, rig: StorageRig) -> None:
        await rig.storage.prepare()
        with pytest.raises(Invalid):
            await rig.storage.ensure_image(replace(rig.image, sha256="0" * 64))
        assert await rig.storage.images() == []

    async def test_the_same_image_by_several_at_once(self, rig: StorageRig) -> None:
        await rig.storage.prepare()
        changed = await asyncio.gather(*(settle(lambda: rig.storage.ensure_image(rig.image)) for _ in range(4)))
        assert any(changed)
        assert await rig.storage.images() == [rig.image.sha256]

    async def test_a_killed_copy_is_finished_by_the_next(self, rig: StorageRig) -> None:
        await rig.storage.prepare()
        for delay_s in (0.0, 0.005, 0.02, 0.1):
            await cancelled_after(rig.storage.ensure_image(rig.image), delay_s)
            await settle(lambda: rig.storage.ensure_image(rig.image))
            assert await rig.storage.images() == [rig.image.sha256]
            assert await rig.storage.delete_image(rig.image.sha256) is True
            assert await rig.storage.delete_image(rig.image.sha256) is False
            assert await rig.storage.images() == []

    async def test_a_volume_backed_by_an_image(self, rig: StorageRig) -> None:
        spec = await self.staged(rig)
        found = await rig.storage.ensure_volume(spec)
        assert isinstance(found, DiskAttachment)
        assert (found.name, found.kind, found.format) == ("root", "file", "qcow2")
        assert spec.instance_id in found.source
        assert await rig.storage.ensure_volume(spec) == found
        assert await rig.storage.volumes() == [spec.instance_id]
        with pytest.raises(Conflict):
            await rig.storage.delete_image(rig.image.sha256)
        assert await rig.storage.delete_volumes(spec.instance_id) is True
        assert await rig.storage.delete_volumes(spec.instance_id) is False
        assert await rig.storage.volumes() == []
        assert await rig.storage.delete_image(rig.image.sha256) is True

    async def test_a_blank_volume_and_a_seed(self, rig: StorageRig) -> None:
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

    async def test_a_volume_of_an_image_that_is_not_there(self, rig: StorageRig) -> None:
        await rig.storage.prepare()
        with pytest.raises(NotFound):
            await rig.storage.ensure_volume(VolumeSpec(new_id(), "root", 0, "0" * 64))
        assert await rig.storage.volumes() == []

    async def test_many_volumes_at_once(self, rig: StorageRig) -> None:
        spec = await self.staged(rig)
        specs = [replace(spec, instance_id=new_id()) for _ in range(10)]
        found = await asyncio.gather(*map(rig.storage.ensure_volume, specs))
        assert len({disk.source for disk in found}) == 10
        assert sorted(await rig.storage.volumes()) == sorted(one.instance_id for one in specs)
        assert await asyncio.gather(*(rig.storage.delete_volumes(one.instance_id) for one in specs)) == [True] * 10

    async def test_a_killed_volume_is_finished_by_the_next(self, rig: StorageRig) -> None:
        spec = await self.staged(rig)
        for delay_s in (0.0, 0.005, 0.02, 0.1):
            await cancelled_after(rig.storage.ensure_volume(spec), delay_s)
            found = await settle(lambda: rig.storage.ensure_volume(spec))
            assert spec.instance_id in found.source
            await cancelled_after(rig.storage.delete_volumes(spec.instance_id), delay_s)
            await settle(lambda: rig.storage.delete_volumes(spec.instance_id))
            assert await rig.storage.volumes() == []
