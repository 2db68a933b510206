"""The ledger with a world whose answers come late, twice, in another order or not at all, and two workers that may
both believe to hold a claim. More of it: scripts/chaos.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from core.errors import HostFault
from core.ids import on_host
from core.states import InstanceState, OperationState, PowerState, Verb
from drivers.fake_world import world
from tests.chaos import clock
from tests.chaos.scene import Kept, first_line, keep
from tests.chaos.two import Sight, Two
from tests.integration.line import without_prefect

S = InstanceState
NAMES = ("a", "b")
DATASTORES = {"a": "local", "b": "common"}
VERBS = (
    Verb.DEPLOY, Verb.START, Verb.SHUTDOWN, Verb.MIGRATE, Verb.UNDEPLOY, Verb.STOP, Verb.POWEROFF, Verb.DELETE,
)  # fmt: skip
HOSTS = ("f0", "f1", "f2")


class Ground:
    """A line that is made once, and a folder to make it anew in."""

    def __enter__(self) -> Ground:
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="two-")))
        self._stack.enter_context(without_prefect())
        self._stack.enter_context(clock.without_waiting())
        self.kept = clock.run(self._make(), within_s=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def _make(self) -> Kept:
        line = await first_line(self.folder / "first")
        specs = [{"name": name, "image": "vm", "cpu": 1, "memory": 256, **_on(name)} for name in NAMES]
        ended = await line.run(Verb.DEPLOY, {"instances": specs})
        assert {op.state for op in ended} == {OperationState.DONE}
        return await keep(line, self.folder / "kept")

    def two(self) -> Two:
        return Two.begin(self.kept, self.folder / "run")


def _on(name: str) -> dict[str, object]:
    return {"requirements": {"datastore": DATASTORES[name]}}


class World(RuleBasedStateMachine):
    """Two instances, three hosts, two workers. began, ended: interleavings, and operations that ended in them."""

    ground: Ground
    began = 0
    ended = 0
    sights = Bundle("sights")

    @initialize()
    def begin(self) -> None:
        World.began += 1
        self.two = self.ground.two()
        for name in NAMES:
            self.two.write(name)

    @rule(
        name=st.sampled_from(NAMES), verb=st.sampled_from(VERBS), live=st.booleans(), which=st.integers(0, 1),
        calls=st.integers(0, 60),
    )  # fmt: skip
    def ask(self, name: str, verb: Verb, live: bool, which: int, calls: int) -> None:
        """Ask for something; a worker sets out at once, and does that many calls undisturbed."""
        given = {"image": "vm", **_on(name)} if verb is Verb.DEPLOY else {}
        self.two.ask(verb, name, **({"live": live} if verb is Verb.MIGRATE else given))
        self.two.delays.extend([0.0] * calls + [5.0])
        self.two.start(which)
        self.two.go(1)

    @rule(which=st.integers(0, 1))
    def work(self, which: int) -> None:
        self.two.start(which)

    @rule(seconds=st.sampled_from([0.0, 0.001, 1.0, 70.0]))
    def go(self, seconds: float) -> None:
        self.two.go(seconds)

    @rule(which=st.integers(0, 1), renewed=st.booleans())
    def claim(self, which: int, renewed: bool) -> None:
        (self.two.renew if renewed else self.two.lapse)(which)

    @rule(delays=st.lists(st.sampled_from([0.001, 1.0, 30.0]), max_size=8))
    def delay(self, delays: list[float]) -> None:
        self.two.delays.extend(delays)

    @rule(count=st.integers(1, 3))
    def lose(self, count: int) -> None:
        self.two.lose_answers(count)

    @rule(host=st.sampled_from(HOSTS), gone=st.booleans())
    def net(self, host: str, gone: bool) -> None:
        (world.cut if gone else world.revive)(host)

    @rule(name=st.sampled_from(NAMES))
    def write(self, name: str) -> None:
        self.two.write(name)

    @rule(target=sights, host=st.sampled_from(HOSTS))
    def look(self, host: str) -> object:
        found = self.two.look(host)
        return multiple(*([found] if found else []))

    @rule(sight=sights)
    def tell(self, sight: Sight) -> None:
        self.two.tell(sight)

    @invariant()
    def no_harm(self) -> None:
        assert not hasattr(self, "two") or world.harm == []

    def teardown(self) -> None:
        """Whatever happened: everything comes to an end, nothing is left behind, nothing is lost."""
        if not hasattr(self, "two"):
            return
        try:
            assert self.two.settle_down() == {}
            World.ended += len(self.two.ended())
        finally:
            self.two.end()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with Ground() as found:
        yield found


def machine(ground: Ground) -> type[World]:
    return type("WorldHere", (World,), {"ground": ground})


def test_any_order_of_events(ground: Ground) -> None:
    run_state_machine_as_test(
        machine(ground),
        settings=settings(
            max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    assert World.ended > World.began, "next to nothing was done"


# what happened to others


@pytest.fixture
def two(ground: Ground) -> Iterator[Two]:
    """Two workers, and an instance a that runs and has written something."""
    found = ground.two()
    found.write("a")
    yield found
    found.end()


def _done(two: Two, verb: Verb, **parameters: object) -> None:
    op_id = two.ask(verb, "a", **parameters)
    assert op_id is not None
    two.start(0)
    two.finish()
    assert two.line.operations([op_id])[0].state is OperationState.DONE, two.line.operations([op_id])[0].error


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("broken", ["storage.carrier.write", "hypervisor.define", "hypervisor.migrate.switch"])
def test_a_migration_that_failed_and_one_back_keep_the_data(two: Two, live: bool, broken: str) -> None:
    """OpenNebula 7662: after a failed migration, recovered and done again, going back lost the disks."""
    home = two.line.instance("a")["host"]
    world.fail("*", broken, HostFault("the disk is read-only"), 3)
    two.ask(Verb.MIGRATE, "a", live=live)
    for _ in range(6):
        two.start(0)
        two.finish()
        two.go(70)
    world.faults.clear()
    if two.line.instance("a")["host"] == home:
        _done(two, Verb.MIGRATE, live=live)
    two.write("a")
    _done(two, Verb.MIGRATE, host=home, live=live)
    assert two.line.instance("a")["host"] == home
    assert two.settle_down() == {}


def test_a_stale_report_of_power_changes_nothing(two: Two) -> None:
    """CloudStack 14206: a report from before the start let the instance be taken for stopped, and its address go."""
    _done(two, Verb.SHUTDOWN, grace_s=0)
    host = two.line.instance("a")["host"]
    while_off = two.look(host)
    two.ask(Verb.START, "a")
    two.delays.extend([1.0] * 4)
    two.start(0)
    two.go(2)
    while_starting = two.look(host)
    assert two.line.instance("a")["state"] == S.STARTING
    assert while_off is not None
    assert while_starting is not None
    two.tell(while_off)
    two.finish()
    for late in (while_off, while_starting, while_off):
        two.tell(late)
    found = two.line.instance("a")
    assert found["state"] == S.RUNNING
    assert found["addresses"] == [found["addresses"][0]]
    assert two.settle_down() == {}


def test_two_workers_that_hold_the_same_claim(two: Two) -> None:
    """The first one hangs in a step, and its claim runs out; the second one ends it; the first one wakes up."""
    op_id = two.ask(Verb.MIGRATE, "a", live=False)
    assert op_id is not None
    world.hang("*", "storage.carrier.write")
    two.start(0)
    two.go(30)
    two.lapse(0)
    world.release("*", "storage.carrier.write")
    world.hang("*", "hypervisor.define")
    two.start(1)
    two.go(5)
    world.release("*", "hypervisor.define")
    two.finish()
    two.start(0)
    two.finish()
    assert two.line.operations([op_id])[0].state is OperationState.DONE
    assert two.settle_down() == {}


@pytest.mark.parametrize("verb", [Verb.SHUTDOWN, Verb.STOP, Verb.UNDEPLOY, Verb.MIGRATE, Verb.REBOOT, Verb.SUSPEND])
def test_a_retry_after_the_answer_was_lost_though_it_was_done(two: Two, verb: Verb) -> None:
    op_id = two.ask(verb, "a", **({"live": True} if verb is Verb.MIGRATE else {}))
    assert op_id is not None
    two.lose_answers(2)
    for _ in range(4):
        two.start(0)
        two.finish()
        two.go(70)
    assert two.line.operations([op_id])[0].state is OperationState.DONE
    assert two.settle_down() == {}


def test_the_world_is_looked_at_where_the_record_has_it(two: Two) -> None:
    found = two.line.instance("a")
    assert world.hosts[found["host"]].instances[on_host(found["id"])].power is PowerState.RUNNING
