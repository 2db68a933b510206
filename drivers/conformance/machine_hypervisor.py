"""All lives that an instance may have on a hypervisor, against a model of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from core.errors import Conflict, NotFound
from core.states import PowerState
from drivers.conformance import hypervisor_inside as inside
from drivers.conformance.cases import raises
from drivers.conformance.explore import FAULTS, Do, How, Machine
from drivers.conformance.rigs import HypervisorRig
from drivers.hypervisor.base import DiskAttachment, InstanceSpec
from drivers.hypervisor.powers import Adopts, Executes, Reboots, Reconfigures, Snapshots, Suspends

ON = (PowerState.RUNNING, PowerState.PAUSED)
STOPPED = (PowerState.STOPPED,)
MOST = 3  # instances at a time
PICK, NAMES, TEXTS = st.integers(0, MOST - 1), st.sampled_from(["s1", "s2"]), st.sampled_from(["one", "two", "three"])


@dataclass
class Life:
    """What an instance should be. content: of its root disk, None: not known. snapshots: the content then."""

    spec: InstanceSpec
    plain: InstanceSpec
    power: PowerState = PowerState.STOPPED
    content: str | None = None
    snapshots: dict[str, str | None] = field(default_factory=dict)


def some(*powers: PowerState) -> Callable[[Any], bool]:
    return lambda machine: bool(machine.having(powers or tuple(PowerState)))


class HypervisorMachine(Machine):
    """Define, start, stop, … in any order, any of them killed, done twice, or disturbed."""

    def __init__(self, do: Do, rig: HypervisorRig) -> None:
        super().__init__(do, rig.disturb, rig.effort)
        self.rig, self.driver = rig, rig.hypervisor
        self.lives: list[Life] = []
        self.gone: list[InstanceSpec] = []

    def having(self, powers: Iterable[PowerState]) -> list[Life]:
        """Return the instances that are in one of these states."""
        return [life for life in self.lives if life.power in powers]

    def one(self, pick: int, *powers: PowerState) -> Life:
        """Choose one of those in these states (all)."""
        found = self.having(powers or tuple(PowerState))
        return found[pick % len(found)]

    # a life

    @precondition(lambda self: len(self.lives) < MOST)
    @rule(how=FAULTS)
    def define(self, how: How) -> None:
        spec = self.do(self.rig.new())
        self.change(f"define {spec.name}", lambda: self.driver.define(spec), True, how)
        self.lives.append(Life(spec, spec))

    @precondition(some())
    @rule(pick=PICK, how=FAULTS)
    def define_again(self, pick: int, how: How) -> None:
        life = self.one(pick)
        self.change(f"define {life.spec.name} again", lambda: self.driver.define(life.spec), False, how)

    @precondition(some(*STOPPED))
    @rule(pick=PICK, how=FAULTS, mib=st.sampled_from([16, 32]))
    def resize(self, pick: int, how: How, mib: int) -> None:
        life = self.one(pick, *STOPPED)
        spec = replace(life.spec, memory_mib=life.plain.memory_mib + mib)
        changed = spec != life.spec
        self.change(f"define {spec.name} with {spec.memory_mib} MiB", lambda: self.driver.define(spec), changed, how)
        life.spec = spec

    @precondition(some())
    @rule(pick=PICK, how=FAULTS)
    def start(self, pick: int, how: How) -> None:
        life = self.one(pick)
        changed = life.power is not PowerState.RUNNING
        self.change(f"start {life.spec.name}", lambda: self.driver.start(life.spec.name), changed, how)
        life.power = PowerState.RUNNING

    @precondition(some())
    @rule(pick=PICK, how=FAULTS)
    def stop(self, pick: int, how: How) -> None:
        life = self.one(pick)
        changed = life.power is not PowerState.STOPPED
        self.change(f"stop {life.spec.name}", lambda: self.driver.stop(life.spec.name, grace_s=0), changed, how)
        life.power = PowerState.STOPPED

    @precondition(some())
    @rule(pick=PICK, how=FAULTS)
    def undefine(self, pick: int, how: How) -> None:
        life = self.one(pick)
        if life.power in ON:
            self.note(f"undefine {life.spec.name}, which is on")
            with raises(Conflict):
                self.do(self.driver.undefine(life.spec.name))
            return
        self.change(f"undefine {life.spec.name}", lambda: self.driver.undefine(life.spec.name), True, how)
        self.lives.remove(life)
        self.gone.append(life.spec)

    # what some can do besides

    @precondition(some(*ON))
    @rule(pick=PICK, how=FAULTS, on=st.booleans())
    def suspend_or_resume(self, pick: int, how: How, on: bool) -> None:
        driver, life = self.driver, self.one(pick, *ON)
        if isinstance(driver, Suspends):
            wanted = PowerState.RUNNING if on else PowerState.PAUSED
            call = driver.resume if on else driver.suspend
            what = f"{'resume' if on else 'suspend'} {life.spec.name}"
            self.change(what, lambda: call(life.spec.name), life.power is not wanted, how)
            life.power = wanted

    @precondition(some(PowerState.RUNNING))
    @rule(pick=PICK, how=FAULTS)
    def reboot(self, pick: int, how: How) -> None:
        driver, life = self.driver, self.one(pick, PowerState.RUNNING)
        if isinstance(driver, Reboots):
            self.change(f"reboot {life.spec.name}", lambda: driver.reboot(life.spec.name, hard=True), True, how)

    @precondition(some(PowerState.RUNNING))
    @rule(pick=PICK, how=FAULTS)
    def add_or_take_a_nic(self, pick: int, how: How) -> None:
        driver, life, more = self.driver, self.one(pick, PowerState.RUNNING), self.rig.with_nic
        if isinstance(driver, Reconfigures) and more is not None and self.rig.effort.inside:
            plain = replace(life.spec, nics=life.plain.nics)
            spec = plain if life.spec != plain else self.do(more(plain))
            what = f"reconfigure {spec.name} to {len(spec.nics)} NICs"
            self.change(what, lambda: driver.reconfigure(spec), True, how)
            life.spec = spec

    @precondition(some())
    @rule(pick=PICK, text=TEXTS)
    def write(self, pick: int, text: str) -> None:
        life = self.one(pick)
        if self._seen_from(life) is not None:
            self.note(f"write {text} in {life.spec.name}")
            self.do(self._write(life, text))
            life.content = text

    @precondition(some(*STOPPED))
    @rule(pick=PICK, how=FAULTS, name=NAMES)
    def snapshot(self, pick: int, how: How, name: str) -> None:
        driver, life = self.driver, self.one(pick, *STOPPED)
        if isinstance(driver, Snapshots):
            changed = name not in life.snapshots
            what = f"snapshot {life.spec.name} {name}"
            self.change(what, lambda: driver.snapshot(life.spec.name, name), changed, how)
            life.snapshots.setdefault(name, life.content)

    @precondition(some(*STOPPED))
    @rule(pick=PICK, how=FAULTS, name=NAMES)
    def revert(self, pick: int, how: How, name: str) -> None:
        driver, life = self.driver, self.one(pick, *STOPPED)
        if not isinstance(driver, Snapshots):
            return
        if name not in life.snapshots:
            self.note(f"revert {life.spec.name} to {name}, which is not there")
            with raises(NotFound):
                self.do(driver.revert(life.spec.name, name))
            return
        self.change(f"revert {life.spec.name} to {name}", lambda: driver.revert(life.spec.name, name), True, how)
        life.content = life.snapshots[name] if self.rig.guests or self.rig.tools_see_snapshots else None

    @precondition(some(*STOPPED))
    @rule(pick=PICK, how=FAULTS, name=NAMES)
    def drop_snapshot(self, pick: int, how: How, name: str) -> None:
        driver, life = self.driver, self.one(pick, *STOPPED)
        if isinstance(driver, Snapshots):
            changed, what = name in life.snapshots, f"drop snapshot {name} of {life.spec.name}"
            life.snapshots.pop(name, None)
            self.change(what, lambda: driver.drop_snapshot(life.spec.name, name), changed, how)

    # what must hold after each step

    @invariant()
    def all_are_as_they_should_be(self) -> None:
        seen = {one.name: one for one in self.do(self.driver.instances())}
        for life in self.lives:
            one = seen.get(life.spec.name)
            assert one is not None, f"{life.spec.name} is not among all instances"
            said = (one.power, one.instance_id, one.memory_mib)
            wanted = (life.power, life.spec.id, life.spec.memory_mib)
            assert said == wanted, f"{life.spec.name} is {said}, not {wanted}"
        for spec in self.gone:
            assert spec.name not in seen, f"{spec.name} was undefined and is there"

    @invariant()
    def nothing_is_lost(self) -> None:
        for life in self.lives:
            if life.content is not None and self._seen_from(life) is not None:
                found = self.do(self._read(life))
                assert found == life.content, f"{life.spec.name} holds {found!r}, not {life.content!r}"
            if isinstance(self.driver, Snapshots):
                names = {one.name for one in self.do(self.driver.snapshots(life.spec.name))}
                assert names == set(life.snapshots), f"{life.spec.name} has snapshots {sorted(names)}"

    @invariant()
    def devices_keep_their_order(self) -> None:
        driver = self.driver
        if isinstance(driver, Adopts) and self.rig.effort.inside:
            for life in self.lives:
                found = [nic.mac for nic in self.do(driver.describe(life.spec.name)).nics]
                assert found == [nic.mac for nic in life.spec.nics], f"{life.spec.name} has NICs {found}"

    def teardown(self) -> None:
        """Take all away, and look for what is left."""
        for life in self.lives:
            self.do(_cleared(self.driver, life.spec.name))
            self.gone.append(life.spec)
        left_of = self.rig.left_of
        for spec in self.gone:
            left = self.do(left_of(spec)) if left_of is not None else []
            assert not left, f"{spec.name} was undefined and left {left}"

    # content

    def _disk(self, life: Life) -> DiskAttachment | None:
        if life.snapshots and not self.rig.tools_see_snapshots:
            return None
        root = life.spec.disks[0] if life.spec.disks else None
        return root if root is not None and root.kind == "file" and self.rig.tools is not None else None

    def _seen_from(self, life: Life) -> str | None:
        """Return from where its disk can be looked at now: inside, outside, or not at all."""
        if self.rig.guests and self.rig.effort.inside and life.power is PowerState.RUNNING:
            return "inside" if isinstance(self.driver, Executes) and life.spec.disks else None
        return "outside" if life.power is PowerState.STOPPED and self._disk(life) is not None else None

    async def _write(self, life: Life, text: str) -> None:
        disk = self._disk(life)
        if self._seen_from(life) == "inside":
            await inside.ready(self.rig, life.spec)
            await inside.write(self.rig, life.spec, inside.DISK, text)
        elif disk is not None and self.rig.tools is not None:
            await self.rig.tools.write(disk, text)

    async def _read(self, life: Life) -> str | None:
        disk = self._disk(life)
        if self._seen_from(life) == "inside":
            await inside.ready(self.rig, life.spec)
            return await inside.read(self.rig, life.spec, inside.DISK)
        return await self.rig.tools.read(disk) if disk is not None and self.rig.tools is not None else None


async def _cleared(driver: Any, name: str) -> None:
    await driver.stop(name, grace_s=0)
    await driver.undefine(name)
