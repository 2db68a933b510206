"""What a hypervisor must do that keeps, copies or carries disks: snapshots, backups, carriers, images."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from core.errors import Conflict, Invalid, NotFound, RackflowError, Unsupported
from core.ids import new_id, on_host
from core.states import PowerState
from drivers.carrier import Carrier, Parcel
from drivers.conformance.cases import not_reached, raises, unsupported
from drivers.conformance.hypervisor import POWERS
from drivers.conformance.hypervisor_inside import DISK, MEMORY, define, from_disk, on_disk, power, read, running, write
from drivers.conformance.rigs import HypervisorRig
from drivers.conformance.tools import cancelled_after, settle
from drivers.hypervisor.base import Hypervisor
from drivers.hypervisor.powers import BacksUp, BackupFile, Carries, SavesImages, Snapshots


async def file_bytes(rig: HypervisorRig, path: str) -> int:
    if rig.file_bytes is None:
        not_reached("the driver writes files, and nobody here can look at them")
    return await rig.file_bytes(path)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def carry(source: Carrier, target: Carrier, instance_id: str) -> list[bool]:
    """Carry all parcels, as tasks do."""
    return [
        await target.write(instance_id, parcel, source.read(instance_id, parcel))
        for parcel in await source.parcels(instance_id)
    ]


# Snapshots


@POWERS.case("snapshot")
async def a_snapshot_brings_back_what_was_on_the_disk(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Snapshots):
        unsupported("the driver has no Snapshots")
    if not rig.guests and rig.tools is not None and not rig.tools_see_snapshots:
        not_reached("what is on a disk with snapshots can be seen only by a guest: name an image that has an agent")
    spec = await define(rig)
    await on_disk(rig, spec, "one")
    assert [await driver.snapshot(spec.name, "s1"), await driver.snapshot(spec.name, "s1")] == [True, False]
    await on_disk(rig, spec, "two")
    assert await driver.snapshot(spec.name, "s2") is True
    assert [(one.name, one.memory) for one in await driver.snapshots(spec.name)] == [("s1", False), ("s2", False)]
    await on_disk(rig, spec, "three")
    for snapshot, content in (("s1", "one"), ("s2", "two")):
        await driver.revert(spec.name, snapshot)
        assert await power(rig, spec.name) is PowerState.STOPPED
        assert await from_disk(rig, spec) == content
        await driver.stop(spec.name, grace_s=0)
    with raises(NotFound):
        await driver.revert(spec.name, "none")
    assert [await driver.drop_snapshot(spec.name, "s1") for _ in range(2)] == [True, False]
    assert [one.name for one in await driver.snapshots(spec.name)] == ["s2"]
    await driver.revert(spec.name, "s2")
    assert await driver.undefine(spec.name) is True, "snapshots go with their instance"
    assert await power(rig, spec.name) is PowerState.ABSENT


@POWERS.case("snapshot", "snapshot_live")
async def a_snapshot_with_memory(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Snapshots):
        unsupported("the driver has no Snapshots")
    spec = await running(rig)
    if not (await driver.capabilities()).snapshot_live:
        with raises(Unsupported):
            await driver.snapshot(spec.name, "s1", memory=True)
        assert await driver.snapshots(spec.name) == []
        assert await power(rig, spec.name) is PowerState.RUNNING
        return
    await write(rig, spec, MEMORY, "kept")
    await write(rig, spec, DISK, "one")
    assert await driver.snapshot(spec.name, "s1", memory=True) is True
    assert await driver.snapshot(spec.name, "s1", memory=True) is False
    assert [(one.name, one.memory) for one in await driver.snapshots(spec.name)] == [("s1", True)]
    await write(rig, spec, MEMORY, "changed")
    await write(rig, spec, DISK, "two")
    for off in (False, True):
        if off:
            await driver.stop(spec.name, grace_s=0)
        await driver.revert(spec.name, "s1")
        assert await power(rig, spec.name) is PowerState.RUNNING
        assert (await read(rig, spec, MEMORY), await read(rig, spec, DISK)) == ("kept", "one")


@POWERS.case("snapshot")
async def snapshots_that_were_killed(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Snapshots):
        unsupported("the driver has no Snapshots")
    spec = await define(rig)
    await on_disk(rig, spec, "one")
    for delay_s in rig.delays_s:
        await cancelled_after(driver.snapshot(spec.name, "s1"), delay_s)
        await settle(lambda: driver.snapshot(spec.name, "s1"))
        assert [one.name for one in await driver.snapshots(spec.name)] == ["s1"], f"killed after {delay_s} s"
        await cancelled_after(driver.revert(spec.name, "s1"), delay_s)
        await settle(lambda: driver.revert(spec.name, "s1"))
        assert await power(rig, spec.name) is PowerState.STOPPED, f"killed after {delay_s} s"
        await cancelled_after(driver.drop_snapshot(spec.name, "s1"), delay_s)
        await settle(lambda: driver.drop_snapshot(spec.name, "s1"))
        assert await driver.snapshots(spec.name) == [], f"killed after {delay_s} s"
    assert await from_disk(rig, spec) == "one"


# BacksUp


@POWERS.case("backup", "backup_incremental")
async def backups(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, BacksUp):
        unsupported("the driver has no BacksUp")
    spec = await define(rig)
    await whole(rig, await driver.backup(spec.name, rig.folder, checkpoint="c0"))
    assert await power(rig, spec.name) is PowerState.STOPPED
    await from_disk(rig, spec)
    await whole(rig, await driver.backup(spec.name, rig.folder, checkpoint="c1"))
    await write(rig, spec, DISK, "more")
    later = await driver.backup(spec.name, rig.folder, checkpoint="c2", since="c1")
    if (await driver.capabilities()).backup_incremental:
        assert {one.since for one in later} == {"c1"}
        assert await driver.drop_checkpoint(spec.name, "c2") is True
    else:
        await whole(rig, later)
    assert await driver.drop_checkpoint(spec.name, "c2") is False
    await whole(rig, await driver.backup(spec.name, rig.folder, checkpoint="c3", since="none"))
    assert await power(rig, spec.name) is PowerState.RUNNING
    with raises(RackflowError):
        await driver.backup(on_host(new_id()), rig.folder, checkpoint="c1")


async def whole(rig: HypervisorRig, files: list[BackupFile]) -> None:
    assert files
    for file in files:
        assert file.path.startswith(f"{rig.folder}/")
        assert file.since == ""
        assert await file_bytes(rig, file.path) > 0


@POWERS.case("backup")
async def backups_that_were_killed(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, BacksUp):
        unsupported("the driver has no BacksUp")
    spec = await running(rig)
    for number, delay_s in enumerate(rig.delays_s):
        checkpoint = f"c{number}"
        await cancelled_after(driver.backup(spec.name, rig.folder, checkpoint=checkpoint), delay_s)
        await whole(
            rig,
            await settle(lambda c=checkpoint: driver.backup(spec.name, rig.folder, checkpoint=c)),  # type: ignore[misc]
        )
        assert await power(rig, spec.name) is PowerState.RUNNING, f"killed after {delay_s} s"
    await driver.stop(spec.name, grace_s=0)
    assert await driver.undefine(spec.name) is True, "checkpoints go with their instance"


# Carries


def carriers(rig: HypervisorRig) -> tuple[Carrier, Carrier, Hypervisor]:
    driver = rig.hypervisor
    if not isinstance(driver, Carries):
        unsupported("the driver has no Carries")
    if not isinstance(rig.other, Carries):
        not_reached("the driver can carry, and there is no other host here: name one with --other")
    return driver.carrier(), rig.other.carrier(), rig.other


@POWERS.case("carry")
async def an_instance_is_carried_to_another_host(rig: HypervisorRig) -> None:
    source, target, other = carriers(rig)
    spec = await define(rig)
    assert await source.parcels(new_id()) == []
    await on_disk(rig, spec, "one")
    await source.parcels(spec.id)
    await on_disk(rig, spec, "two")  # what was made ready before is stale now
    parcels = await source.parcels(spec.id)
    assert parcels
    assert await source.parcels(spec.id) == parcels
    assert await carry(source, target, spec.id) == [True] * len(parcels)
    assert await carry(source, target, spec.id) == [False] * len(parcels)
    await other.define(spec)
    assert await rig.hypervisor.undefine(spec.name) is True
    await source.drop(spec.id)
    assert await source.drop(spec.id) is False
    assert await source.parcels(spec.id) == []
    assert await from_disk(replace(rig, hypervisor=other), spec) == "two"
    await other.stop(spec.name, grace_s=0)
    assert await target.drop(spec.id) is True
    assert await target.drop(spec.id) is False
    assert (await other.observe(spec.name)).power is PowerState.ABSENT


@POWERS.case("carry")
async def a_parcel_that_is_damaged_or_cut_off_leaves_nothing(rig: HypervisorRig) -> None:
    source, target, other = carriers(rig)
    spec = await define(rig)
    parcel = (await source.parcels(spec.id))[-1]

    async def cut() -> AsyncIterator[bytes]:
        yield b"a part"
        raise RuntimeError("the source died")

    wrong = replace(parcel, sha256="0" * 64)
    for sent, content, error in (
        (parcel, chunks(b"something else"), Invalid),
        (wrong, source.read(spec.id, parcel), Invalid),
        (parcel, cut(), RuntimeError),
    ):
        with raises(error):
            await target.write(spec.id, sent, content)
        assert (await other.observe(spec.name)).power is PowerState.ABSENT
        assert await target.parcels(spec.id) == []


@POWERS.case("carry")
async def a_carrier_that_was_killed(rig: HypervisorRig) -> None:
    source, target, other = carriers(rig)
    spec = await define(rig)
    await on_disk(rig, spec, "one")

    async def write_all(parcels: list[Parcel]) -> list[bool]:
        return [await target.write(spec.id, one, source.read(spec.id, one)) for one in parcels]

    for delay_s in rig.delays_s:
        await cancelled_after(source.parcels(spec.id), delay_s)
        parcels = await settle(lambda: source.parcels(spec.id))
        await cancelled_after(write_all(parcels), delay_s)
        await settle(lambda p=parcels: write_all(p))  # type: ignore[misc]
        assert await write_all(parcels) == [False] * len(parcels), f"killed after {delay_s} s"
        if delay_s != rig.delays_s[-1]:
            await cancelled_after(target.drop(spec.id), delay_s)
            await settle(lambda: target.drop(spec.id))
            assert await target.parcels(spec.id) == [], f"killed after {delay_s} s"
    await other.define(spec)
    assert await from_disk(replace(rig, hypervisor=other), spec) == "one"
    with raises(Conflict):  # it is not off
        await target.drop(spec.id)
    await other.stop(spec.name, grace_s=0)
    await target.drop(spec.id)


# SavesImages


@POWERS.case("save_image")
async def images_of_instances(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, SavesImages):
        unsupported("the driver has no SavesImages")
    spec = await define(rig)
    assert [await driver.save_image(spec.name, f"{rig.folder}/off.tar.gz") for _ in range(2)] == [True, False]
    await from_disk(rig, spec)
    for number, delay_s in enumerate(rig.delays_s):
        path = f"{rig.folder}/{number}.tar.gz"
        await cancelled_after(driver.save_image(spec.name, path), delay_s)
        await settle(lambda path=path: driver.save_image(spec.name, path))  # type: ignore[misc]
        assert await file_bytes(rig, path) > 0, f"killed after {delay_s} s"
        assert await power(rig, spec.name) is PowerState.RUNNING
    with raises(NotFound):
        await driver.save_image(on_host(new_id()), f"{rig.folder}/none.tar.gz")
