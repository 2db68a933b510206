"""KVM: live migrations that are disturbed, and what is on which host afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.errors import Busy, Conflict, Drift, HostFault, RackflowError, Unsupported
from core.states import PowerState
from drivers.conformance.tools import settle
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.fake import FakeHypervisor
from drivers.hypervisor.powers import Move
from drivers.storage.base import VolumeSpec
from tests.labs import Lab
from tests.live.kvm_powers import SHARED, Pair, pair_of

LIMIT_S = 60.0


@pytest.fixture
async def pair(lab: Lab) -> AsyncIterator[Pair]:
    async with pair_of(lab) as found:
        yield found


async def powers(pair: Pair, spec: InstanceSpec) -> tuple[PowerState, PowerState]:
    return ((await pair.source.observe(spec.name)).power, (await pair.target.observe(spec.name)).power)


async def busy(pair: Pair, spec: InstanceSpec) -> Move:
    """Return a migration of what runs, slow enough to be disturbed: 1 MiB/s."""
    move, _ = await pair.move(spec)
    return replace(move, bandwidth_mib_s=1)


async def under_way(pair: Pair, spec: InstanceSpec) -> None:
    async with asyncio.timeout(20):
        while "being saved, moved" not in " ".join(await pair.source.preflight(spec.name)):
            await asyncio.sleep(0.1)


async def still_runs(pair: Pair, spec: InstanceSpec) -> None:
    assert await powers(pair, spec) == (PowerState.RUNNING, PowerState.ABSENT)
    assert (await pair.source.exec(spec.name, ["cat", "/dev/kept"])).stdout == "kept"
    assert await pair.source.define(spec) is False, "its definition was touched"


async def remembering(pair: Pair, spec: InstanceSpec | None = None) -> InstanceSpec:
    spec = await pair.running(spec)
    await pair.source.exec(spec.name, ["tee", "/dev/kept"], stdin=b"kept")
    return spec


async def test_disks_in_a_shared_folder_stay_where_they_are(pair: Pair) -> None:
    spec, move = await pair.shared()
    await remembering(pair, spec)
    seen: list[tuple[int, int]] = []
    assert await pair.source.migrate(move, pair.target, timeout_s=LIMIT_S, progress=lambda *at: seen.append(at))
    assert await powers(pair, spec) == (PowerState.ABSENT, PowerState.RUNNING)
    assert (await pair.target.exec(spec.name, ["cat", "/dev/kept"])).stdout == "kept"
    assert await pair.target.define(spec) is False
    assert seen == sorted(seen)
    # And back, since what came live must be able to go live; then a restart from what was kept there.
    back = replace(move, address=pair.here.host.transport.endpoint.address)
    assert await pair.target.migrate(back, pair.source, timeout_s=LIMIT_S)
    await pair.source.stop(spec.name, grace_s=0)
    assert await pair.source.start(spec.name) is True


@pytest.mark.slow
async def test_a_folder_that_is_not_shared(pair: Pair) -> None:
    spec = await remembering(pair)
    move, _ = await pair.move(spec)
    with pytest.raises(HostFault, match="does not lie in a folder that both hosts see"):
        await pair.source.migrate(replace(move, copy_disks=()), pair.target, timeout_s=LIMIT_S)
    await still_runs(pair, spec)


@pytest.mark.slow
async def test_disks_and_nics_that_were_plugged_in_go_along(pair: Pair) -> None:
    plain, _ = await pair.shared()
    await remembering(pair, plain)
    storage = pair.here.host.storage(SHARED)
    one, two = [await storage.ensure_volume(VolumeSpec(plain.id, name, 16)) for name in ("data1", "data2")]
    both = await pair.with_nic(replace(plain, disks=(*plain.disks, one, two)))
    assert await pair.source.reconfigure(both) is True
    spec = replace(both, disks=(*plain.disks, two), cpu=2)  # the middle one goes
    assert await pair.source.reconfigure(spec) is True
    move = Move(spec, pair.there.host.transport.endpoint.address)
    assert await pair.source.migrate(move, pair.target, timeout_s=LIMIT_S) is True
    assert await pair.target.define(spec) is False
    assert await pair.target.reconfigure(spec) is False
    assert (await pair.target.observe(spec.name)).cpus == 2
    assert await pair.target.reconfigure(replace(both, cpu=2)) is True, "the target's machine takes devices too"


@pytest.mark.parametrize(
    "delay_s", [pytest.param(0.0, marks=pytest.mark.slow), pytest.param(0.05, marks=pytest.mark.slow), 1.0]
)
async def test_a_cancelled_one_runs_on_where_it_was(pair: Pair, delay_s: float) -> None:
    spec = await remembering(pair)
    move = await busy(pair, spec)
    task = asyncio.ensure_future(pair.source.migrate(move, pair.target, timeout_s=LIMIT_S))
    if delay_s == 1.0:
        await under_way(pair, spec)
    await asyncio.sleep(delay_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle(lambda: still_runs(pair, spec))
    assert await pair.source.preflight(spec.name) == []
    assert await pair.source.migrate(replace(move, bandwidth_mib_s=0), pair.target, timeout_s=LIMIT_S) is True
    assert await powers(pair, spec) == (PowerState.ABSENT, PowerState.RUNNING)


@pytest.mark.slow
async def test_one_that_is_late_runs_on_where_it_was(pair: Pair) -> None:
    spec = await remembering(pair)
    with pytest.raises(Busy, match="did not end within 3 s"):
        await pair.source.migrate(await busy(pair, spec), pair.target, timeout_s=3)
    await still_runs(pair, spec)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["h1", "h2"])
async def test_libvirtd_is_killed_in_the_middle(pair: Pair, host: str) -> None:
    spec = await remembering(pair)
    move = await busy(pair, spec)
    task = asyncio.ensure_future(pair.source.migrate(move, pair.target, timeout_s=LIMIT_S))
    await under_way(pair, spec)
    pair.here.lab.run(host, "kill -9 $(pgrep -xo libvirtd)")
    with pytest.raises(RackflowError):
        await task
    async with asyncio.timeout(20):
        while True:
            try:
                await still_runs(pair, spec)
                break
            except RackflowError:
                await asyncio.sleep(0.5)
    moved = settle(lambda: pair.source.migrate(replace(move, bandwidth_mib_s=0), pair.target, timeout_s=LIMIT_S))
    assert await moved is True


@pytest.mark.slow
async def test_libvirtd_on_the_target_hangs(pair: Pair) -> None:
    spec = await remembering(pair)
    task = asyncio.ensure_future(pair.source.migrate(await busy(pair, spec), pair.target, timeout_s=4))
    await under_way(pair, spec)
    daemon = pair.there.lab.run("h2", "pgrep -xo libvirtd").strip()
    pair.there.lab.run("h2", f"kill -STOP {daemon}")
    try:
        with pytest.raises(Busy):
            await task
        seen = await pair.source.observe(spec.name)
        assert (await pair.source.exec(spec.name, ["cat", "/dev/kept"])).stdout == "kept"
    finally:
        pair.there.lab.run("h2", f"kill -CONT {daemon}")
    assert seen.power is PowerState.RUNNING
    await settle(lambda: still_runs(pair, spec))


@pytest.mark.slow
async def test_a_caller_that_died_leaves_it_running(pair: Pair) -> None:
    spec = await remembering(pair)
    task = asyncio.ensure_future(pair.source.migrate(await busy(pair, spec), pair.target, timeout_s=LIMIT_S))
    await under_way(pair, spec)
    await pair.here.host.transport.close()  # what libvirtd sees of a worker that is killed
    with pytest.raises(RackflowError):
        await task
    async with asyncio.timeout(20):
        while pair.here.lab.run("h1", f"virsh domjobinfo {spec.name} | head -1").split()[-1] != "None":
            await asyncio.sleep(0.3)
    assert pair.here.lab.run("h1", f"virsh domstate {spec.name}").strip() == "running"
    assert spec.name not in pair.here.lab.run("h2", "virsh list --all --name")


async def test_what_cannot_move_live(pair: Pair) -> None:
    spec = await pair.new()
    await pair.source.define(spec)
    assert await pair.source.preflight(spec.name) == ["it does not run"]
    move, _ = await pair.move(spec)
    with pytest.raises(Conflict, match="does not run on h1"):
        await pair.source.migrate(move, pair.target, timeout_s=LIMIT_S)
    await pair.source.start(spec.name)
    await pair.source.suspend(spec.name)
    assert await pair.source.preflight(spec.name) == ["it is paused"]
    with pytest.raises(Conflict, match="it is paused"):
        await pair.source.migrate(move, pair.target, timeout_s=LIMIT_S)
    await pair.source.resume(spec.name)
    with pytest.raises(Unsupported, match="no disk none"):
        await pair.source.migrate(replace(move, copy_disks=("none",)), pair.target, timeout_s=LIMIT_S)
    other = object.__new__(FakeHypervisor)
    with pytest.raises(Unsupported, match="only move to a KVM host"):
        await pair.source.migrate(move, other, timeout_s=LIMIT_S)


@pytest.mark.slow
async def test_what_runs_on_both_hosts_is_left_to_the_operator(pair: Pair) -> None:
    spec = await pair.running()
    move, _ = await pair.move(spec)
    await pair.target.define(move.spec)
    await pair.target.start(spec.name)
    with pytest.raises(Drift, match="runs on both hosts"):
        await pair.source.migrate(move, pair.target, timeout_s=LIMIT_S)
    assert await powers(pair, spec) == (PowerState.RUNNING, PowerState.RUNNING)


@pytest.mark.slow
async def test_it_takes_little_longer_than_libvirts_own_call(pair: Pair) -> None:
    ours, bare = [], []
    for _ in range(2):
        spec, move = await pair.shared()
        await pair.running(spec)
        begin = time.monotonic()
        await pair.source.migrate(move, pair.target, timeout_s=LIMIT_S)
        ours.append(time.monotonic() - begin)
        await pair.target.stop(spec.name, grace_s=0)
        spec, move = await pair.shared()
        await pair.running(spec)
        flags = "--live --persistent --undefinesource --unsafe"
        to = f"qemu+unix:///system?socket=/srv/shared/h2.sock tcp://{move.address}"
        relay = "socat UNIX-LISTEN:/srv/shared/h2.sock,fork UNIX-CONNECT:/run/libvirt/libvirt-sock"
        pair.here.lab.run("h2", f"rm -f /srv/shared/h2.sock; ({relay} >/dev/null 2>&1 & echo $! >/run/relay.pid)")
        begin = time.monotonic()
        pair.here.lab.run("h1", f"virsh migrate {flags} {spec.name} {to}")
        bare.append(time.monotonic() - begin)
        pair.here.lab.run("h2", "kill $(cat /run/relay.pid); rm -f /srv/shared/h2.sock /run/relay.pid")
        await pair.target.stop(spec.name, grace_s=0)
    print(f"\nmigration: ours {ours}, virsh {bare}")
    assert min(ours) <= 1.2 * min(bare) + 1
