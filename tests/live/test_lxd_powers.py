"""The optional powers of LXD on two hosts of the lab: the contract suite, and what LXD alone can do or suffer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from core.errors import Busy, Conflict, Invalid, RackflowError, Unreachable, Unsupported
from core.ids import mac_address, new_id
from core.states import InstanceKind, PowerState
from drivers.carrier import Parcel, carry
from drivers.conformance.rigs import HypervisorRig
from drivers.conformance.tools import settle
from drivers.hypervisor import lxd_client
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from tests.contract.suites import PowersContract
from tests.labs import Lab
from tests.live.lxd import LxdRig, all_made, lxd_rig, until

MAC = "52:54:00:aa:bb:cc"
SHELL_ON_CONSOLE = "setsid sh -i </dev/console >/dev/console 2>&1 &"


@pytest.fixture
async def rig(lab: Lab) -> AsyncIterator[LxdRig]:
    async with lxd_rig(lab, lab.hosts("lxd")[0]) as found:
        yield found


@pytest.fixture
async def other(lab: Lab, rig: LxdRig) -> AsyncIterator[LxdRig]:
    async with lxd_rig(lab, lab.hosts("lxd")[1]) as found:
        found.made = rig.made
        yield found


@pytest.fixture
async def folder(rig: LxdRig) -> AsyncIterator[str]:
    path = f"/var/lib/rackflow/lxd-tests/{new_id()}"
    await rig.host.transport.run(["mkdir", "-p", path])
    yield path
    await rig.host.transport.run(["rm", "-r", path])


def portable(rig: LxdRig) -> InstanceSpec:
    """Return a spec that holds on any host: its NIC is on the bridge that all have, without an address."""
    spec = rig.spec()
    return replace(spec, nics=(NicAttachment("eth0", spec.nics[0].mac, "br0"),))


class TestLxdPowers(PowersContract):
    @pytest.fixture
    async def rig(self, rig: LxdRig, other: LxdRig, folder: str) -> HypervisorRig:
        async def new() -> InstanceSpec:
            return portable(rig)

        async def take_name(name: str) -> None:
            rig.made.append(name)
            await rig.lxc("init", rig.image.sha256, name, "--storage", "default")

        async def ready(name: str) -> None:
            runs_here = (await rig.lxd.observe(name)).power is PowerState.RUNNING
            await (rig if runs_here else other).lxd.exec(name, ["sh", "-c", SHELL_ON_CONSOLE])

        async def file_bytes(path: str) -> int:
            found = await rig.host.transport.run(["stat", "-c", "%s", path], check=False)
            return int(found.stdout or 0)

        async def with_disk(spec: InstanceSpec) -> InstanceSpec:
            return replace(spec, disks=(*spec.disks, DiskAttachment("data1", "pool", "default", "raw", 16)))

        async def with_nic(spec: InstanceSpec) -> InstanceSpec:
            return replace(spec, nics=(*spec.nics, NicAttachment("eth1", mac_address(spec.id, 1), "br0")))

        async def left_of(spec: InstanceSpec) -> list[str]:
            return await rig.host.network.interfaces_of([nic.mac for nic in spec.nics])

        return HypervisorRig(
            rig.lxd, new, lambda spec: spec, take_name, left_of=left_of, folder=folder, file_bytes=file_bytes,
            with_disk=with_disk, with_nic=with_nic, other=other.lxd, ready=ready, delays_s=(0.05, 0.3),
        )  # fmt: skip


async def content_of(rig: LxdRig, name: str, path: str = "/kept") -> str:
    return (await rig.lxd.exec(name, ["cat", path])).stdout


async def sealed(rig: LxdRig, name: str) -> str:
    """Write a file of some MiB inside, and return its checksum as seen there."""
    await rig.lxd.exec(name, ["sh", "-c", "head -c 8000000 /dev/urandom > /kept; sync"])
    return (await rig.lxd.exec(name, ["sha256sum", "/kept"])).stdout


async def moved(rig: LxdRig, other: LxdRig, spec: InstanceSpec) -> None:
    """Move a container that is off, as the tasks do."""
    await carry(rig.lxd.carrier(), other.lxd.carrier(), spec.id)
    await other.lxd.define(spec)
    await rig.lxd.undefine(spec.name)
    await rig.lxd.carrier().drop(spec.id)


async def spool_of(rig: LxdRig, instance_id: str) -> str:
    found = await rig.host.transport.run(["ls", "-A", f"/var/lib/rackflow/lxd/{instance_id}"], check=False)
    return found.stdout


async def test_a_container_moves_to_a_host_with_another_subnet(rig: LxdRig, other: LxdRig) -> None:
    spec, there = rig.spec(), other.spec()
    await rig.lxd.define(spec)
    await rig.lxd.start(spec.name)
    seal = await sealed(rig, spec.name)
    await rig.lxd.stop(spec.name, grace_s=0)
    addressed = replace(spec, nics=(replace(spec.nics[0], address=there.nics[0].address),))
    await moved(rig, other, addressed)
    await other.lxd.start(spec.name)
    assert (await other.lxd.exec(spec.name, ["sha256sum", "/kept"])).stdout == seal
    assert await other.addresses(spec.name) == (there.nics[0].address.split("/")[0],)
    assert (await rig.lxd.observe(spec.name)).power is PowerState.ABSENT
    assert (await spool_of(rig, spec.id), await spool_of(other, spec.id)) == ("", "")


@pytest.mark.slow
async def test_snapshots_move_unless_they_hold_a_fixed_address(rig: LxdRig, other: LxdRig) -> None:
    spec = portable(rig)
    await rig.lxd.define(spec)
    await rig.lxd.snapshot(spec.name, "s1")
    await moved(rig, other, spec)
    assert [one.name for one in await other.lxd.snapshots(spec.name)] == ["s1"]
    assert await other.lxd.revert(spec.name, "s1") is True
    assert await other.lxd.define(spec) is False
    bound = rig.spec()
    await rig.lxd.define(bound)
    await rig.lxd.snapshot(bound.name, "s1")
    with pytest.raises(Unsupported, match="s1"):
        await rig.lxd.carrier().parcels(bound.id)


@pytest.mark.slow
async def test_a_name_that_is_taken_on_the_target(rig: LxdRig, other: LxdRig) -> None:
    spec = portable(rig)
    await rig.lxd.define(spec)
    await other.lxc("init", other.image.sha256, spec.name, "--storage", "default")
    with pytest.raises(Conflict):
        await carry(rig.lxd.carrier(), other.lxd.carrier(), spec.id)
    assert (await other.lxd.observe(spec.name)).instance_id is None
    await other.lxd.carrier().drop(spec.id)
    assert (await other.lxd.observe(spec.name)).power is PowerState.STOPPED, "a foreign one was deleted"
    await other.lxc("delete", spec.name)
    assert await carry(rig.lxd.carrier(), other.lxd.carrier(), spec.id) > 0
    with pytest.raises(Invalid):
        await other.lxd.carrier().write(spec.id, Parcel("../x", 1, "0" * 64), no_content())


async def no_content() -> AsyncIterator[bytes]:
    pytest.fail("it was read")
    yield b""


@pytest.mark.slow
async def test_a_moved_container_is_not_packed_again_before_it_changes(rig: LxdRig) -> None:
    spec, carrier = portable(rig), rig.lxd.carrier()
    await rig.lxd.define(spec)
    first = await carrier.parcels(spec.id)
    assert [one.name for one in await rig.lxd.instances() if one.name.startswith(spec.name)] == [spec.name]
    names = (await rig.lxc("list", "--format", "csv", "--columns", "n")).split()
    assert [name for name in names if name.startswith(spec.name)] == [spec.name], "a copy was left"
    assert await carrier.parcels(spec.id) == first
    await rig.lxd.define(replace(spec, memory_mib=spec.memory_mib + 16))
    assert await carrier.parcels(spec.id) != first
    await rig.lxd.start(spec.name)
    with pytest.raises(Conflict):
        await carrier.parcels(spec.id)


async def test_a_restored_backup(rig: LxdRig, folder: str) -> None:
    spec, carrier = portable(rig), rig.lxd.carrier()
    await rig.lxd.define(spec)
    await rig.lxd.start(spec.name)
    await rig.lxd.exec(spec.name, ["tee", "/kept"], stdin=b"one")
    (file,) = await rig.lxd.backup(spec.name, folder, checkpoint="c1")
    await rig.lxd.exec(spec.name, ["tee", "/kept"], stdin=b"two")
    await rig.lxd.stop(spec.name, grace_s=0)
    sha256 = (await rig.host.transport.run(["sha256sum", file.path])).stdout.split()[0]
    parcel = Parcel("instance.tar", 0, sha256)
    with pytest.raises(Conflict):  # it would be lost
        await carrier.write(spec.id, parcel, no_content())
    await carrier.drop(spec.id)
    assert await carrier.write(spec.id, parcel, rig.host.transport.read(["cat", file.path])) is True
    assert await rig.lxd.define(spec) is True, "NICs are not in a backup"
    await rig.lxd.start(spec.name)
    assert await content_of(rig, spec.name) == "one"


async def test_an_adopted_container_lives_moves_and_goes_by_its_own_name(rig: LxdRig, other: LxdRig) -> None:
    name, instance_id, neighbour = f"foreign-{new_id()[-6:]}", new_id(), f"foreign-{new_id()[-6:]}-b"
    rig.made += [name, neighbour]
    options = ("--config", "limits.cpu=1", "--config", "limits.memory=64MiB", "--storage", "default")
    await rig.lxc("init", rig.image.sha256, name, *options, "--network", "lxcbr0")
    found = await rig.lxd.describe(name)
    assert (found.problems, found.cpu, found.memory_mib) == ((), 1, 64)
    assert [(disk.name, disk.source) for disk in found.disks] == [("root", "default")]
    assert [(nic.name, nic.bridge) for nic in found.nics] == [("eth0", "lxcbr0")]
    await rig.lxd.start(name)
    assert await rig.lxd.adopt(name, instance_id) is True
    await rig.lxc("copy", name, neighbour, "--instance-only")  # bears our id, and is not ours
    root = replace(found.disks[0], image_fingerprint=rig.image.sha256)
    spec = InstanceSpec(
        instance_id, name, "web", InstanceKind.CONTAINER, 1, 64, (root,), (NicAttachment("eth0", MAC, "br0"),)
    )
    await rig.lxd.define(spec)
    assert await rig.lxd.define(spec) is False
    seal = await sealed(rig, name)
    await rig.lxd.stop(name, grace_s=0)
    with pytest.raises(Conflict):
        await rig.lxd.undefine(neighbour)
    await moved(rig, other, spec)
    assert (await other.lxd.observe(name)).instance_id == instance_id
    await other.lxd.start(name)
    assert (await other.lxd.exec(name, ["sha256sum", "/kept"])).stdout == seal
    await other.lxd.stop(name, grace_s=0)
    assert await other.lxd.undefine(name) is True
    assert (await rig.lxd.observe(neighbour)).power is PowerState.STOPPED


async def test_a_saved_image_makes_the_same_container_elsewhere(rig: LxdRig, other: LxdRig, folder: str) -> None:
    spec, path = portable(rig), f"{folder}/image.tar"
    await rig.lxd.define(spec)
    await rig.lxd.start(spec.name)
    seal = await sealed(rig, spec.name)
    images = await rig.lxd.images()
    assert await rig.lxd.save_image(spec.name, path) is True
    assert await rig.lxd.images() == images, "the image stays on the host only as a file"
    fingerprint = (await rig.host.transport.run(["sha256sum", path])).stdout.split()[0]
    await other.host.transport.put(await rig.host.transport.get(path), "/tmp/saved.tar")
    await other.lxd.import_image("/tmp/saved.tar", fingerprint, name="saved")
    again = portable(other)
    again = replace(again, disks=(replace(again.disks[0], image_fingerprint=fingerprint),))
    await other.lxd.define(again)
    await other.lxd.start(again.name)
    assert (await other.lxd.exec(again.name, ["sha256sum", "/kept"])).stdout == seal
    await other.lxc("delete", "--force", again.name)
    await other.lxd.delete_image(fingerprint)


async def test_further_disks(rig: LxdRig) -> None:
    plain = portable(rig)
    await rig.lxd.define(plain)
    await rig.lxd.start(plain.name)
    spec = replace(plain, disks=(*plain.disks, DiskAttachment("data1", "pool", "default", "raw", 16)))
    assert await rig.lxd.reconfigure(spec) is True
    await rig.lxd.exec(spec.name, ["tee", "/mnt/data1/kept"], stdin=b"one")
    with pytest.raises(Conflict):
        await rig.lxd.delete_disk(spec.name, "data1")
    with pytest.raises(Unsupported, match="data1"):
        await rig.lxd.snapshot(spec.name, "s1")
    with pytest.raises(Unsupported, match="data1"):
        await rig.lxd.backup(spec.name, "/tmp", checkpoint="c1")
    await rig.lxd.reconfigure(plain)
    assert (await rig.lxd.exec(spec.name, ["cat", "/mnt/data1/kept"])).exit_code == 1
    await rig.lxd.reconfigure(spec)
    assert await content_of(rig, spec.name, "/mnt/data1/kept") == "one", "it was only taken away"
    await rig.lxd.reconfigure(plain)
    assert [await rig.lxd.delete_disk(spec.name, "data1") for _ in range(2)] == [True, False]
    assert [volume for volume in await rig.volumes() if volume.startswith(spec.name)] == []


async def test_limits_hold_at_once(rig: LxdRig) -> None:
    spec = rig.spec(memory_mib=256)
    await rig.lxd.define(spec)
    await rig.lxd.start(spec.name)
    hog = ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1"]
    assert (await rig.lxd.exec(spec.name, hog)).exit_code == 0
    assert await rig.lxd.reconfigure(replace(spec, memory_mib=48)) is True
    assert (await rig.lxd.exec(spec.name, hog)).exit_code != 0


async def test_a_snapshot_of_what_runs_brings_back_the_disk_and_keeps_the_size(rig: LxdRig) -> None:
    spec = rig.spec()
    await rig.lxd.define(spec)
    await rig.lxd.start(spec.name)
    await rig.lxd.exec(spec.name, ["tee", "/kept"], stdin=b"one")
    assert await rig.lxd.snapshot(spec.name, "s1") is True
    await rig.lxd.exec(spec.name, ["tee", "/kept"], stdin=b"two")
    larger = replace(spec, memory_mib=128)
    await rig.lxd.reconfigure(larger)
    assert await rig.lxd.revert(spec.name, "s1") is True
    seen = await rig.lxd.observe(spec.name)
    assert (seen.power, seen.memory_mib) == (PowerState.RUNNING, 128)
    assert await content_of(rig, spec.name) == "one"
    assert await rig.lxd.define(larger) is False


async def test_a_console_is_for_one(rig: LxdRig) -> None:
    spec = rig.spec()
    await rig.lxd.define(spec)
    await rig.lxd.start(spec.name)
    async with rig.lxd.console(spec.name) as stream:
        with pytest.raises(Busy):
            async with rig.lxd.console(spec.name):
                pytest.fail("it was opened twice")
        assert await rig.lxd.define(spec) is False, "an open console holds changes up"
        await rig.lxd.stop(spec.name, grace_s=0)
        async with asyncio.timeout(10):
            while await stream.read():
                pass


async def large(rig: LxdRig) -> InstanceSpec:
    """Make a container that takes its time: off, with 300 MB."""
    spec = portable(rig)
    await rig.lxd.define(spec)
    await rig.lxd.start(spec.name)
    await rig.lxd.exec(spec.name, ["sh", "-c", "head -c 300000000 /dev/zero > /large; sync"])
    await rig.lxd.stop(spec.name, grace_s=0)
    return spec


async def unpacking(other: LxdRig, spec: InstanceSpec) -> str:
    """Wait until LXD unpacks it; return the folder."""
    part = f"/var/lib/lxd/storage-pools/default/containers/{spec.name}-import"

    async def begun() -> bool:
        return (await other.host.transport.run(["test", "-e", part], check=False)).exit_code == 0

    await until(begun)
    return part


@pytest.mark.slow
async def test_lxd_killed_while_it_imports(rig: LxdRig, other: LxdRig) -> None:
    spec = await large(rig)
    (parcel,) = await rig.lxd.carrier().parcels(spec.id)
    writing = asyncio.ensure_future(carry(rig.lxd.carrier(), other.lxd.carrier(), spec.id))
    part = await unpacking(other, spec)
    await other.host.transport.run(["pkill", "-KILL", "-x", "lxd"])
    with pytest.raises(RackflowError):
        await writing
    try:
        await settle(lambda: carry(rig.lxd.carrier(), other.lxd.carrier(), spec.id))
    finally:
        await other.host.transport.run(["rm", "-rf", part])  # LXD does not know of it any more
    assert await other.lxd.carrier().write(spec.id, parcel, no_content()) is False
    await other.lxd.define(spec)
    await other.lxd.start(spec.name)
    assert (await other.lxd.exec(spec.name, ["stat", "-c", "%s", "/large"])).stdout == "300000000\n"


@pytest.mark.slow
async def test_lxds_client_waits_for_what_has_ended(
    rig: LxdRig, other: LxdRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LXD imports to the end; its client, which is stopped, never hears of it."""
    monkeypatch.setattr(lxd_client, "_LOOK_S", 0.5)
    spec = await large(rig)
    writing = asyncio.ensure_future(carry(rig.lxd.carrier(), other.lxd.carrier(), spec.id))
    await unpacking(other, spec)
    await other.host.transport.run(["pkill", "-STOP", "-x", "lxc"])
    try:
        async with asyncio.timeout(120):
            with pytest.raises(Unreachable, match="does nothing for its client"):
                await writing
    finally:
        await other.host.transport.run(["pkill", "-KILL", "-x", "lxc"], check=False)
    await settle(lambda: carry(rig.lxd.carrier(), other.lxd.carrier(), spec.id))
    await other.lxd.define(spec)
    await other.lxd.start(spec.name)
    assert (await other.lxd.exec(spec.name, ["stat", "-c", "%s", "/large"])).stdout == "300000000\n"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["snapshot", "backup", "save_image", "parcels"])
async def test_lxd_killed_in_the_middle(rig: LxdRig, folder: str, verb: str) -> None:
    spec = await large(rig)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "snapshot": lambda: rig.lxd.snapshot(spec.name, "s1"),
        "backup": lambda: rig.lxd.backup(spec.name, folder, checkpoint="c1"),
        "save_image": lambda: rig.lxd.save_image(spec.name, f"{folder}/image.tar"),
        "parcels": lambda: rig.lxd.carrier().parcels(spec.id),
    }
    for delay_s in (0.1, 0.25):
        doing = asyncio.ensure_future(calls[verb]())
        await asyncio.sleep(delay_s)
        assert not doing.done()
        await rig.host.transport.run(["pkill", "-KILL", "-x", "lxd"])
        with pytest.raises(RackflowError):
            await doing
        await until(lambda: answers(rig))
    assert await settle(calls[verb])
    if verb == "snapshot":
        assert await rig.lxd.revert(spec.name, "s1") is True
    await rig.lxd.start(spec.name)
    assert (await rig.lxd.exec(spec.name, ["stat", "-c", "%s", "/large"])).stdout == "300000000\n"
    await rig.lxd.stop(spec.name, grace_s=0)
    assert await rig.lxd.undefine(spec.name) is True


async def answers(rig: LxdRig) -> bool:
    try:
        return await rig.lxd.instances() is not None
    except RackflowError:
        return False


async def test_nothing_is_left(rig: LxdRig, other: LxdRig) -> None:
    for host in (rig, other):
        assert sorted({one.name for one in await host.lxd.instances()} & set(all_made)) == []
        names = (await host.lxc("list", "--format", "csv", "--columns", "n")).split()
        assert [name for name in names if name.endswith(("-copy", "-import"))] == []
        assert [volume for volume in await host.volumes() if volume.startswith(tuple(all_made))] == []
