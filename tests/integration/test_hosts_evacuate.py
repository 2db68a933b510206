"""Emptying a host: all of it leaves, a few at a time, whoever dies on the way; what cannot is told with the reason."""

from __future__ import annotations

from typing import Any

import pytest

import tasks.evacuate
from control import hosts, operations, recovery
from control.operations import Operation
from core.errors import Conflict
from core.ids import on_host
from core.states import HostState, InstanceState, OperationState, Verb
from drivers.fake_world import FOREVER, world
from tests.integration.line import Line
from tests.integration.pump import Pump, deploy, host_of, look, running

DONE = OperationState.DONE


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.evacuate, "LOOK_S", 0.05)


def evacuate(line: Line, host: str = "f0", **parameters: Any) -> str:
    (one,) = line.submit(Verb.EVACUATE, {"hosts": [host], **parameters})
    return one


def evidence(line: Line, op_id: str, step: str) -> dict[str, Any]:
    steps = line.store.read_now(lambda c: operations.steps_of(c, [op_id]))[op_id]
    return next(s.evidence or {} for s in steps if s.name == step)


def moves(line: Line) -> list[Operation]:
    rows = line.store.read_now(lambda c: operations.list_(c, line.admin))
    return line.operations([row["id"] for row in rows if row["verb"].startswith("migrate")])


def kept(names: list[str], line: Line) -> None:
    """See that each runs once, elsewhere, with its disk."""
    for name in names:
        found = line.instance(name)
        assert found["host"] != "f0"
        assert world.read_disk(found["id"], "root") == name
        if found["state"] == InstanceState.RUNNING:
            assert running(found["id"]) == [found["host"]]
    assert world.harm == []


async def on_f0(line: Line, *names: str, **more: Any) -> list[dict[str, Any]]:
    """Deploy to f0, which is then no requirement any more."""
    for name in ("f1", "f2"):
        line.store.write_now(lambda c, n=name: hosts.disable(c, line.admin, n))  # type: ignore[misc]
    found = await deploy(line, *names, **more)
    for name in ("f1", "f2"):
        line.store.write_now(lambda c, n=name: hosts.enable(c, line.admin, n))  # type: ignore[misc]
    assert {one["host"] for one in found} <= {"f0"}
    return found


async def test_all_leave_a_host_and_it_is_in_maintenance_then(line: Line, pump: Pump) -> None:
    names = ["a", "b", "c", "d"]
    await on_f0(line, *names)
    await line.run(Verb.SHUTDOWN, {"instances": ["d"], "grace_s": 0})
    one = evacuate(line, then="maintenance")
    (op,) = await pump.until([one])
    assert op.state is DONE, (op.error, line.steps(one))
    assert line.steps(one) == [("drain", "done"), ("preflight", "done"), ("move", "done")]
    assert host_of(line, "f0").state is HostState.MAINTENANCE
    assert list(world.hosts["f0"].instances) == []
    assert [(m.subject_name, m.verb, m.state, m.asked_by) for m in moves(line)] == [
        *((name, Verb.MIGRATE_LIVE, DONE, "admin") for name in "abc"), ("d", Verb.MIGRATE, DONE, "admin"),
    ]  # fmt: skip
    kept(names, line)
    assert [line.instance(name)["state"] for name in names] == [*["running"] * 3, "off"]
    seen = evidence(line, one, "preflight")
    assert (seen["instances"], seen["cannot"]) == (4, {})
    assert {name: how["live"] for name, how in seen["can"].items()} == {"a": True, "b": True, "c": True, "d": False}
    assert line.store.write_now(lambda c: hosts.enable(c, line.admin, "f0"))


async def test_only_a_few_go_at_a_time_smallest_first(line: Line, pump: Pump) -> None:
    await on_f0(line, "big", memory=4096)
    await on_f0(line, "a", "b", "c")
    world.hang("f0", "hypervisor.migrate")
    one = evacuate(line, parallel=2)
    for _ in range(20):
        await pump.round()
    assert sorted(m.subject_name for m in moves(line)) == ["a", "b"]
    assert evidence(line, one, "move") == {"left": 4, "moved": 0, "moving": ["a", "b"], "cannot": {}}
    world.release("f0", "hypervisor.migrate")
    (op,) = await pump.until([one])
    assert op.state is DONE
    assert moves(line)[-1].subject_name == "big"
    kept(["a", "b", "c", "big"], line)
    assert host_of(line, "f0").state is HostState.DRAINING


@pytest.mark.parametrize("after", range(0, 60, 12))
async def test_a_killed_worker_changes_nothing_about_it(line: Line, pump: Pump, after: int) -> None:
    names = ["a", "b", "c"]
    await on_f0(line, *names)
    one = evacuate(line, parallel=1)
    seen = 0

    def count(host: str, verb: str, phase: str) -> None:
        nonlocal seen
        seen += 1

    world.on_call = count
    while seen <= after:
        await pump.round()
    await pump.kill()
    (op,) = await pump.until([one])
    assert op.state is DONE, (op.error, op.reason)
    kept(names, line)
    assert [m.subject_name for m in moves(line)] == names, "each was asked for once"


async def test_what_cannot_leave_is_told_and_goes_with_a_retry(line: Line, pump: Pump) -> None:
    await on_f0(line, "pinned", requirements={"host": "f0"})
    await on_f0(line, "paused", "free")
    await line.run(Verb.SUSPEND, {"instances": ["paused"]})
    one = evacuate(line)
    (op,) = await pump.until([one])
    assert op.state is OperationState.HELD
    assert op.error is not None
    cannot = op.error["evidence"]["cannot"]
    assert set(cannot) == {"pinned", "paused"}
    assert "suspended" in cannot["paused"]
    assert evidence(line, one, "preflight")["cannot"].keys() == cannot.keys()
    kept(["free"], line)
    await line.run(Verb.RESUME, {"instances": ["paused"]})
    await line.run(Verb.DELETE, {"instances": ["pinned"]})
    line.store.write_now(lambda c: recovery.retry(c, line.admin, one))
    (op,) = await pump.until([one])
    assert op.state is DONE, op.error
    kept(["free", "paused"], line)


async def test_what_has_no_room_goes_when_room_came_free(line: Line, pump: Pump) -> None:
    await on_f0(line, "big", memory=40_000)
    await on_f0(line, "small")
    for host in ("f1", "f2"):
        await deploy(line, f"filler-{host}", memory=40_000, requirements={"host": host})
    world.hang("f0", "hypervisor.migrate")
    one = evacuate(line)
    for _ in range(10):
        await pump.round()
    assert [m.subject_name for m in moves(line)] == ["small"]
    assert "no host has room for big now" in evidence(line, one, "move")["cannot"]["big"]
    await line.run(Verb.DELETE, {"instances": ["filler-f1"]})
    world.release("f0", "hypervisor.migrate")
    (op,) = await pump.until([one])
    assert op.state is DONE, op.error
    kept(["small", "big"], line)


async def test_what_somebody_was_changing_is_looked_at_anew(line: Line, pump: Pump) -> None:
    await on_f0(line, "paused", "free")
    await line.run(Verb.SUSPEND, {"instances": ["paused"]})
    world.hang("f0", "hypervisor.migrate")
    one = evacuate(line)
    for _ in range(10):
        await pump.round()
    assert "suspended" in evidence(line, one, "move")["cannot"]["paused"]
    (resume,) = line.submit(Verb.RESUME, {"instances": ["paused"]})
    await pump.until([resume])
    world.release("f0", "hypervisor.migrate")
    (op,) = await pump.until([one])
    assert op.state is DONE, op.error
    kept(["free", "paused"], line)


async def test_what_is_bound_to_its_host_while_it_runs_goes_cold(line: Line, pump: Pump) -> None:
    (bound,) = await on_f0(line, "bound")
    world.hosts["f0"].instances[on_host(bound["id"])].bound = ("a device of the host",)
    one = evacuate(line, live=True)
    (op,) = await pump.until([one])
    assert op.error is not None
    assert op.error["evidence"]["cannot"] == {"bound": "it cannot be moved live: a device of the host"}
    (op,) = await pump.until([evacuate(line)])
    assert op.state is DONE, op.error
    assert [m.verb for m in moves(line)] == [Verb.MIGRATE]
    kept(["bound"], line)


async def test_a_migration_that_fails_is_told(line: Line, pump: Pump) -> None:
    await on_f0(line, "a", "b")
    world.fail("f0", "hypervisor.migrate", Conflict("the guest is odd", "instance/a"), FOREVER)
    (op,) = await pump.until([evacuate(line)])
    assert op.state is OperationState.HELD
    assert op.error is not None
    assert "the guest is odd" in op.error["evidence"]["cannot"]["a"]
    assert {line.instance(n)["state"] for n in ("a", "b")} == {InstanceState.RUNNING}
    assert world.harm == []


async def test_a_cancel_starts_no_more(line: Line, pump: Pump) -> None:
    await on_f0(line, "a", "b", "c")
    world.hang("f0", "hypervisor.migrate")
    one = evacuate(line, parallel=1)
    while not moves(line):
        await pump.round()
    line.store.write_now(lambda c: operations.cancel(c, line.admin, one))
    await line.runtime.look_for_cancels()
    world.release("f0", "hypervisor.migrate")
    (op,) = await pump.until([one])
    assert op.state is OperationState.CANCELLED
    await pump.rest()
    assert [(m.subject_name, m.state) for m in moves(line)] == [("a", DONE)]
    assert host_of(line, "f0").state is HostState.DRAINING


async def test_enabling_the_host_ends_it(line: Line, pump: Pump) -> None:
    await on_f0(line, "a", "b", "c")
    world.hang("f0", "hypervisor.migrate")
    one = evacuate(line, parallel=1)
    while not moves(line):
        await pump.round()
    line.store.write_now(lambda c: hosts.enable(c, line.admin, "f0"))
    (op,) = await pump.until([one])
    assert op.state is OperationState.FAILED
    assert "meanwhile" in str(op.error)
    world.release("f0", "hypervisor.migrate")
    await pump.rest()
    assert len(moves(line)) == 1


async def test_it_keeps_no_other_operation_waiting(line: Line, pump: Pump) -> None:
    await on_f0(line, "a")
    world.hang("f0", "hypervisor.migrate")
    one = evacuate(line)
    while not moves(line):
        await pump.round()
    (other,) = line.submit(Verb.DEPLOY, {"instances": [{"name": "new", "image": "box", "memory": 128}]})
    (op,) = await pump.until([other])
    assert op.state is DONE
    assert line.instance("new")["host"] != "f0"
    world.release("f0", "hypervisor.migrate")
    assert (await pump.until([one]))[0].state is DONE


async def test_in_maintenance_nothing_is_repaired_and_nothing_alarms(line: Line) -> None:
    (one,) = await on_f0(line, "a")
    line.store.write_now(lambda c: hosts.maintain(c, line.admin, "f0"))
    world.kill("f0", on_host(one["id"]))
    await look(line)
    assert (line.instance("a")["state"], await line.work()) == (InstanceState.RUNNING, [])
    world.cut("f0")
    await look(line, 2)
    record = host_of(line, "f0")
    assert (record.state, record.error) == (HostState.MAINTENANCE, None)
    assert line.instance("a")["reason"] in ("", None)
    world.revive("f0")
    line.store.write_now(lambda c: hosts.enable(c, line.admin, "f0"))
    await look(line)
    await line.work()
    assert running(one["id"]) == ["f0"]
