"""What becomes of requests when all goes well, and when hosts, instances and people do not play along."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from control import hosts, operations
from control.operations import Stale
from core.errors import Busy, Conflict, HostFault, Invalid, Unreachable
from core.ids import on_host
from core.states import InstanceState, OperationState, PowerState, Verb
from drivers.fake_world import FOREVER, world
from tasks.runtime import set_runtime
from tests.integration.line import Line, left_on_hosts

DONE = OperationState.DONE


class GoneStore:
    """The store as a killed worker sees it."""

    async def write(self, change: object) -> None:
        raise asyncio.CancelledError

    read = write


def box(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "box", "cpu": 1, "memory": 512, **more}


async def test_a_batch_is_placed_created_and_started(line: Line) -> None:
    ended = await line.run(Verb.DEPLOY, {"instances": [box("web", count=12)]})
    assert [op.state for op in ended] == [DONE] * 12
    seen = [line.instance(f"web-{i}") for i in range(1, 13)]
    assert {i["state"] for i in seen} == {InstanceState.RUNNING}
    addresses = [i["addresses"][0] for i in seen]
    assert len(set(addresses)) == 12
    running = [i for h in world.hosts.values() for i in h.instances.values() if i.power is PowerState.RUNNING]
    assert len(running) == 12
    assert line.steps(ended[0].id) == [(name, "done") for name in ("place", "image", "volumes", "define", "start")]


async def test_vms_get_disks_and_a_seed(line: Line) -> None:
    vm = {"name": "db", "image": "vm", "memory": 512, "disks": [{"name": "data", "size": "1GiB"}]}
    (op,) = await line.run(Verb.DEPLOY, {"instances": [vm]})
    assert op.state is DONE
    instance = line.instance("db")
    store = world.hosts[instance["host"]].stores[line.settings.drivers.datastore_path]
    assert set(store.volumes[instance["id"]]) == {"root", "data"}
    assert "db" in store.seeds[instance["id"]].meta_data


async def test_stop_start_delete_leave_nothing(line: Line) -> None:
    await line.run(Verb.DEPLOY, {"instances": [box("a"), box("b")]})
    for verb, state in ((Verb.SHUTDOWN, InstanceState.OFF), (Verb.START, InstanceState.RUNNING)):
        ended = await line.run(verb, {"instances": ["a", "b"]})
        assert {op.state for op in ended} == {DONE}
        assert line.instance("a")["state"] == state
    ended = await line.run(Verb.DELETE, {"instances": ["a", "b"]})
    assert {op.state for op in ended} == {DONE}
    assert left_on_hosts() == []
    assert line.submit(Verb.DEPLOY, {"instances": [box("a")]})  # the name is free again


async def test_the_same_key_gives_the_first_answer(line: Line) -> None:
    body = {"instances": [box("once")]}
    assert line.submit(Verb.DEPLOY, body, key="k") == line.submit(Verb.DEPLOY, body, key="k")
    with pytest.raises(Conflict):
        line.submit(Verb.DEPLOY, {"instances": [box("twice")]}, key="k")


async def test_a_hosts_error_sends_the_instance_elsewhere(line: Line) -> None:
    line.submit(Verb.DEPLOY, {"instances": [box("first")]})
    await line.work()
    bad = line.instance("first")["host"]  # best fit would take it again
    world.fail(bad, "hypervisor.define", HostFault("the disk is read-only", f"host/{bad}"), FOREVER)
    (op,) = await line.run(Verb.DEPLOY, {"instances": [box("second")]})
    assert op.state is DONE
    assert line.instance("second")["host"] != bad
    assert len(left_on_hosts()) == 2


async def test_an_instances_own_error_ends_it_and_only_it(line: Line) -> None:
    world.fail("*", "hypervisor.define", Invalid("no such machine type"), 1)
    ended = await line.run(Verb.DEPLOY, {"instances": [box("many", count=20)]})
    states = sorted(op.state for op in ended)
    assert states == [OperationState.COMPENSATED] + [DONE] * 19
    (bad,) = [op for op in ended if op.state is not DONE]
    assert bad.error is not None
    assert bad.error["code"] == "invalid"
    assert line.instance(bad.subject_name)["state"] == InstanceState.FAILED
    assert len(left_on_hosts()) == 19


async def test_when_every_host_fails_the_reason_is_told(line: Line) -> None:
    world.fail("*", "hypervisor.define", HostFault("the datastore is full"), FOREVER)
    (op,) = await line.run(Verb.DEPLOY, {"instances": [box("poor")]})
    assert op.state is OperationState.COMPENSATED
    assert "the datastore is full" in line.instance("poor")["reason"]
    assert left_on_hosts() == []


async def test_what_an_unreachable_host_keeps_is_taken_away_later(line: Line) -> None:
    (first,) = line.submit(Verb.DEPLOY, {"instances": [{"name": "far", "image": "vm", "memory": 512}]})
    world.hang("*", "hypervisor.define")
    job = asyncio.create_task(line.work())
    while not line.instance("far")["host"] or not any(s[0] == "define" for s in line.steps(first)):
        await asyncio.sleep(0.01)
    bad = line.instance("far")["host"]
    world.cut(bad)
    world.release("*", "hypervisor.define")
    await job
    for _ in range(4):
        await line.work()
    assert line.instance("far")["state"] == InstanceState.RUNNING
    assert line.instance("far")["host"] != bad
    assert [row for row in left_on_hosts() if row.startswith(bad)]
    world.revive(bad)
    await line.run(Verb.RECONCILE, {"hosts": []})
    assert not [row for row in left_on_hosts() if row.startswith(bad)]
    assert line.instance("far")["state"] == InstanceState.RUNNING


@pytest.mark.parametrize(
    "verb", ["storage.ensure_volume", "storage.ensure_seed", "hypervisor.define", "hypervisor.start", "ensure_image"]
)
async def test_a_dead_workers_operation_is_finished_by_another(line: Line, verb: str) -> None:
    (op_id,) = line.submit(Verb.DEPLOY, {"instances": [{"name": "orphan", "image": "vm", "memory": 512}]})
    world.hang("*", verb)
    job = asyncio.create_task(line.work())
    before = world.calls.get(verb, 0)
    while not any(world.calls.get(k, 0) > before for k in (verb, f"storage.{verb}")):
        await asyncio.sleep(0.01)
    old = line.runtime
    old.store = GoneStore()  # type: ignore[assignment]  # kill -9: nothing is written after this
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    await line.store.write(lambda c: operations.renew_claim(c, old.worker_id, "test", -1))
    await old.pool.close()
    world.release("*", verb)
    line.runtime = line.another_worker()
    set_runtime(line.runtime)
    await line.store.write(lambda c: operations.renew_claim(c, line.runtime.worker_id, "test", 3600))
    for _ in range(3):
        await line.work()
    (op,) = line.operations([op_id])
    assert op.state is DONE, (op.reason, op.error)
    assert line.instance("orphan")["state"] == InstanceState.RUNNING
    assert len([row for row in left_on_hosts() if "instance" in row]) == 1


async def test_a_worker_that_was_replaced_writes_nothing(line: Line) -> None:
    (op_id,) = line.submit(Verb.DEPLOY, {"instances": [box("x")]})
    (old,) = await line.store.write(lambda c: operations.claim_pending(c, line.runtime.worker_id))
    await line.store.write(lambda c: operations.release(c, [op_id]))
    with pytest.raises(Stale):
        await line.store.write(lambda c: operations.begin_step(c, old, 1, "place"))


async def test_delete_while_deploying_undoes_and_then_deletes(line: Line) -> None:
    (op_id,) = line.submit(Verb.DEPLOY, {"instances": [box("short")]})
    world.hang("*", "hypervisor.define")
    job = asyncio.create_task(line.work())
    while not any(s[0] == "define" for s in line.steps(op_id)):
        await asyncio.sleep(0.01)
    (delete_id,) = line.submit(Verb.DELETE, {"instances": ["short"]})
    world.release("*", "hypervisor.define")
    await job
    await line.work()
    assert line.operations([op_id])[0].state is OperationState.CANCELLED
    assert line.operations([delete_id])[0].state is DONE
    assert left_on_hosts() == []


async def test_a_host_that_hangs_does_not_keep_the_others_waiting(line: Line) -> None:
    world.hang("f1", "hypervisor.define")
    ids = line.submit(Verb.DEPLOY, {"instances": [box(f"p{n}", requirements={"host": f"f{n}"}) for n in range(3)]})
    job = asyncio.create_task(line.work())
    while sum(op.state is DONE for op in line.operations(ids)) < 2:
        await asyncio.sleep(0.01)
    assert [line.instance(f"p{n}")["state"] for n in (0, 2)] == [InstanceState.RUNNING] * 2
    assert not job.done()
    world.release("f1", "hypervisor.define")
    await job
    assert line.instance("p1")["state"] == InstanceState.RUNNING


async def test_no_room_now_waits_with_the_reason_and_goes_on(line: Line) -> None:
    big = {"cpu": 1, "memory": "60GiB"}
    await line.run(Verb.DEPLOY, {"instances": [box(f"big-{i}", **big) for i in range(3)]})
    (op_id,) = line.submit(Verb.DEPLOY, {"instances": [box("late", **big)]})
    await line.work()
    (op,) = line.operations([op_id])
    assert op.state is OperationState.PENDING
    assert "memory" in op.reason
    await line.run(Verb.DELETE, {"instances": ["big-1"]})
    await line.work()
    assert line.operations([op_id])[0].state is DONE


async def test_what_could_never_fit_fails_at_once(line: Line) -> None:
    (op,) = await line.run(Verb.DEPLOY, {"instances": [box("giant", memory="900GiB")]})
    assert op.finished_at is not None
    assert op.error is not None
    assert op.error["code"] == "no-fit"
    assert line.instance("giant")["state"] == InstanceState.FAILED


async def test_an_instance_killed_behind_our_back_is_started_again(line: Line) -> None:
    await line.run(Verb.DEPLOY, {"instances": [box("tough")]})
    seen = line.instance("tough")
    world.kill(seen["host"], on_host(seen["id"]))
    await line.run(Verb.RECONCILE, {"hosts": []})
    await line.work()
    assert world.hosts[seen["host"]].instances[on_host(seen["id"])].power is PowerState.RUNNING
    assert line.instance("tough")["state"] == InstanceState.RUNNING


async def test_an_unreachable_host_is_marked_and_comes_back(line: Line) -> None:
    world.cut("f1")
    await line.run(Verb.RECONCILE, {"hosts": []})
    assert _host_states(line)["f1"] == "unreachable"
    world.revive("f1")
    await line.run(Verb.RECONCILE, {"hosts": []})
    assert _host_states(line)["f1"] == "ready"


async def test_a_stop_on_a_silent_host_waits_and_can_be_cancelled(line: Line) -> None:
    await line.run(Verb.DEPLOY, {"instances": [box("quiet")]})
    host = line.instance("quiet")["host"]
    world.fail(host, "hypervisor.stop", Unreachable("no answer", f"host/{host}"), FOREVER)
    (op_id,) = line.submit(Verb.SHUTDOWN, {"instances": ["quiet"], "grace_s": 0})
    await line.work()
    (op,) = line.operations([op_id])
    assert op.state is OperationState.PENDING
    assert "no answer" in op.reason
    await line.store.write(lambda c: operations.cancel(c, line.admin, op_id))
    await line.work()
    assert line.operations([op_id])[0].state is OperationState.CANCELLED


async def test_two_reconciles_do_not_overlap(line: Line) -> None:
    assert line.submit(Verb.RECONCILE, {"hosts": []}) == line.submit(Verb.RECONCILE, {"hosts": []})


async def test_the_lock_on_a_host_keeps_a_second_worker_out(line: Line) -> None:
    await line.run(Verb.DEPLOY, {"instances": [box("mine")]})
    host = line.instance("mine")["host"]
    other = line.another_worker()
    record = await line.store.read(lambda c: hosts.get(c, host))
    with pytest.raises(Busy, match="held by another rackflow worker"):
        await other.host(record)
    await other.pool.close()


def _host_states(line: Line) -> dict[str, str]:
    return {row.name: row.state.value for row in line.store.read_now(lambda c: hosts.records(c))}


async def test_an_undo_that_fails_is_tried_again_and_never_turns_into_a_deployment(line: Line) -> None:
    world.fail("*", "hypervisor.define", Invalid("no such machine type"), 1)
    world.fail("*", "storage.delete_volumes", HostFault("the file system is read-only"), 1)
    (op_id,) = line.submit(Verb.DEPLOY, {"instances": [{"name": "odd", "image": "vm", "memory": 512}]})
    await line.work()
    (op,) = line.operations([op_id])
    assert op.state is OperationState.COMPENSATING
    assert "read-only" in op.reason
    assert await line.work() == []
    await asyncio.sleep(2.1)  # its next try
    await line.work()
    assert line.operations([op_id])[0].state is OperationState.COMPENSATED
    assert left_on_hosts() == []


async def test_a_gang_waits_until_there_is_room_for_all_of_it(line: Line) -> None:
    """Three that must be apart, also from one that is on one of three hosts at first."""
    old = {**box("old"), "labels": {"app": "web"}, "requirements": {"host": "f2"}}
    line.submit(Verb.DEPLOY, {"instances": [old]})
    await line.work()
    asked = [box("web", count=3, gang=True), box("head", gang="web")]
    spread = {"anti_affinity": [{"labels": {"app": "web"}}], "labels": {"app": "web"}}
    ids = line.submit(Verb.DEPLOY, {"instances": [{**asked[0], **spread}, asked[1]]})
    await line.work()
    assert {op.state for op in line.operations(ids)} == {OperationState.PENDING}
    assert all(line.instance(name)["host"] is None for name in ("web-1", "web-2", "web-3", "head"))
    assert "1 of its 4 fit nowhere, so none is placed" in line.operations(ids)[0].reason
    line.submit(Verb.DELETE, {"instances": ["old"]})
    await line.work()
    await line.work()
    assert [op.state for op in line.operations(ids)] == [DONE] * 4
