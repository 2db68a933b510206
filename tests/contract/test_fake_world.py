"""The simulated world: what a guest wrote survives what it has to survive, and harm is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.errors import Busy, Conflict, HostFault, RackflowError, Unreachable
from core.ids import mac_address, new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind, PowerState
from drivers.conformance.tools import cancelled_after
from drivers.fake_world import FakeHost, Phase, world
from drivers.hosts import Host, connect
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.hypervisor.powers import (
    Adopts,
    BacksUp,
    Carries,
    Executes,
    MigratesLive,
    Move,
    Reconfigures,
    SavesState,
    Snapshots,
)
from drivers.storage.base import ImageFile, SeedSpec, VolumeSpec
from drivers.storage.recognise import recognise
from drivers.transport.base import Endpoint

LOCAL, SHARED = "/local", "/shared"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    world.reset()
    world.shared.add(SHARED)
    yield
    world.reset()


async def host(name: str) -> Host:
    return await connect("fake", Endpoint(name, "192.0.2.1"), DriverSettings())


async def vm(at: Host, path: str = LOCAL, *, start: bool = True, like: InstanceSpec | None = None) -> InstanceSpec:
    """Make the disk and the seed of a VM (like: the same again), and define it unless it is like another."""
    instance_id = like.id if like else new_id()
    disk = await at.storage(path).ensure_volume(VolumeSpec(instance_id, "root", 16))
    seed = await at.storage(path).ensure_seed(SeedSpec(instance_id, "m", "u", "n"))
    nic = NicAttachment("eth0", mac_address(instance_id, 0), "br0")
    spec = InstanceSpec(instance_id, on_host(instance_id), "web", InstanceKind.VM, 1, 64, (disk, seed), (nic,))
    if like is None:
        await at.hypervisor.define(spec)
    if start and like is None:
        await at.hypervisor.start(spec.name)
        world.write(spec.name, "root", "precious")
        world.remember(spec.name, "thought")
    return spec


def runs_on(spec: InstanceSpec) -> list[str]:
    return [host.name for host, instance in world.places(spec.name) if instance.power is PowerState.RUNNING]


# Live migration


@dataclass
class Points:
    """Every point at which a verb can be disturbed; at number `at` it is, once."""

    disturb: Callable[[str], None]
    at: int = -1
    seen: list[tuple[str, str, Phase]] = field(default_factory=list)

    def __call__(self, name: str, verb: str, phase: Phase) -> None:
        self.seen.append((name, verb, phase))
        if len(self.seen) == self.at + 1:
            self.disturb(name)


def kill(_: str) -> None:
    raise asyncio.CancelledError


def lose_answer(name: str) -> None:
    raise Unreachable("lost", f"host/{name}")


async def migrate(path: str, disturb: Callable[[str], None], at: int = -1) -> tuple[InstanceSpec, Points]:
    """Move a VM from a to b, disturbed at one point."""
    world.reset()
    world.shared.add(SHARED)
    a, b = await host("a"), await host("b")
    spec = await vm(a, path)
    there = await vm(b, path, like=spec)
    move = Move(there, "192.0.2.2", () if path == SHARED else ("root",))
    points = Points(disturb, at)
    world.on_call = points
    assert isinstance(a.hypervisor, MigratesLive)
    try:
        await a.hypervisor.migrate(move, b.hypervisor, timeout_s=5)
    except (RackflowError, asyncio.CancelledError):
        assert at >= 0
    world.on_call = None
    return spec, points


async def migrate_again(spec: InstanceSpec, path: str) -> None:
    a, b = await host("a"), await host("b")
    move = Move(spec, "192.0.2.2", () if path == SHARED else ("root",))
    assert isinstance(a.hypervisor, MigratesLive)
    await a.hypervisor.migrate(move, b.hypervisor, timeout_s=5)
    assert await a.hypervisor.migrate(move, b.hypervisor, timeout_s=5) is False


@pytest.mark.parametrize("path", [LOCAL, SHARED])
@pytest.mark.parametrize("disturb", [kill, lose_answer])
async def test_a_disturbed_migration_leaves_one_running_and_can_be_repeated(
    path: str, disturb: Callable[[str], None]
) -> None:
    _, points = await migrate(path, disturb)
    assert len(points.seen) >= 14
    ended = set()
    for at in range(len(points.seen)):
        spec, _ = await migrate(path, disturb, at)
        where = f"{points.seen[at]}"
        assert len(runs_on(spec)) == 1, where
        assert (world.read_disk(spec.name, "root"), world.recall(spec.name)) == ("precious", "thought"), where
        ended.add(runs_on(spec)[0])
        await migrate_again(spec, path)
        assert [host.name for host, _ in world.places(spec.name)] == runs_on(spec) == ["b"], where
        assert (world.read_disk(spec.name, "root"), world.recall(spec.name)) == ("precious", "thought"), where
        assert world.harm == []
    assert ended == {"a", "b"}


@pytest.mark.parametrize("dies", ["a", "b"])
async def test_a_host_that_dies_during_a_migration_takes_no_disk_with_it(dies: str) -> None:
    _, points = await migrate(LOCAL, kill)
    for at in range(len(points.seen)):
        spec, _ = await migrate(LOCAL, lambda _: world.crash(dies), at)
        where = f"{dies} died at {points.seen[at]}"
        assert dies not in runs_on(spec), where
        assert len(runs_on(spec)) <= 1, where
        assert world.harm == [], where
        disks = [volume.content for h, i in world.places(spec.name) for volume in h.disks(i) if volume.name == "root"]
        assert "precious" in disks, where


async def test_a_migration_ends_with_its_deadline_and_runs_on() -> None:
    a, b = await host("a"), await host("b")
    spec = await vm(a, SHARED)
    world.hang("b", "migrate.switch")
    assert isinstance(a.hypervisor, MigratesLive)
    with pytest.raises(RackflowError):
        await a.hypervisor.migrate(Move(spec, ""), b.hypervisor, timeout_s=0.05)
    assert runs_on(spec) == ["a"]


async def test_a_migration_without_the_disk_on_the_target_changes_nothing() -> None:
    a, b = await host("a"), await host("b")
    spec = await vm(a, LOCAL)
    assert isinstance(a.hypervisor, MigratesLive)
    with pytest.raises(HostFault):
        await a.hypervisor.migrate(Move(spec, "", ("root",)), b.hypervisor, timeout_s=5)
    assert [host.name for host, _ in world.places(spec.name)] == runs_on(spec) == ["a"]


# Content


async def test_a_crash_loses_memory_and_no_disk() -> None:
    a = await host("a")
    spec = await vm(a)
    world.crash("a")
    assert runs_on(spec) == []
    assert world.read_disk(spec.name, "root") == "precious"
    with pytest.raises(LookupError):
        world.write(spec.name, "root", "x")
    world.revive("a")
    await (await host("a")).hypervisor.start(spec.name)
    assert (world.read_disk(spec.name, "root"), world.recall(spec.name)) == ("precious", "")


async def test_a_cut_leaves_it_running() -> None:
    spec = await vm(await host("a"))
    world.cut("a")
    assert runs_on(spec) == ["a"]
    assert world.recall(spec.name) == "thought"


async def test_memory_and_disks_are_carried_to_another_host() -> None:
    a, b = await host("a"), await host("b")
    spec = await vm(a)
    source, target = a.storage(LOCAL).carrier(), b.storage(LOCAL).carrier()
    assert isinstance(a.hypervisor, SavesState)
    assert isinstance(b.hypervisor, SavesState)
    with pytest.raises(Busy):
        await source.parcels(spec.id)
    await a.hypervisor.save(spec.name, a.storage(LOCAL).state_path(spec.id))
    parcels = await source.parcels(spec.id)
    assert [parcel.name for parcel in parcels] == ["memory.save", "root.qcow2", "seed.iso"]
    for parcel in parcels:
        assert await target.write(spec.id, parcel, source.read(spec.id, parcel)) is True
        assert await target.write(spec.id, parcel, source.read(spec.id, parcel)) is False
    assert await target.parcels(spec.id) == parcels
    await a.hypervisor.undefine(spec.name)
    assert [await source.drop(spec.id), await source.drop(spec.id)] == [True, False]
    await b.hypervisor.define(spec)
    await b.hypervisor.restore(spec.name, b.storage(LOCAL).state_path(spec.id))
    assert (world.read_disk(spec.name, "root"), world.recall(spec.name)) == ("precious", "thought")
    assert world.harm == []


async def test_a_parcel_cut_off_leaves_nothing() -> None:
    a, b = await host("a"), await host("b")
    spec = await vm(a, start=False)
    source, target = a.storage(LOCAL).carrier(), b.storage(LOCAL).carrier()
    parcel = (await source.parcels(spec.id))[0]
    content = source.read(spec.id, parcel)
    await anext(content)
    world.crash("a")

    with pytest.raises(Unreachable):
        await target.write(spec.id, parcel, content)
    assert await target.parcels(spec.id) == []


async def test_backups_bring_back_a_disk() -> None:
    a = await host("a")
    spec, storage = await vm(a), a.storage(LOCAL)
    assert isinstance(a.hypervisor, BacksUp)
    folder = await storage.ensure_scratch(spec.id)
    files = []
    for number, since in ((1, ""), (2, "c1")):
        world.write(spec.name, "root", f"state {number}")
        folder_of = f"{folder}/{number}"
        files += await a.hypervisor.backup(spec.name, folder_of, checkpoint=f"c{number}", since=since)
    assert [file.since for file in files] == ["", "c1"]
    chain = [await storage.scratch_file(file.path) for file in files]
    world.write(spec.name, "root", "ruined")
    await a.hypervisor.stop(spec.name, grace_s=0)

    async def restore() -> bool:
        return await storage.restore_volume(spec.id, "root", chain, lambda parcel: storage.read_scratch(parcel.name))

    assert [await restore(), await restore()] == [True, False]
    assert world.read_disk(spec.name, "root") == "state 2"
    assert [await storage.undo_restore(spec.id, "root") for _ in range(2)] == [True, False]
    assert world.read_disk(spec.name, "root") == "ruined"
    assert await restore() is True
    assert [await storage.drop_before(spec.id, "root") for _ in range(2)] == [True, False]
    assert world.read_disk(spec.name, "root") == "state 2"


async def test_a_saved_disk_is_an_image_with_that_content(tmp_path: Path) -> None:
    a = await host("a")
    spec, storage = await vm(a), a.storage(LOCAL)
    assert isinstance(a.hypervisor, BacksUp)
    (file,) = await a.hypervisor.backup(spec.name, await storage.ensure_scratch(spec.id), checkpoint="c1")
    path = tmp_path / "image"
    path.write_bytes(b"".join([part async for part in storage.read_scratch(file.path)]))
    assert (await recognise(path, fmt="auto", kind="vm", source="x")).format == "raw"
    parcel = await storage.scratch_file(file.path)
    await storage.ensure_image(ImageFile(parcel.sha256, "raw", parcel.size_bytes, path))
    new = VolumeSpec(new_id(), "root", 16, parcel.sha256, "raw")
    await storage.ensure_volume(new)
    assert world.host("a").stores[LOCAL].volumes[new.instance_id]["root"].content == "precious"


async def test_snapshots_move_along() -> None:
    a = await host("a")
    spec = await vm(a)
    assert isinstance(a.hypervisor, Snapshots)
    await a.hypervisor.snapshot(spec.name, "s1", memory=True)
    world.write(spec.name, "root", "ruined")
    b = await host("b")
    await vm(b, like=spec)
    await migrate_again(spec, LOCAL)
    assert isinstance(b.hypervisor, Snapshots)
    await b.hypervisor.revert(spec.name, "s1")
    assert (world.read_disk(spec.name, "root"), world.recall(spec.name)) == ("precious", "thought")


# Datastores


async def test_a_shared_datastore_is_one() -> None:
    a, b = await host("a"), await host("b")
    spec = await vm(a, SHARED, start=False)
    assert await b.storage(SHARED).volumes() == [spec.id]
    assert await b.storage(LOCAL).volumes() == []
    world.crash("a")
    await b.hypervisor.define(spec)
    assert await b.hypervisor.start(spec.name) is True
    assert world.harm == []


async def test_one_disk_opened_by_two_is_harm() -> None:
    a, b = await host("a"), await host("b")
    spec = await vm(a, SHARED)
    world.cut("a")
    await b.hypervisor.define(spec)
    await b.hypervisor.start(spec.name)
    assert len(world.harm) == 1
    assert "root" in world.harm[0]


async def test_a_disk_taken_from_what_runs_is_harm() -> None:
    a = await host("a")
    spec = await vm(a)
    await a.storage(LOCAL).delete_volumes(spec.id)
    assert len(world.harm) == 1


async def test_memory_on_other_disks_is_harm() -> None:
    a = await host("a")
    spec, path = await vm(a), f"{LOCAL}/x/memory.save"
    assert isinstance(a.hypervisor, SavesState)
    await a.hypervisor.save(spec.name, path)
    await a.hypervisor.start(spec.name)
    world.write(spec.name, "root", "later")
    await a.hypervisor.stop(spec.name, grace_s=0)
    await a.hypervisor.restore(spec.name, path)
    assert len(world.harm) == 1


async def test_a_containers_disk_keeps_its_content_until_it_is_deleted() -> None:
    world.host("a").powers |= {"carry"}
    a = await host("a")
    instance_id = new_id()
    root, data = (DiskAttachment(name, "pool", "default", size_mib=16) for name in ("root", "data1"))
    small = InstanceSpec(instance_id, on_host(instance_id), "box", InstanceKind.CONTAINER, 1, 64, (root,), ())
    large = replace(small, disks=(root, data))
    assert isinstance(a.hypervisor, Carries)
    await a.hypervisor.define(large)
    await a.hypervisor.start(large.name)
    world.write(large.name, "data1", "precious")
    await a.hypervisor.stop(large.name, grace_s=0)
    with pytest.raises(Conflict):
        await a.hypervisor.delete_disk(large.name, "data1")
    await a.hypervisor.define(small)
    await a.hypervisor.define(large)
    assert world.read_disk(large.name, "data1") == "precious"
    await a.hypervisor.define(small)
    assert [await a.hypervisor.delete_disk(large.name, "data1") for _ in range(2)] == [True, False]
    await a.hypervisor.define(large)
    assert world.read_disk(large.name, "data1") == ""


async def test_a_lost_disk_is_not_started_without() -> None:
    a = await host("a")
    spec = await vm(a, start=False)
    await a.storage(LOCAL).delete_volume(spec.id, "root")
    with pytest.raises(HostFault):
        await a.hypervisor.start(spec.name)


async def test_a_disk_in_use_is_grown_by_its_hypervisor() -> None:
    a = await host("a")
    spec, storage = await vm(a), a.storage(LOCAL)
    larger = VolumeSpec(spec.id, "root", 32)
    disk = await storage.ensure_volume(larger)
    volume = world.host("a").stores[LOCAL].volumes[spec.id]["root"]
    assert (disk.size_mib, volume.size_mib) == (32, 16)
    assert isinstance(a.hypervisor, Reconfigures)
    grown = replace(spec, disks=(disk, spec.disks[1]))
    assert await a.hypervisor.reconfigure(grown) is True
    assert (volume.size_mib, volume.content) == (32, "precious")
    await a.hypervisor.stop(spec.name, grace_s=0)
    assert (await storage.ensure_volume(VolumeSpec(spec.id, "root", 16))).size_mib == 32


# Calls


async def test_a_worker_killed_after_the_change_left_it_made() -> None:
    a = await host("a")
    spec = await vm(a, start=False)

    def killed(_: str, verb: str, phase: Phase) -> None:
        if (verb, phase) == ("hypervisor.start", "after"):
            raise asyncio.CancelledError

    world.on_call = killed
    with pytest.raises(asyncio.CancelledError):
        await a.hypervisor.start(spec.name)
    world.on_call = None
    assert runs_on(spec) == ["a"]


async def test_a_hook_that_waits_holds_the_call() -> None:
    a = await host("a")

    async def wait() -> None:
        await asyncio.sleep(30)

    def hook(_: str, verb: str, phase: Phase) -> Awaitable[None] | None:
        return wait() if phase == "before" else None

    world.on_call = hook
    assert await cancelled_after(a.hypervisor.instances(), 0.05) is True


async def test_an_answer_is_lost_with_its_host() -> None:
    a = await host("a")
    spec = await vm(a)
    world.host("a").instances[spec.name].stubborn = True
    stopping = asyncio.ensure_future(a.hypervisor.stop(spec.name, grace_s=0.1))
    await asyncio.sleep(0.05)
    world.cut("a")
    with pytest.raises(Unreachable):
        await stopping
    assert runs_on(spec) == ["a"]


async def test_an_adopted_one_keeps_its_name_and_can_be_changed() -> None:
    a = await host("a")
    world.host("a").add_foreign("legacy", InstanceKind.VM)
    instance_id = new_id()
    assert isinstance(a.hypervisor, Adopts)
    found = await a.hypervisor.describe("legacy")
    await a.hypervisor.adopt("legacy", instance_id)
    spec = InstanceSpec(instance_id, "legacy", "legacy", found.kind, 2, 128, found.disks, found.nics)
    assert await a.hypervisor.define(spec) is True
    await a.hypervisor.start("legacy")
    assert isinstance(a.hypervisor, Executes)
    assert (await a.hypervisor.exec("legacy", ["true"])).exit_code == 0
    assert [host.name for host, _ in world.places(instance_id)] == ["a"]


def test_hosts_are_cheap() -> None:
    for number in range(3000):
        world.add(FakeHost(f"h{number}"))
    assert len({host.number for host in world.hosts.values()}) == 3000
