"""What a hypervisor must do for each optional power that it has: powers.py, one or more tests for each protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import NoReturn, TypeVar

from core.errors import Conflict, NotFound, RackflowError, Unsupported
from core.ids import new_id
from core.states import PowerState
from drivers.conformance.cases import not_reached, raises, unsupported
from drivers.conformance.flags import DEGREES, PROTOCOLS
from drivers.conformance.hypervisor import POWERS
from drivers.conformance.hypervisor_inside import MEMORY, UNSEEN, define, power, read, ready, running, start, write
from drivers.conformance.rigs import HypervisorRig
from drivers.conformance.tools import cancelled_after, settle
from drivers.hypervisor.base import Capabilities, InstanceSpec
from drivers.hypervisor.powers import (
    Adopts,
    MigratesLive,
    Move,
    Reboots,
    Reconfigures,
    SavesState,
    Suspends,
)

T = TypeVar("T")


def needs(found: T | None, what: str) -> T:
    """Return what a rig has to give for a power that its driver has."""
    return found if found is not None else not_reached(f"the driver can do it, and there is no {what} here")


@POWERS.case("capabilities")
async def each_flag_agrees_with_its_protocol(rig: HypervisorRig) -> None:
    found = await rig.hypervisor.capabilities()
    flags = {one.name for one in fields(Capabilities) if one.type == "bool"}
    assert flags == PROTOCOLS.keys() | DEGREES.keys(), "a flag without a protocol here"
    for flag, protocol in PROTOCOLS.items():
        assert getattr(found, flag) == isinstance(rig.hypervisor, protocol), flag
    for degree, flag in DEGREES.items():
        assert getattr(found, flag) or not getattr(found, degree), degree


@POWERS.case("suspend", "reboot", "reconfigure")
async def wrong_states_are_conflicts(rig: HypervisorRig) -> None:
    driver, absent, spec = rig.hypervisor, await rig.new(), await rig.new()
    await driver.define(spec)
    for wrong in (absent, spec):  # absent, off
        calls: list[Callable[[], Awaitable[object]]] = []
        if isinstance(driver, Suspends):
            calls += [lambda d=driver, n=wrong.name: d.suspend(n), lambda d=driver, n=wrong.name: d.resume(n)]  # type: ignore[misc]
        if isinstance(driver, Reboots):
            calls += [lambda d=driver, n=wrong.name: d.reboot(n)]  # type: ignore[misc]
        if isinstance(driver, Reconfigures):
            calls += [lambda d=driver, s=wrong: d.reconfigure(s)]  # type: ignore[misc]
        if not calls:
            unsupported("the driver has no Suspends, Reboots, Reconfigures")
        for call in calls:
            with raises(Conflict):
                await call()
    assert await power(rig, absent.name) is PowerState.ABSENT
    assert await power(rig, spec.name) is PowerState.STOPPED


# Suspends, Reboots, SavesState


@POWERS.case("suspend")
async def suspend_and_resume(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Suspends):
        unsupported("the driver has no Suspends")
    spec = await running(rig)
    await write(rig, spec, MEMORY, "kept")
    assert [await driver.suspend(spec.name), await driver.suspend(spec.name)] == [True, False]
    assert await power(rig, spec.name) is PowerState.PAUSED
    assert [await driver.resume(spec.name), await driver.resume(spec.name)] == [True, False]
    assert await power(rig, spec.name) is PowerState.RUNNING
    assert await read(rig, spec, MEMORY) == "kept"
    for delay_s in rig.delays_s:
        await cancelled_after(driver.suspend(spec.name), delay_s)
        await settle(lambda: driver.suspend(spec.name))
        assert await power(rig, spec.name) is PowerState.PAUSED, f"killed after {delay_s} s"
        await cancelled_after(driver.resume(spec.name), delay_s)
        await settle(lambda: driver.resume(spec.name))
        assert await power(rig, spec.name) is PowerState.RUNNING, f"killed after {delay_s} s"
    await driver.suspend(spec.name)
    assert await driver.stop(spec.name, grace_s=0) is True
    assert await power(rig, spec.name) is PowerState.STOPPED


@POWERS.case("reboot")
async def a_polite_reboot(rig: HypervisorRig) -> None:
    await rebooted(rig, hard=False)


@POWERS.case("reboot")
async def a_hard_reboot(rig: HypervisorRig) -> None:
    await rebooted(rig, hard=True)


async def rebooted(rig: HypervisorRig, *, hard: bool) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Reboots):
        unsupported("the driver has no Reboots")
    spec = await running(rig)
    await write(rig, spec, MEMORY, "gone")
    assert await driver.reboot(spec.name, hard=hard, grace_s=rig.reboot_grace_s) is True
    assert await power(rig, spec.name) is PowerState.RUNNING
    await ready(rig, spec)
    assert await read(rig, spec, MEMORY) in (None, UNSEEN), "it did not reboot"


@POWERS.case("reboot")
async def a_reboot_that_was_killed(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Reboots):
        unsupported("the driver has no Reboots")
    spec = await running(rig)
    for delay_s in rig.delays_s:
        await cancelled_after(driver.reboot(spec.name, hard=True), delay_s)
        await settle(lambda: driver.reboot(spec.name, hard=True))
        assert await power(rig, spec.name) is PowerState.RUNNING, f"killed after {delay_s} s"


@POWERS.case("save")
async def memory_is_saved_and_restored(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, SavesState):
        unsupported("the driver has no SavesState")
    spec, path = await running(rig), f"{rig.folder}/memory.save"
    for content in ("one", "two"):
        await write(rig, spec, MEMORY, content)
        assert await driver.save(spec.name, path) is True
        assert await driver.save(spec.name, path) is False
        assert await power(rig, spec.name) is PowerState.STOPPED
        assert await driver.has_state(path) is True
        assert await driver.restore(spec.name, path) is True
        assert await driver.restore(spec.name, path) is False
        assert await power(rig, spec.name) is PowerState.RUNNING
        assert await driver.has_state(path) is True
        assert await read(rig, spec, MEMORY) == content
    await driver.stop(spec.name, grace_s=0)
    for call in (driver.save, driver.restore):
        with raises(Conflict):
            await call(spec.name, f"{path}.none")
    assert await driver.has_state(f"{path}.none") is False


@POWERS.case("save")
async def a_save_that_was_killed(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, SavesState):
        unsupported("the driver has no SavesState")
    spec = await running(rig)
    await write(rig, spec, MEMORY, "kept")
    for number, delay_s in enumerate(rig.delays_s):
        path = f"{rig.folder}/{number}.save"
        await cancelled_after(driver.save(spec.name, path), delay_s)
        await settle(lambda path=path: driver.save(spec.name, path))  # type: ignore[misc]
        assert await power(rig, spec.name) is PowerState.STOPPED
        assert await driver.has_state(path), f"killed after {delay_s} s"
        await cancelled_after(driver.restore(spec.name, path), delay_s)
        await settle(lambda path=path: driver.restore(spec.name, path))  # type: ignore[misc]
        assert await power(rig, spec.name) is PowerState.RUNNING
        assert await read(rig, spec, MEMORY) == "kept", f"killed after {delay_s} s"


# Reconfigures, MigratesLive


@POWERS.case("reconfigure")
async def disks_and_nics_come_and_go(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Reconfigures):
        unsupported("the driver has no Reconfigures")
    if not rig.hotplug:
        not_reached("no guest answers here that would let go of a device: name an image that has an agent")
    plain = await running(rig)
    with_disk = await needs(rig.with_disk, "with_disk")(plain)
    *others, last = with_disk.disks
    grown = replace(with_disk, disks=(*others, replace(last, size_mib=last.size_mib + 16)))
    with_nic = await needs(rig.with_nic, "with_nic")(grown)
    count = len((await driver.observe(plain.name)).disks)
    for number, (spec, disks) in enumerate(
        [(with_disk, count + 1), (grown, count + 1), (with_nic, count + 1), (plain, count)]
    ):
        with suppress(Unsupported):
            await cancelled_after(driver.reconfigure(spec), rig.delays_s[number % len(rig.delays_s)])
        try:
            await settle(lambda spec=spec: driver.reconfigure(spec))  # type: ignore[misc]
        except Unsupported as reason:  # LXD, where the network is LXD's own
            if spec != with_nic:
                raise
            not_reached(f"a second NIC cannot be on this network, name another --bridge: {reason}")
        assert await driver.reconfigure(spec) is False
        assert len((await driver.observe(spec.name)).disks) == disks
        assert await driver.define(spec) is False, "what runs and what is kept differ"
    assert await driver.reconfigure(with_disk) is True
    assert await power(rig, plain.name) is PowerState.RUNNING


@POWERS.case("reconfigure", "resize_live")
async def cpu_and_memory_of_what_runs(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Reconfigures):
        unsupported("the driver has no Reconfigures")
    if not rig.hotplug:
        not_reached("no guest answers here that would take more: name an image that has an agent")
    spec = rig.may_grow(await rig.new())
    larger = rig.larger(spec)
    await driver.define(spec)
    await start(rig, spec)
    if not (await driver.capabilities()).resize_live:
        with raises(Unsupported):
            await driver.reconfigure(larger)
        assert (await driver.observe(spec.name)).memory_mib == spec.memory_mib
        return
    await write(rig, spec, MEMORY, "kept")
    assert [await driver.reconfigure(larger), await driver.reconfigure(larger)] == [True, False]
    seen = await driver.observe(spec.name)
    assert (seen.power, seen.cpus, seen.memory_mib) == (PowerState.RUNNING, larger.cpu, larger.memory_mib)
    assert await read(rig, spec, MEMORY) == "kept"
    assert await driver.define(larger) is False


@POWERS.case("migrate_live")
async def a_live_migration(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, MigratesLive):
        unsupported("the driver has no MigratesLive")
    for delay_s in (None, rig.delays_s[-1]):
        spec = await running(rig)
        await write(rig, spec, MEMORY, "kept")
        if spec.kind not in rig.moves:
            await refused(rig, driver, spec)
        assert await driver.preflight(spec.name) == []
        move, target = await needs(rig.move, "move")(spec)
        if delay_s is not None:
            await cancelled_after(driver.migrate(move, target, timeout_s=120), delay_s)
        await settle(lambda m=move, t=target: driver.migrate(m, t, timeout_s=120))  # type: ignore[misc]
        assert await driver.migrate(move, target, timeout_s=120) is False
        assert await power(rig, spec.name) is PowerState.ABSENT
        assert (await target.observe(spec.name)).power is PowerState.RUNNING
        assert await read(replace(rig, hypervisor=target), spec, MEMORY) == "kept"


async def refused(rig: HypervisorRig, driver: MigratesLive, spec: InstanceSpec) -> NoReturn:
    """Check that what does not move while it runs is said beforehand, and changes nothing; end the case."""
    reasons = await driver.preflight(spec.name)
    assert reasons
    with raises(Unsupported):
        await driver.migrate(Move(spec, "192.0.2.2"), needs(rig.other, "other"), timeout_s=5)
    assert await power(rig, spec.name) is PowerState.RUNNING
    unsupported("; ".join(reasons))


# Adopts


@POWERS.case("adopt")
async def adoption(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Adopts):
        unsupported("the driver has no Adopts")
    name, instance_id = f"foreign-{new_id()[-6:]}", new_id()
    with raises(NotFound):
        await driver.describe(name)
    with raises(RackflowError):
        await driver.adopt(name, instance_id)
    await needs(rig.take_name, "take_name")(name)
    found = await driver.describe(name)
    assert (found.name, found.power) == (name, PowerState.STOPPED)
    for delay_s in rig.delays_s:
        await cancelled_after(driver.adopt(name, instance_id), delay_s)
        await settle(lambda: driver.adopt(name, instance_id))
        assert await driver.adopt(name, instance_id) is False
        seen = await driver.observe(name)
        assert (seen.instance_id, seen.power) == (instance_id, found.power)
        assert seen in await driver.instances()
        with raises(Conflict):
            await driver.adopt(name, new_id())
        assert [await driver.disown(name), await driver.disown(name)] == [True, False]
        assert (await driver.observe(name)).instance_id is None
    ours = await define(rig)
    with raises(Conflict):
        await driver.adopt(ours.name, instance_id)
