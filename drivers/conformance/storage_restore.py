"""What a storage driver must do with copies of disks; part of the suite of storage."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

from core.errors import Invalid, Unsupported
from core.ids import new_id
from drivers.carrier import Parcel
from drivers.conformance.cases import raises, unsupported
from drivers.conformance.rigs import StorageRig
from drivers.conformance.storage import CASES, staged
from drivers.conformance.tools import cancelled_after, settle
from drivers.storage.base import VolumeSpec


def parcels_of(copies: list[bytes]) -> list[Parcel]:
    return [Parcel(f"{n}.qcow2", len(data), hashlib.sha256(data).hexdigest()) for n, data in enumerate(copies)]


class Copies:
    """Gives the content of copies, by their numbers."""

    def __init__(self, copies: list[bytes]) -> None:
        self._copies = copies

    async def __call__(self, parcel: Parcel) -> AsyncIterator[bytes]:
        data = self._copies[int(parcel.name.partition(".")[0])]
        for start in range(0, len(data), 2**16):
            yield data[start : start + 2**16]


async def able(rig: StorageRig) -> None:
    """End the case where copies cannot be restored; a refusal changes nothing."""
    await rig.storage.prepare()
    disk = await rig.storage.ensure_volume(VolumeSpec(new_id(), "data1", 16))
    instance_id = (await rig.storage.volumes())[0]
    await rig.tools.write(disk, "kept")
    try:
        await rig.storage.restore_volume(instance_id, "data1", [], Copies([]))
    except Unsupported as error:
        assert await rig.storage.undo_restore(instance_id, "data1") is False
        assert await rig.storage.drop_before(instance_id, "data1") is False
        assert await rig.tools.read(disk) == "kept"
        unsupported(str(error))
    except Invalid:
        await rig.storage.delete_volumes(instance_id)


@CASES.case("restore_volume", "undo_restore", "drop_before")
async def a_disk_is_restored(rig: StorageRig) -> None:
    await able(rig)
    store, spec = rig.storage, await staged(rig)
    disk, of = await store.ensure_volume(spec), (spec.instance_id, "root")
    await rig.tools.write(disk, "before")
    copies = await rig.tools.copies("one", "two", "three")
    parcels = parcels_of(copies)
    for n, text in ((1, "one"), (3, "three"), (2, "two")):
        assert await store.restore_volume(*of, parcels[:n], Copies(copies)) is True
        assert await store.restore_volume(*of, parcels[:n], Copies([])) is False
        assert await rig.tools.read(disk) == text
        assert await store.undo_restore(*of) is True
        assert await store.undo_restore(*of) is False
        assert await rig.tools.read(disk) == "before"
    await store.restore_volume(*of, parcels, Copies(copies))
    assert await store.drop_before(*of) is True
    assert await store.drop_before(*of) is False
    assert await store.undo_restore(*of) is False
    assert await rig.tools.read(disk) == "three"
    assert await store.ensure_volume(spec) is not None
    assert await store.delete_volumes(spec.instance_id) is True


@CASES.case("restore_volume")
async def a_disk_that_was_lost_is_restored(rig: StorageRig) -> None:
    await able(rig)
    copies, of = await rig.tools.copies("one", "two"), (new_id(), "root")
    assert await rig.storage.restore_volume(*of, parcels_of(copies), Copies(copies)) is True
    assert await rig.storage.drop_before(*of) is False
    assert await rig.storage.volumes() == [of[0]]


@CASES.case("restore_volume")
async def copies_that_are_not_right_change_nothing(rig: StorageRig) -> None:
    await able(rig)
    store, spec = rig.storage, await staged(rig)
    disk, of = await store.ensure_volume(spec), (spec.instance_id, "root")
    await rig.tools.write(disk, "before")
    copies = await rig.tools.copies("one", "two")
    parcels = parcels_of(copies)
    with raises(Invalid):
        await store.restore_volume(*of, [parcels[0], replace(parcels[1], sha256="0" * 64)], Copies(copies))
    with raises(Invalid):
        await store.restore_volume(*of, [], Copies(copies))
    assert await store.undo_restore(*of) is False
    assert await rig.tools.read(disk) == "before"


@CASES.case("restore_volume", "undo_restore")
async def a_killed_restore_is_finished_by_the_next(rig: StorageRig) -> None:
    await able(rig)
    store, spec = rig.storage, await staged(rig)
    disk, of = await store.ensure_volume(spec), (spec.instance_id, "root")
    await rig.tools.write(disk, "before")
    copies = await rig.tools.copies("one", "two")
    parcels = parcels_of(copies)
    for delay_s in (0.0, 0.05, 0.1, 0.2, 0.3):
        await cancelled_after(store.restore_volume(*of, parcels, Copies(copies)), delay_s)
        assert await rig.tools.read(disk) in ("before", "two")
        await settle(lambda: store.restore_volume(*of, parcels, Copies(copies)))
        assert await rig.tools.read(disk) == "two"
        assert await settle(lambda: store.undo_restore(*of)) is True
        assert await rig.tools.read(disk) == "before"
