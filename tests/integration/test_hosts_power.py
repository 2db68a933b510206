"""Hosts that are put to sleep and woken: by hand, by a policy, for what waits; and whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

import tasks.host_power
import tasks.watch
from blueprints.cluster import ClusterSpec
from control import clusters, hosts, operations, tables
from control.operations import Operation
from core.clock import now, rfc3339
from core.errors import Conflict, HostFault, Unsupported
from core.ids import on_host
from core.states import HostState, InstanceState, MachinePower, OperationState, Verb
from drivers.baremetal.fake import FakeBmc
from drivers.fake_things import FakeInstance
from drivers.fake_world import FOREVER, world
from tasks.power_saving import keep_power
from tasks.retry import GIVE_UP_AFTER
from tests.integration.line import Line
from tests.integration.pump import Pump, at_once, deploy, fence_quickly, host_of, look, running, with_bmcs, with_san

DONE = OperationState.DONE


@pytest.fixture(autouse=True)
async def quick(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    fence_quickly(monkeypatch)
    for name, seconds in (("APART_S", 0.01), ("LOOK_S", 0.02), ("BOOT_S", 0.3), ("ANSWER_S", 2.0)):
        monkeypatch.setattr(tasks.host_power, name, seconds)
    await with_bmcs(line)
    at_once(line)


async def sleep(line: Line, host: str = "f2") -> Operation:
    (op,) = await line.run(Verb.SLEEP, {"hosts": [host]})
    return op


async def wake(line: Line, host: str = "f2") -> Operation:
    (op,) = await line.run(Verb.WAKE, {"hosts": [host]})
    return op


def state(line: Line, host: str = "f2") -> HostState:
    return host_of(line, host).state


def due(line: Line) -> None:
    """Let what waits for its next try be tried now."""
    t = tables.operation
    line.store.write_now(lambda c: c.execute(sa.update(t).where(t.c.state == "pending").values(not_before=None)))


def asked(line: Line, verb: Verb) -> list[Operation]:
    rows = line.store.read_now(lambda c: operations.list_(c, line.admin))
    return line.operations([row["id"] for row in rows if row["verb"] == verb])


async def test_a_host_is_switched_off_and_on_again(line: Line) -> None:
    op = await sleep(line)
    assert (op.state, op.error, state(line), world.hosts["f2"].powered) == (DONE, None, HostState.ASLEEP, False)
    await look(line, 3)
    found = host_of(line, "f2")
    assert (found.state, found.error) == (HostState.ASLEEP, None), "its silence is no news"
    assert asked(line, Verb.FENCE) == []
    op = await wake(line)
    assert (op.state, op.error, state(line), world.hosts["f2"].powered) == (DONE, None, HostState.READY, True)
    power = host_of(line, "f2").power or {}
    assert (power["cycles"], power["slept_s"] > 0, power["asleep_since"]) == (1, True, None)


async def test_what_holds_anything_stays_on(line: Line) -> None:
    (web,) = await deploy(line, "web")
    await line.run(Verb.POWEROFF, {"instances": ["web"]})
    assert line.instance("web")["state"] == InstanceState.OFF
    with pytest.raises(Conflict, match="holds 1 instances"):
        line.submit(Verb.SLEEP, {"hosts": [web["host"]]})
    assert state(line, web["host"]) is HostState.READY


async def test_a_guest_that_the_record_does_not_know_keeps_it_on(line: Line) -> None:
    (web,) = await deploy(line, "web", requirements={"host": "f1"})
    there = world.hosts["f1"].instances[on_host(web["id"])]
    assert isinstance(there, FakeInstance)
    world.hosts["f2"].instances["stranger"] = there
    op = await sleep(line)
    assert op.state is OperationState.FAILED
    assert "that the record does not have there" in str(op.error)
    assert (state(line), world.hosts["f2"].powered) == (HostState.READY, True)


async def test_a_host_without_a_bmc_stays_on(line: Line) -> None:
    t = tables.host
    line.store.write_now(lambda c: c.execute(sa.update(t).where(t.c.name == "f2").values(spec={})))
    with pytest.raises(Unsupported, match="no BMC"):
        line.submit(Verb.SLEEP, {"hosts": ["f2"]})


async def test_nothing_is_placed_on_it_and_nobody_decides_about_it(line: Line, pump: Pump) -> None:
    before = host_of(line, "f2").version
    ids = line.submit(Verb.SLEEP, {"hosts": ["f2"]})
    assert host_of(line, "f2").version > before, "who is placing something there at this moment has lost it"
    assert state(line) is HostState.FALLING_ASLEEP
    assert line.submit(Verb.SLEEP, {"hosts": ["f2"]}) == ids, "what is under way is the answer"
    with pytest.raises(Conflict, match="is busy"):
        line.submit(Verb.WAKE, {"hosts": ["f2"]})
    for decide in (hosts.enable, hosts.disable, hosts.maintain):
        with pytest.raises(Conflict, match="falling-asleep"):
            line.store.write_now(lambda c, d=decide: d(c, line.admin, "f2"))  # type: ignore[misc]
    placed = await deploy(line, "a", "b", "c", "d")
    assert "f2" not in {one["host"] for one in placed}
    await pump.until(ids)
    assert state(line) is HostState.ASLEEP


async def test_what_waits_for_room_wakes_as_many_as_it_needs(line: Line, pump: Pump) -> None:
    for name in ("f1", "f2"):
        await sleep(line, name)
    big = [{"name": f"big{n}", "image": "vm", "kind": "vm", "cpu": 1, "memory": "40GiB"} for n in range(2)]
    world.hang("*", "baremetal.set_power")
    ids = line.submit(Verb.DEPLOY, {"instances": big})
    while not any(op.state is OperationState.PENDING and op.reason for op in line.operations(ids)):
        await pump.round()
    world.release("*", "baremetal.set_power")
    (woken,) = asked(line, Verb.WAKE)
    assert (woken.asked_by, woken.parameters["reason"]) == ("reconciler", "instances wait for room")
    waits = [op for op in line.operations(ids) if op.state is OperationState.PENDING]
    assert [f"waiting for host {woken.subject_name} to wake" in op.reason for op in waits] == [True]
    assert {op.state for op in await pump.until(ids)} == {DONE}
    assert {line.instance(f"big{n}")["host"] for n in range(2)} == {"f0", woken.subject_name}
    assert len(asked(line, Verb.WAKE)) == 1


async def with_one_asleep(line: Line, **more: Any) -> tuple[dict[str, Any], str]:
    """Deploy `web`, close one of the other hosts, put the third to sleep; return the instance and that host."""
    (web,) = await deploy(line, "web", **more)
    closed, asleep = sorted({"f0", "f1", "f2"} - {web["host"]})
    line.store.write_now(lambda c: hosts.disable(c, line.admin, closed))
    await sleep(line, asleep)
    return web, asleep


async def test_what_leaves_its_host_wakes_another_where_nothing_else_has_room(line: Line, pump: Pump) -> None:
    web, asleep = await with_one_asleep(line)
    (op,) = await pump.until(line.submit(Verb.EVACUATE, {"hosts": [web["host"]], "then": "maintenance"}))
    assert (op.state, op.error) == (DONE, None)
    (woken,) = asked(line, Verb.WAKE)
    assert (woken.state, woken.subject_name, woken.parameters["reason"]) == (DONE, asleep, "web waits for room")
    assert (line.instance("web")["host"], world.read_disk(web["id"], "root")) == (asleep, "web")


async def test_what_a_dead_host_had_wakes_another(line: Line, pump: Pump) -> None:
    await with_san(line)
    web, asleep = await with_one_asleep(line, requirements={"datastore": "san"})
    world.crash(web["host"])
    await look(line, 2)
    async with asyncio.timeout(30):
        while line.instance("web")["host"] != asleep:
            await pump.round()
            due(line)
    await pump.rest()
    assert [op.subject_name for op in asked(line, Verb.WAKE)] == [asleep]
    assert (line.instance("web")["state"], running(web["id"])) == (InstanceState.RUNNING, [asleep])
    assert world.harm == []


@pytest.mark.parametrize("lost", [False, True], ids=["wakes", "does-not"])
async def test_a_migration_waits_for_the_host_that_it_woke(line: Line, pump: Pump, lost: bool) -> None:
    web, asleep = await with_one_asleep(line)
    world.hang("*", "baremetal.set_power")
    ids = line.submit(Verb.MIGRATE, {"instances": ["web"], "live": False})
    op = line.operations(ids)[0]
    while op.attempts <= GIVE_UP_AFTER[Verb.MIGRATE] or op.state is not OperationState.PENDING:
        due(line)
        await pump.round()
        op = line.operations(ids)[0]
    assert line.instance("web")["host"] == web["host"]
    assert f"waiting for host {asleep} to wake" in str(op.reason)
    if lost:
        world.hosts[asleep].connected = False
    world.release("*", "baremetal.set_power")
    while not (op := line.operations(ids)[0]).finished_at:
        await pump.round()
        due(line)
    if lost:
        assert (op.state, line.instance("web")["host"]) == (OperationState.COMPENSATED, web["host"])
        assert "'reason': 'is faulty'" in str(op.error)
    else:
        assert (op.state, line.instance("web")["host"]) == (DONE, asleep)


async def test_what_could_never_fit_wakes_nobody(line: Line) -> None:
    await sleep(line)
    huge = {"name": "huge", "image": "vm", "kind": "vm", "cpu": 1, "memory": "4TiB"}
    (op,) = await line.run(Verb.DEPLOY, {"instances": [huge]})
    assert op.error is not None
    assert op.error["code"] == "no-fit"
    assert asked(line, Verb.WAKE) == []


@pytest.mark.parametrize(("verb", "call"), [
    (Verb.SLEEP, "hypervisor.instances"), (Verb.SLEEP, "baremetal.power"), (Verb.SLEEP, "baremetal.set_power"),
    (Verb.WAKE, "baremetal.set_power"), (Verb.WAKE, "hypervisor.capacity"),
])  # fmt: skip
async def test_a_worker_killed_on_the_way_changes_nothing(line: Line, pump: Pump, verb: Verb, call: str) -> None:
    if verb is Verb.WAKE:
        await sleep(line)
    world.hang("f2", call)
    before = world.calls.get(call, 0)
    ids = line.submit(verb, {"hosts": ["f2"]})
    while world.calls.get(call, 0) == before:
        await pump.round()
    await pump.kill()
    world.release("f2", call)
    assert [op.state for op in await pump.until(ids)] == [DONE]
    awake = verb is Verb.WAKE
    assert (state(line), world.hosts["f2"].powered) == (HostState.READY if awake else HostState.ASLEEP, awake)


async def test_one_that_does_not_wake_says_so_and_is_not_fenced(line: Line) -> None:
    await sleep(line)
    world.hosts["f2"].connected = False
    op = await wake(line)
    assert op.state is OperationState.HELD
    await look(line, 3)
    found = host_of(line, "f2")
    assert found.state is HostState.FAULTY
    assert "could not be woken" in str(found.error)
    assert (found.error or {})["fix"].endswith("rackflow host wake f2")
    assert asked(line, Verb.FENCE) == []
    world.hosts["f2"].connected = True
    assert ((await wake(line)).state, state(line)) == (DONE, HostState.READY)


async def test_a_bmc_that_does_not_obey(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    async def on(self: FakeBmc) -> MachinePower:
        return MachinePower.ON

    monkeypatch.setattr(FakeBmc, "power", on)
    op = await sleep(line)
    assert op.state is OperationState.HELD
    assert state(line) is HostState.FAULTY
    assert "could not be switched off" in str(host_of(line, "f2").error)


async def test_an_operating_system_that_does_not_shut_down_is_cut_off(line: Line) -> None:
    world.fail("f2", "baremetal.set_power", HostFault("it stays on", "host/f2"), 1)
    op = await sleep(line)
    assert (op.state, state(line)) == (DONE, HostState.ASLEEP)
    steps = line.store.read_now(lambda c: operations.steps_of(c, [op.id]))[op.id]
    assert (steps[-1].evidence or {})["how"] == "cut off"


async def test_a_host_that_somebody_switched_on_comes_back(line: Line, pump: Pump) -> None:
    await sleep(line)
    world.boot("f2")
    await look(line)
    (op,) = asked(line, Verb.WAKE)
    assert op.parameters["reason"] == "somebody has switched it on"
    await pump.rest()
    assert state(line) is HostState.READY


async def test_a_bmc_that_does_not_answer_changes_nothing_about_one_that_sleeps(line: Line) -> None:
    await sleep(line)
    world.fail("f2", "baremetal.power", HostFault("odd", "host/f2"), FOREVER)
    await look(line)
    assert (state(line), asked(line, Verb.WAKE)) == (HostState.ASLEEP, [])


# the policy


class Forecast:
    """What the history's owner would say."""

    def __init__(self, high_mib: float, *, proven: bool = True) -> None:
        self.rows = [
            {"cluster": "default", "resource": "memory_mib", "tomorrow_high": high_mib, "proven": proven}
        ]  # fmt: skip

    def outlook(self) -> list[dict[str, Any]]:
        return self.rows


def policy(line: Line, **values: Any) -> None:
    """Let the cluster save power; all hosts have been idle for an hour."""
    spec = ClusterSpec.model_validate({"name": "default", "power": {"mode": "automatic", **values}})
    line.store.write_now(lambda c: clusters.ensure(c, line.admin, spec))
    ago = rfc3339(now() - timedelta(hours=2))
    line.store.write_now(lambda c: c.execute(sa.update(tables.host).values(power={"idle_since": ago})))


async def test_nothing_happens_by_itself_by_default(line: Line) -> None:
    await look(line)
    assert await keep_power() == {Verb.SLEEP: [], Verb.WAKE: []}
    assert host_of(line, "f0").power is None


async def test_idle_hosts_fall_asleep_but_those_that_are_to_stay_on(line: Line, pump: Pump) -> None:
    policy(line, min_awake=1)
    assert await keep_power() == {Verb.SLEEP: ["f0", "f1"], Verb.WAKE: []}
    assert await keep_power() == {Verb.SLEEP: [], Verb.WAKE: []}, "they are on their way"
    await pump.rest()
    assert [state(line, name) for name in ("f0", "f1", "f2")] == [
        HostState.ASLEEP, HostState.ASLEEP, HostState.READY
    ]  # fmt: skip


async def test_what_was_idle_for_a_moment_only_stays_on(line: Line) -> None:
    policy(line, min_awake=1)
    line.store.write_now(lambda c: c.execute(sa.update(tables.host).values(power=None)))
    assert (await keep_power())[Verb.SLEEP] == []
    assert (host_of(line, "f0").power or {})["idle_since"]


async def test_a_forecast_keeps_hosts_on_and_wakes_them_once_it_is_proven(line: Line, pump: Pump) -> None:
    policy(line, min_awake=1, spare_hosts=0, headroom=0)
    line.runtime.analytics = Forecast(2 * 65536, proven=False)  # type: ignore[assignment]
    assert (await keep_power())[Verb.SLEEP] == ["f0", "f1"]
    await pump.rest()
    line.runtime.analytics = Forecast(2 * 65536)  # type: ignore[assignment]
    assert await keep_power() == {Verb.SLEEP: [], Verb.WAKE: ["f0"]}
    await pump.rest()
    assert state(line, "f0") is HostState.READY
    assert await keep_power() == {Verb.SLEEP: [], Verb.WAKE: []}
