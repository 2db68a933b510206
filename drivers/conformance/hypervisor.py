"""What every hypervisor driver must do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from core.errors import Conflict, NotFound, RackflowError
from core.ids import new_id, on_host
from core.states import PowerState
from drivers.conformance.cases import Suite, not_reached, raises, unsupported
from drivers.conformance.flags import FLAGS
from drivers.conformance.rigs import HypervisorRig
from drivers.conformance.tools import cancelled_after, settle
from drivers.hosts import verbs_of
from drivers.hypervisor.base import Hypervisor, InstanceSpec
from drivers.hypervisor.powers import ConsoleLogs, Executes

NO_GUESTS = "no guest answers here: name an image that has an agent"
VERBS = verbs_of(Hypervisor) + FLAGS
CASES: Suite[HypervisorRig] = Suite("hypervisor", VERBS)
POWERS: Suite[HypervisorRig] = Suite("hypervisor", VERBS)


async def power(rig: HypervisorRig, name: str) -> PowerState:
    return (await rig.hypervisor.observe(name)).power


@CASES.case("capabilities")
async def capabilities(rig: HypervisorRig) -> None:
    found = await rig.hypervisor.capabilities()
    assert found.driver
    assert found.kinds
    assert found.version
    assert found.architecture


@CASES.case("prepare")
async def prepare_changes_nothing_the_second_time(rig: HypervisorRig) -> None:
    await rig.hypervisor.prepare()
    assert await rig.hypervisor.prepare() == []


@CASES.case("capacity")
async def capacity(rig: HypervisorRig) -> None:
    found = await rig.hypervisor.capacity()
    assert found.cpus > 0
    assert found.memory_mib > found.memory_used_mib >= 0


@CASES.case("observe", "instances", "undefine", "start", "stop")
async def an_absent_instance(rig: HypervisorRig) -> None:
    name = on_host(new_id())
    assert await power(rig, name) is PowerState.ABSENT
    assert name not in [seen.name for seen in await rig.hypervisor.instances()]
    assert await rig.hypervisor.undefine(name) is False
    for verb in (rig.hypervisor.start, rig.hypervisor.stop):
        with raises(Conflict):
            await verb(name)
    if isinstance(rig.hypervisor, Executes):
        with raises(NotFound):
            await rig.hypervisor.exec(name, ["true"])
    if isinstance(rig.hypervisor, ConsoleLogs):
        with raises(NotFound):
            await rig.hypervisor.console_log(name)


@CASES.case("define", "start", "stop", "undefine", "observe")
async def a_life(rig: HypervisorRig) -> None:
    driver, spec = rig.hypervisor, await rig.new()
    assert await driver.define(spec) is True
    assert await driver.define(spec) is False
    seen = await driver.observe(spec.name)
    assert (seen.power, seen.kind, seen.instance_id) == (PowerState.STOPPED, spec.kind, spec.id)
    assert await driver.stop(spec.name, grace_s=0) is False

    assert await driver.start(spec.name) is True
    assert await driver.start(spec.name) is False
    seen = await driver.observe(spec.name)
    assert (seen.power, seen.memory_mib) == (PowerState.RUNNING, spec.memory_mib)
    assert seen.cpu_seconds is not None
    assert await driver.define(spec) is False
    with raises(Conflict):
        await driver.undefine(spec.name)
    assert await power(rig, spec.name) is PowerState.RUNNING

    assert await driver.stop(spec.name, grace_s=0) is True
    assert await driver.stop(spec.name, grace_s=0) is False
    assert await power(rig, spec.name) is PowerState.STOPPED
    assert await driver.undefine(spec.name) is True
    assert await driver.undefine(spec.name) is False
    assert await power(rig, spec.name) is PowerState.ABSENT


@CASES.case("instances", "observe")
async def all_instances_are_seen_as_one_is(rig: HypervisorRig) -> None:
    driver, running, stopped = rig.hypervisor, await rig.new(), await rig.new()
    await driver.define(running)
    await driver.define(stopped)
    await driver.start(running.name)
    seen = {found.name: found for found in await driver.instances()}
    assert seen[running.name].power is PowerState.RUNNING
    assert seen[running.name].cpu_seconds is not None
    assert seen[running.name].instance_id == running.id
    assert seen[stopped.name].power is PowerState.STOPPED
    assert seen[stopped.name] == await driver.observe(stopped.name)


@CASES.case("stop", "start")
async def a_polite_stop_and_another_start(rig: HypervisorRig) -> None:
    driver, spec = rig.hypervisor, await rig.new()
    await driver.define(spec)
    await driver.start(spec.name)
    assert await driver.stop(spec.name, grace_s=5) is True
    assert await settle(lambda: driver.start(spec.name)) is True
    assert await power(rig, spec.name) is PowerState.RUNNING


@CASES.case("define")
async def a_changed_spec_is_applied(rig: HypervisorRig) -> None:
    driver, spec = rig.hypervisor, await rig.new()
    await driver.define(spec)
    larger = replace(spec, memory_mib=spec.memory_mib + 16)
    assert await driver.define(larger) is True
    assert await driver.define(larger) is False
    assert (await driver.observe(spec.name)).memory_mib == larger.memory_mib


@CASES.case("define", "start", "undefine")
async def a_missing_image_leaves_nothing_behind(rig: HypervisorRig) -> None:
    spec = rig.broken(await rig.new())

    async def define_and_start() -> None:
        await rig.hypervisor.define(spec)
        await rig.hypervisor.start(spec.name)

    with raises(RackflowError) as caught:
        await define_and_start()
    assert spec.name in str(caught.value) or spec.id in caught.value.subject
    assert await power(rig, spec.name) in (PowerState.ABSENT, PowerState.STOPPED)
    await rig.hypervisor.undefine(spec.name)
    assert await power(rig, spec.name) is PowerState.ABSENT


@CASES.case("define")
async def a_name_that_somebody_else_took(rig: HypervisorRig) -> None:
    if rig.take_name is None:
        not_reached("nobody here can take a name")
    spec = await rig.new()
    await rig.take_name(spec.name)
    with raises(Conflict):
        await rig.hypervisor.define(spec)
    seen = await rig.hypervisor.observe(spec.name)
    assert seen.power is not PowerState.ABSENT
    assert seen.instance_id is None


@CASES.case("exec")
async def exec(rig: HypervisorRig) -> None:
    driver, spec = rig.hypervisor, await rig.new()
    if not isinstance(driver, Executes):
        unsupported("the driver has no Executes")
    if not rig.guests:
        not_reached(NO_GUESTS)
    await driver.define(spec)
    with raises(Conflict):
        await driver.exec(spec.name, ["true"])
    await driver.start(spec.name)
    if rig.ready is not None:
        await rig.ready(spec.name)
    found = await driver.exec(spec.name, ["echo", "a b", "$HOME", "'"])
    assert (found.exit_code, found.stdout, found.stderr) == (0, "a b $HOME '\n", "")
    assert (await driver.exec(spec.name, ["cat"], stdin=b"one\ntwo\n")).stdout == "one\ntwo\n"
    assert (await driver.exec(spec.name, ["false"])).exit_code == 1
    assert (await driver.exec(spec.name, ["no-such-program"])).exit_code == 127
    many = await asyncio.gather(*(driver.exec(spec.name, ["echo", str(n)]) for n in range(10)))
    assert [one.stdout for one in many] == [f"{n}\n" for n in range(10)]


@CASES.case("console_log")
async def console_log(rig: HypervisorRig) -> None:
    driver, spec = rig.hypervisor, await rig.new()
    if not isinstance(driver, ConsoleLogs):
        unsupported("the driver has no ConsoleLogs")
    await driver.define(spec)
    await driver.start(spec.name)
    if rig.ready is not None:
        await rig.ready(spec.name)
    assert isinstance(await driver.console_log(spec.name), str)
    assert len(await driver.console_log(spec.name, max_bytes=10)) <= 10


@CASES.case("define", "start", "stop", "undefine")
async def many_at_once(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    specs = [await rig.new() for _ in range(rig.at_once)]

    async def live(spec: InstanceSpec) -> list[bool]:
        made = [await driver.define(spec), await driver.start(spec.name)]
        assert await power(rig, spec.name) is PowerState.RUNNING
        return [*made, await driver.stop(spec.name, grace_s=0), await driver.undefine(spec.name)]

    assert await asyncio.gather(*map(live, specs)) == [[True] * 4] * len(specs)
    assert not {spec.name for spec in specs} & {seen.name for seen in await driver.instances()}


@CASES.case("define", "start", "stop", "undefine")
async def the_same_change_by_several_at_once(rig: HypervisorRig) -> None:
    spec = await rig.new()
    for call, wanted in changes(rig.hypervisor, spec):
        changed = await asyncio.gather(*(settle(call) for _ in range(3)))
        assert any(changed)
        assert await power(rig, spec.name) is wanted


@CASES.case("define", "start", "stop", "undefine")
async def killed_in_the_middle_and_run_again(rig: HypervisorRig) -> None:
    for delay_s in rig.delays_s:
        spec = await rig.new()
        for call, wanted in changes(rig.hypervisor, spec):
            await cancelled_after(call(), delay_s)
            await settle(call)
            assert await power(rig, spec.name) is wanted, f"killed after {delay_s} s"


def changes(driver: Hypervisor, spec: InstanceSpec) -> list[tuple[Callable[[], Awaitable[bool]], PowerState]]:
    """Return the changes of a whole life, and the state after each."""
    return [
        (lambda: driver.define(spec), PowerState.STOPPED),
        (lambda: driver.start(spec.name), PowerState.RUNNING),
        (lambda: driver.stop(spec.name, grace_s=0), PowerState.STOPPED),
        (lambda: driver.undefine(spec.name), PowerState.ABSENT),
    ]
