"""What every hypervisor driver must do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from core.errors import Conflict, NotFound, RackflowError
from core.ids import new_id, on_host
from core.states import PowerState
from drivers.hypervisor.base import Hypervisor, InstanceSpec
from drivers.hypervisor.powers import ConsoleLogs, Executes, Move
from tests.contract.tools import cancelled_after, settle

DELAYS_S = (0.0, 0.005, 0.02, 0.1, 0.3)  # after which a call is killed


def twice(spec: InstanceSpec) -> InstanceSpec:
    return replace(spec, cpu=spec.cpu * 2, memory_mib=spec.memory_mib * 2)


@dataclass
class HypervisorRig:
    """What a driver brings along. new: a spec that can be defined (images and disks are there), gone after the test.

    broken: turns a good spec into one whose image or disk is missing. take_name: makes an instance by that name that
    is not ours. ready: waits until exec works (on `other`, too). at_once: how many instances can be asked for together.

    What follows is for hypervisor_powers.py; a power whose field is missing fails there. folder: an empty one on the
    host. file_bytes: a file's size there, 0 if absent. with_disk, with_nic: the spec with one more, which is ready.
    larger: the spec with more cpu and memory. move: a live migration, and its target. other: another host's
    hypervisor, where the same specs can be defined. console_talk: what is typed, and what is to come back.
    guests: False where a simulator boots none, so that only what the hypervisor itself says can be checked.
    """

    hypervisor: Hypervisor
    new: Callable[[], Awaitable[InstanceSpec]]
    broken: Callable[[InstanceSpec], InstanceSpec]
    take_name: Callable[[str], Awaitable[None]] | None = None
    ready: Callable[[str], Awaitable[None]] | None = None
    at_once: int = 10
    delays_s: tuple[float, ...] = DELAYS_S
    folder: str = ""
    file_bytes: Callable[[str], Awaitable[int]] | None = None
    with_disk: Callable[[InstanceSpec], Awaitable[InstanceSpec]] | None = None
    with_nic: Callable[[InstanceSpec], Awaitable[InstanceSpec]] | None = None
    larger: Callable[[InstanceSpec], InstanceSpec] = twice
    move: Callable[[InstanceSpec], Awaitable[tuple[Move, Hypervisor]]] | None = None
    other: Hypervisor | None = None
    console_talk: tuple[bytes, bytes] = (b"\necho a$((1+1))b\n", b"a2b")
    reboot_grace_s: float = 20.0
    guests: bool = True


class HypervisorContract:
    """Subclass it and give the fixture `rig`."""

    @pytest.fixture
    def rig(self) -> HypervisorRig:
        pytest.fail("a driver that joins this suite gives its own rig")

    async def power(self, rig: HypervisorRig, name: str) -> PowerState:
        return (await rig.hypervisor.observe(name)).power

    async def test_capabilities(self, rig: HypervisorRig) -> None:
        found = await rig.hypervisor.capabilities()
        assert found.driver
        assert found.kinds
        assert found.version
        assert found.architecture

    async def test_prepare_changes_nothing_the_second_time(self, rig: HypervisorRig) -> None:
        await rig.hypervisor.prepare()
        assert await rig.hypervisor.prepare() == []

    async def test_capacity(self, rig: HypervisorRig) -> None:
        found = await rig.hypervisor.capacity()
        assert found.cpus > 0
        assert found.memory_mib > found.memory_used_mib >= 0

    async def test_an_absent_instance(self, rig: HypervisorRig) -> None:
        name = on_host(new_id())
        assert await self.power(rig, name) is PowerState.ABSENT
        assert name not in [seen.name for seen in await rig.hypervisor.instances()]
        assert await rig.hypervisor.undefine(name) is False
        for call in (rig.hypervisor.start(name), rig.hypervisor.stop(name)):
            with pytest.raises(Conflict):
                await call
        if isinstance(rig.hypervisor, Executes):
            with pytest.raises(NotFound):
                await rig.hypervisor.exec(name, ["true"])
        if isinstance(rig.hypervisor, ConsoleLogs):
            with pytest.raises(NotFound):
                await rig.hypervisor.console_log(name)

    async def test_a_life(self, rig: HypervisorRig) -> None:
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
        with pytest.raises(Conflict):
            await driver.undefine(spec.name)
        assert await self.power(rig, spec.name) is PowerState.RUNNING

        assert await driver.stop(spec.name, grace_s=0) is True
        assert await driver.stop(spec.name, grace_s=0) is False
        assert await self.power(rig, spec.name) is PowerState.STOPPED
        assert await driver.undefine(spec.name) is True
        assert await driver.undefine(spec.name) is False
        assert await self.power(rig, spec.name) is PowerState.ABSENT

    async def test_all_instances_are_seen_as_one_is(self, rig: HypervisorRig) -> None:
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

    async def test_a_polite_stop_and_another_start(self, rig: HypervisorRig) -> None:
        driver, spec = rig.hypervisor, await rig.new()
        await driver.define(spec)
        await driver.start(spec.name)
        assert await driver.stop(spec.name, grace_s=5) is True
        assert await settle(lambda: driver.start(spec.name)) is True
        assert await self.power(rig, spec.name) is PowerState.RUNNING

    async def test_a_changed_spec_is_applied(self, rig: HypervisorRig) -> None:
        driver, spec = rig.hypervisor, await rig.new()
        await driver.define(spec)
        larger = replace(spec, memory_mib=spec.memory_mib + 16)
        assert await driver.define(larger) is True
        assert await driver.define(larger) is False
        assert (await driver.observe(spec.name)).memory_mib == larger.memory_mib

    async def test_a_missing_image_leaves_nothing_behind(self, rig: HypervisorRig) -> None:
        spec = rig.broken(await rig.new())

        async def define_and_start() -> None:
            await rig.hypervisor.define(spec)
            await rig.hypervisor.start(spec.name)

        with pytest.raises(RackflowError) as caught:
            await define_and_start()
        assert spec.name in str(caught.value) or spec.id in caught.value.subject
        assert await self.power(rig, spec.name) in (PowerState.ABSENT, PowerState.STOPPED)
        await rig.hypervisor.undefine(spec.name)
        assert await self.power(rig, spec.name) is PowerState.ABSENT

    async def test_a_name_that_somebody_else_took(self, rig: HypervisorRig) -> None:
        if rig.take_name is None:
            pytest.skip("this driver's names cannot be taken")
        spec = await rig.new()
        await rig.take_name(spec.name)
        with pytest.raises(Conflict):
            await rig.hypervisor.define(spec)
        seen = await rig.hypervisor.observe(spec.name)
        assert seen.power is not PowerState.ABSENT
        assert seen.instance_id is None

    async def test_exec(self, rig: HypervisorRig) -> None:
        driver, spec = rig.hypervisor, await rig.new()
        if not isinstance(driver, Executes):
            pytest.skip("no exec")
        await driver.define(spec)
        with pytest.raises(Conflict):
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

    async def test_console_log(self, rig: HypervisorRig) -> None:
        driver, spec = rig.hypervisor, await rig.new()
        if not isinstance(driver, ConsoleLogs):
            pytest.skip("no console log")
        await driver.define(spec)
        await driver.start(spec.name)
        if rig.ready is not None:
            await rig.ready(spec.name)
        assert isinstance(await driver.console_log(spec.name), str)
        assert len(await driver.console_log(spec.name, max_bytes=10)) <= 10

    async def test_many_at_once(self, rig: HypervisorRig) -> None:
        driver = rig.hypervisor
        specs = [await rig.new() for _ in range(rig.at_once)]

        async def live(spec: InstanceSpec) -> list[bool]:
            made = [await driver.define(spec), await driver.start(spec.name)]
            assert await self.power(rig, spec.name) is PowerState.RUNNING
            return [*made, await driver.stop(spec.name, grace_s=0), await driver.undefine(spec.name)]

        assert await asyncio.gather(*map(live, specs)) == [[True] * 4] * len(specs)
        assert not {spec.name for spec in specs} & {seen.name for seen in await driver.instances()}

    async def test_the_same_change_by_several_at_once(self, rig: HypervisorRig) -> None:
        spec = await rig.new()
        for call, power in changes(rig.hypervisor, spec):
            changed = await asyncio.gather(*(settle(call) for _ in range(3)))
            assert any(changed)
            assert await self.power(rig, spec.name) is power

    async def test_killed_in_the_middle_and_run_again(self, rig: HypervisorRig) -> None:
        for delay_s in rig.delays_s:
            spec = await rig.new()
            for call, power in changes(rig.hypervisor, spec):
                await cancelled_after(call(), delay_s)
                await settle(call)
                assert await self.power(rig, spec.name) is power, f"killed after {delay_s} s"


def changes(driver: Hypervisor, spec: InstanceSpec) -> list[tuple[Callable[[], Awaitable[bool]], PowerState]]:
    """Return the changes of a whole life, and the state after each."""
    return [
        (lambda: driver.define(spec), PowerState.STOPPED),
        (lambda: driver.start(spec.name), PowerState.RUNNING),
        (lambda: driver.stop(spec.name, grace_s=0), PowerState.STOPPED),
        (lambda: driver.undefine(spec.name), PowerState.ABSENT),
    ]
