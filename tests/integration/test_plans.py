"""Plans carried out on simulated hosts: in order, refused when the world has moved, stopped and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import tasks.balance
import tasks.rebalance
from blueprints.cluster import ClusterSpec
from blueprints.plan import PlanSpec
from control import clusters, hosts, operations, plans, rebalancing
from control.operations import Operation
from core.errors import Conflict
from core.states import HostState, OperationState, Verb
from drivers.fake_world import FOREVER, world
from tests.integration.line import Line
from tests.integration.pump import Pump, at_once, deploy, host_of, look, running

DONE = OperationState.DONE


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.rebalance, "LOOK_S", 0.05)


async def on_f0(line: Line, *names: str, **more: Any) -> None:
    """Deploy to f0, which is then no requirement any more."""
    for name in ("f1", "f2"):
        line.store.write_now(lambda c, n=name: hosts.disable(c, line.admin, n))  # type: ignore[misc]
    await deploy(line, *names, **more)
    for name in ("f1", "f2"):
        line.store.write_now(lambda c, n=name: hosts.enable(c, line.admin, n))  # type: ignore[misc]


def make(line: Line, kind: str, **more: Any) -> str:
    """Make a plan and return its id."""
    spec = PlanSpec.model_validate({"kind": kind, **more})
    values = rebalancing.made(spec, line.store.read_now(lambda c: rebalancing.look(c, spec)), {})
    return line.store.write_now(lambda c: plans.write(c, line.admin, values))


def apply(line: Line, plan_id: str, **parameters: Any) -> str:
    (one,) = line.submit(Verb.APPLY_PLAN, {"plans": [plan_id], **parameters})
    return one


def show(line: Line, plan_id: str) -> dict[str, Any]:
    return line.store.read_now(lambda c: plans.show(c, line.admin, plan_id))


def moves(line: Line) -> list[Operation]:
    rows = line.store.read_now(lambda c: operations.list_(c, line.admin))
    return line.operations([row["id"] for row in rows if row["verb"].startswith("migrate")])


def whole(line: Line, names: list[str]) -> None:
    """See that each runs once, where the record has it, with its disk."""
    for name in names:
        found = line.instance(name)
        assert world.read_disk(found["id"], "root") == name
        assert running(found["id"]) == [found["host"]]
    assert world.harm == []


NAMES = ["a", "b", "c", "d", "e", "f"]


async def test_a_rebalancing_evens_the_hosts_and_tells_how_far_it_is(line: Line, pump: Pump) -> None:
    await on_f0(line, *NAMES, cpu=2)
    plan_id = make(line, "rebalance", threshold=0.0)
    ready = show(line, plan_id)
    assert (ready["state"], ready["method"], ready["optimal"]) == ("ready", "exact", True)
    assert [move["state"] for move in ready["moves"]] == ["waiting"] * 4
    assert ready["effect"]["before"]["hosts_used"] == 1
    assert ready["eta_s"] >= max(move["expected_s"] for move in ready["moves"]) > 0
    (op,) = await pump.until([apply(line, plan_id)])
    assert op.state is DONE, op.error
    done = show(line, plan_id)
    assert (done["state"], {move["state"] for move in done["moves"]}) == ("done", {"done"})
    assert all(move["took_s"] > 0 for move in done["moves"])
    assert [m.verb for m in moves(line)] == [Verb.MIGRATE_LIVE] * 4
    assert sorted(line.instance(name)["host"] for name in NAMES) == ["f0", "f0", "f1", "f1", "f2", "f2"]
    whole(line, NAMES)
    with pytest.raises(Conflict, match="applied already"):
        apply(line, plan_id)
    assert show(line, make(line, "rebalance"))["moves"] == []


async def test_wishes_that_are_broken_are_mended(line: Line, pump: Pump) -> None:
    apart = {"labels": {"role": "web"}, "anti_affinity": [{"labels": {"role": "web"}, "hard": False}]}
    near = {"labels": {"role": "cache"}, "affinity": [{"labels": {"role": "db"}, "hard": False}]}
    await on_f0(line, "a", "b", "c", **apart)
    await on_f0(line, "cache", **near)
    await deploy(line, "db", labels={"role": "db"}, requirements={"where": 'name == "f1"'})
    plan_id = make(line, "rebalance", threshold=1.0)
    effect = show(line, plan_id)["effect"]
    assert sorted(one["instance"] for one in effect["before"]["broken_wishes"]) == ["a", "b", "c", "cache"]
    assert effect["before"]["broken_wishes"][0]["rule"] == "apart from role=web by host"
    assert effect["after"]["broken_wishes"] == []
    (op,) = await pump.until([apply(line, plan_id)])
    assert op.state is DONE, op.error
    assert sorted(line.instance(name)["host"] for name in ("a", "b", "c")) == ["f0", "f1", "f2"]
    assert line.instance("cache")["host"] == line.instance("db")["host"]
    whole(line, ["a", "b", "c", "cache", "db"])
    assert show(line, make(line, "rebalance", threshold=1.0))["moves"] == []


async def test_a_consolidation_empties_hosts(line: Line, pump: Pump) -> None:
    for n, name in enumerate(NAMES[:3]):
        await deploy(line, name, requirements={"where": f'name == "f{n}" or cpus > 0'}, cpu=2)
    await on_f0(line, "off")
    await line.run(Verb.SHUTDOWN, {"instances": ["off"], "grace_s": 0})
    spread = make(line, "rebalance", threshold=0.0)
    await pump.until([apply(line, spread)])
    plan_id = make(line, "consolidate")
    effect = show(line, plan_id)["effect"]
    (op,) = await pump.until([apply(line, plan_id)])
    assert op.state is DONE, op.error
    assert effect["after"]["hosts_used"] == 1
    assert [name for name in ("f0", "f1", "f2") if not world.hosts[name].instances] == effect["after"]["empty_hosts"]
    whole(line, NAMES[:3])


async def test_a_host_is_emptied_and_takes_no_more(line: Line, pump: Pump) -> None:
    await on_f0(line, "a", "b")
    await on_f0(line, "paused")
    await line.run(Verb.SUSPEND, {"instances": ["paused"]})
    plan_id = make(line, "evacuate", host="f0")
    assert show(line, plan_id)["stays"].keys() == {"paused"}
    assert host_of(line, "f0").state is HostState.READY
    one = apply(line, plan_id)
    assert host_of(line, "f0").state is HostState.DRAINING
    assert (await pump.until([one]))[0].state is DONE
    assert {line.instance(name)["host"] for name in ("a", "b")} & {"f0"} == set()
    whole(line, ["a", "b"])


async def resized(line: Line) -> None:
    await line.run(Verb.RESIZE, {"instances": ["a"], "cpu": 3})


async def deleted(line: Line) -> None:
    await line.run(Verb.DELETE, {"instances": ["a"]})


async def moved(line: Line) -> None:
    await line.run(Verb.MIGRATE, {"instances": ["a"], "host": "f2"})


async def shut_down(line: Line) -> None:
    await line.run(Verb.SHUTDOWN, {"instances": ["a"], "grace_s": 0})


async def disabled(line: Line) -> None:
    line.store.write_now(lambda c: hosts.disable(c, line.admin, "f1"))


async def filled(line: Line) -> None:
    for host in ("f1", "f2"):
        await deploy(line, f"filler-{host}", memory=64_000, cpu=1, requirements={"host": host})


@pytest.mark.parametrize(("change", "said"), [
    (resized, "a: cpu was 2.0, is 3.0"), (deleted, "instance a is gone"), (moved, "a: host was f0, is f2"),
    (shut_down, "a: state was running, is off"), (disabled, "host f1: state was ready, is disabled"),
    (filled, "does not take instance"),
])  # fmt: skip
async def test_it_is_refused_when_the_world_has_moved(line: Line, change: Callable[[Line], Any], said: str) -> None:
    await on_f0(line, *NAMES, cpu=2, memory=2048)
    plan_id = make(line, "rebalance", threshold=0.0)
    if change is not disabled and change is not filled:  # whichever is moved
        names = [move["instance"] for move in show(line, plan_id)["moves"]]
        if "a" not in names:
            pytest.fail(f"a is not among {names}")
    await change(line)
    with pytest.raises(Conflict, match="out of date") as caught:
        apply(line, plan_id)
    assert said in str(caught.value)
    assert "rackflow plan rebalance" in str(caught.value.fix)
    assert show(line, plan_id)["state"] == "ready"
    assert len(moves(line)) == (1 if change is moved else 0)


async def test_who_came_to_a_host_that_was_to_be_empty_is_seen(line: Line) -> None:
    await on_f0(line, "a")
    plan_id = make(line, "evacuate", host="f0")
    await on_f0(line, "late")
    with pytest.raises(Conflict, match="late came to host f0"):
        apply(line, plan_id)


@pytest.mark.parametrize("after", [0, 20, 45])
async def test_a_killed_worker_changes_nothing_about_it(line: Line, pump: Pump, after: int) -> None:
    await on_f0(line, *NAMES, cpu=2)
    plan_id = make(line, "rebalance", threshold=0.0)
    one = apply(line, plan_id, parallel=1)
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
    planned = [move["instance"] for move in show(line, plan_id)["moves"]]
    assert [m.subject_name for m in moves(line)] == planned, "each was asked for once"
    whole(line, NAMES)


async def test_a_host_that_dies_in_the_middle_stops_it(line: Line, pump: Pump) -> None:
    await on_f0(line, *NAMES, cpu=2)
    plan_id = make(line, "rebalance", threshold=0.0)
    targets = [move["to"] for move in show(line, plan_id)["moves"]]
    world.hang("f0", "hypervisor.migrate")
    one = apply(line, plan_id, parallel=1)
    while not moves(line):
        await pump.round()
    at_once(line)
    world.cut("f2" if targets[0] == "f1" else "f1")  # the one that later moves go to
    await pump.until(line.submit(Verb.RECONCILE, {"hosts": []}))
    (op,) = await pump.until([one])
    assert op.state is OperationState.FAILED
    assert op.error is not None
    assert "is unreachable" in op.error["message"]
    assert op.error["evidence"]["not_begun"] == 3
    world.release("f0", "hypervisor.migrate")
    await pump.rest()
    shown = show(line, plan_id)
    assert (shown["state"], [move["state"] for move in shown["moves"]]) == ("stopped", ["done", *["waiting"] * 3])
    for name in ("f1", "f2"):
        world.revive(name)
    await look(line)
    again = make(line, "rebalance", threshold=0.0)
    (op,) = await pump.until([apply(line, again)])
    assert op.state is DONE, op.error
    whole(line, NAMES)


async def test_a_move_that_fails_stops_it_with_the_reason(line: Line, pump: Pump) -> None:
    await on_f0(line, *NAMES, cpu=2)
    plan_id = make(line, "rebalance", threshold=0.0)
    world.fail("f0", "hypervisor.migrate", Conflict("the guest is odd", "instance/a"), FOREVER)
    (op,) = await pump.until([apply(line, plan_id, parallel=1)])
    assert op.state is OperationState.FAILED
    assert "stopped after 0 of 4 moves" in str(op.error)
    assert "the guest is odd" in str(op.error)
    assert len(moves(line)) == 1
    whole(line, NAMES)


async def test_a_move_for_which_room_went_meanwhile_waits_for_a_while_only(
    line: Line, pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.rebalance, "PATIENCE", timedelta(seconds=0.2))
    await on_f0(line, *NAMES, cpu=2, memory=2048)
    plan_id = make(line, "rebalance", threshold=0.0)
    one = apply(line, plan_id, parallel=1)
    fillers = [
        {"name": f"filler-{h}", "image": "vm", "kind": "vm", "memory": 64_000, "requirements": {"host": h}}
        for h in ("f1", "f2")
    ]
    await pump.until(line.submit(Verb.DEPLOY, {"instances": fillers}))
    (op,) = await pump.until([one])
    assert op.state is OperationState.FAILED
    assert "waits for too long" in str(op.error)
    await pump.rest()
    assert [m.state for m in moves(line)] == [OperationState.CANCELLED]
    whole(line, NAMES)


async def test_a_cancel_begins_no_more(line: Line, pump: Pump) -> None:
    await on_f0(line, *NAMES, cpu=2)
    plan_id = make(line, "rebalance", threshold=0.0)
    world.hang("f0", "hypervisor.migrate")
    one = apply(line, plan_id, parallel=1)
    while not moves(line):
        await pump.round()
    with pytest.raises(Conflict, match="is being carried out"):
        apply(line, make(line, "consolidate"))
    line.store.write_now(lambda c: operations.cancel(c, line.admin, one))
    await line.runtime.look_for_cancels()
    world.release("f0", "hypervisor.migrate")
    (op,) = await pump.until([one])
    await pump.rest()
    assert (op.state, show(line, plan_id)["state"]) == (OperationState.CANCELLED, "cancelled")
    assert [m.state for m in moves(line)] == [DONE]


async def test_what_cannot_be_moved_is_told_and_not_planned(line: Line) -> None:
    await on_f0(line, "a", "b", cpu=4)
    await on_f0(line, "paused", cpu=4)
    await on_f0(line, "pinned", cpu=4, requirements={"host": "f0"})
    await line.run(Verb.SUSPEND, {"instances": ["paused"]})
    shown = show(line, make(line, "rebalance", threshold=0.0))
    assert {move["instance"] for move in shown["moves"]} == {"a", "b"}
    assert "suspended" in shown["stays"]["paused"]


async def test_a_plan_that_is_cancelled_is_not_applied(line: Line) -> None:
    await on_f0(line, "a", "b")
    plan_id = make(line, "evacuate", host="f0")
    line.store.write_now(lambda c: plans.cancel(c, line.admin, plan_id))
    with pytest.raises(Conflict, match="cancelled already"):
        apply(line, plan_id)
    assert [row["state"] for row in line.store.read_now(lambda c: plans.list_(c, line.admin))] == ["cancelled"]


def automatic(line: Line, **limits: Any) -> None:
    spec = ClusterSpec.model_validate({"name": "default", "rebalance": {"mode": "automatic", **limits}})
    line.store.write_now(lambda c: clusters.ensure(c, line.admin, spec))


def by_itself(line: Line) -> list[dict[str, Any]]:
    return line.store.read_now(lambda c: plans.list_(c, line.admin))


async def test_a_cluster_moves_by_itself_within_its_limits_and_stops(
    line: Line, pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.balance, "EVERY_S", 0.0)
    await on_f0(line, *NAMES, cpu=2)
    await look(line)
    assert by_itself(line) == [], "by hand only, as long as nobody says otherwise"
    automatic(line, threshold=0.0, max_moves_per_hour=3)
    for _ in range(3):
        await pump.until(line.submit(Verb.RECONCILE, {"hosts": []}))
        await pump.rest()
    (one,) = by_itself(line)
    assert (one["state"], one["moves_planned"], one["asked_by"]) == ("done", 3, "reconciler")
    assert len(moves(line)) == 3, "no move is left for this hour"
    monkeypatch.setattr(tasks.balance, "HOUR", timedelta(0))
    for _ in range(3):
        await pump.until(line.submit(Verb.RECONCILE, {"hosts": []}))
        await pump.rest()
    assert [row["moves_planned"] for row in by_itself(line)] == [1, 3], "nothing more is worth a move"
    assert sorted(line.instance(name)["host"] for name in NAMES) == ["f0", "f0", "f1", "f1", "f2", "f2"]
    whole(line, NAMES)


async def test_a_cluster_is_not_planned_for_at_every_look(line: Line, pump: Pump) -> None:
    await on_f0(line, *NAMES, cpu=2)
    automatic(line, threshold=0.0, max_moves_per_hour=1)
    await pump.until(line.submit(Verb.RECONCILE, {"hosts": []}))
    await pump.rest()
    automatic(line, threshold=0.0)
    await pump.until(line.submit(Verb.RECONCILE, {"hosts": []}))
    await pump.rest()
    assert len(moves(line)) == 1


async def test_what_a_cluster_had_begun_is_stopped_by_hand(line: Line, pump: Pump) -> None:
    await on_f0(line, *NAMES, cpu=2)
    automatic(line, threshold=0.0)
    world.hang("f0", "hypervisor.migrate")
    await pump.until(line.submit(Verb.RECONCILE, {"hosts": []}))
    while not moves(line):
        await pump.round()
    (one,) = by_itself(line)
    line.store.write_now(lambda c: operations.cancel(c, line.admin, one["operation"]))
    await line.runtime.look_for_cancels()
    world.release("f0", "hypervisor.migrate")
    await pump.rest()
    assert by_itself(line)[0]["state"] == "cancelled"
    whole(line, NAMES)
