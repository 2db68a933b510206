"""What is scheduled is asked for once; what is cancelled ends with the step under way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from control import operations, schedules, tables
from core.clock import now
from core.states import InstanceState, OperationState, Verb
from daemon import timetable
from drivers.fake_world import world
from tests.integration.line import Line, left_on_hosts

BOX = {"name": "web", "image": "vm", "kind": "vm", "cpu": 1, "memory": 512}


def make_due(line: Line, schedule_id: str) -> None:
    t = tables.schedule
    line.store.write_now(
        lambda c: c.execute(t.update().where(t.c.id == schedule_id).values(next_at=now() - timedelta(seconds=1)))
    )


async def test_a_schedule_is_run_once_and_again_in_its_rhythm(line: Line) -> None:
    await line.run(Verb.DEPLOY, {"instances": [BOX]})
    made = line.store.write_now(
        lambda c: schedules.create(c, line.admin, "web", Verb.SHUTDOWN, {"grace_s": 0}, every_s=3600)
    )
    assert await timetable.ask(line.store) == 0
    make_due(line, made["id"])
    assert await timetable.ask(line.store) == 1
    assert await timetable.ask(line.store) == 0
    await line.work()
    assert line.instance("web")["state"] == InstanceState.OFF
    make_due(line, made["id"])
    await timetable.ask(line.store)
    shown = line.store.read_now(lambda c: schedules.get(c, line.admin, made["id"]))
    assert shown["last"]["operations"]


async def test_a_refusal_is_written_down(line: Line) -> None:
    await line.run(Verb.DEPLOY, {"instances": [BOX]})
    made = line.store.write_now(
        lambda c: schedules.create(c, line.admin, "web", Verb.REBOOT, {}, at=now() + timedelta(hours=1))
    )
    await line.run(Verb.SHUTDOWN, {"instances": ["web"]})
    make_due(line, made["id"])
    await timetable.ask(line.store)
    shown = line.store.read_now(lambda c: schedules.get(c, line.admin, made["id"]))
    assert shown["last"]["error"]["code"] == "conflict"
    assert shown["next_at"] is None


async def test_one_relative_to_the_start_counts_from_there(line: Line) -> None:
    await line.run(Verb.DEPLOY, {"instances": [BOX]})
    made = line.store.write_now(
        lambda c: schedules.create(c, line.admin, "web", Verb.SHUTDOWN, {}, after_start_s=60)
    )
    assert made["next_at"] is None
    await line.run(Verb.SHUTDOWN, {"instances": ["web"]})
    await line.run(Verb.START, {"instances": ["web"]})
    assert line.store.read_now(lambda c: schedules.get(c, line.admin, made["id"]))["next_at"] is not None


async def test_a_cancel_ends_the_step_under_way(line: Line) -> None:
    """Without waiting for what hangs."""
    (op_id,) = line.submit(Verb.DEPLOY, {"instances": [BOX]})
    world.hang("*", "hypervisor.define")
    job = asyncio.create_task(line.work())
    while ("define", "running") not in line.steps(op_id):
        await asyncio.sleep(0.01)
    line.store.write_now(lambda c: operations.cancel(c, line.admin, op_id))
    await line.runtime.look_for_cancels()
    world.release("*", "hypervisor.undefine")
    await asyncio.wait_for(job, 5)
    (op,) = line.operations([op_id])
    assert op.state is OperationState.CANCELLED
    assert left_on_hosts() == []
    assert line.instance("web")["state"] == InstanceState.FAILED


async def test_a_cancel_that_comes_too_late_changes_nothing(line: Line) -> None:
    await line.run(Verb.DEPLOY, {"instances": [BOX]})
    (op_id,) = line.submit(Verb.UNDEPLOY, {"instances": ["web"]})
    world.hang("*", "storage.delete_volumes")
    job = asyncio.create_task(line.work())
    while ("clear", "running") not in line.steps(op_id):
        await asyncio.sleep(0.01)
    line.store.write_now(lambda c: operations.cancel(c, line.admin, op_id))
    await line.runtime.look_for_cancels()
    await asyncio.wait_for(job, 5)
    world.release("*", "storage.delete_volumes")
    line.store.write_now(
        lambda c: c.execute(tables.operation.update().where(tables.operation.c.id == op_id).values(not_before=None))
    )
    await line.work()
    assert line.operations([op_id])[0].state is OperationState.DONE
    assert line.instance("web")["state"] == InstanceState.UNDEPLOYED
