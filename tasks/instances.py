"""Stages that make, start, stop and take away instances on one host."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from prefect import task

from control import instances as rows
from control.instances import Deployable
from control.operations import Operation
from core.ids import on_host
from core.states import InstanceState, OperationState, Verb
from drivers.hypervisor.base import DiskAttachment
from tasks import specs
from tasks.copies import keeper_of
from tasks.ledger import Action, Also, Seen, done, finish, load, run_step, sequence_of
from tasks.retry import stage_may_retry
from tasks.runtime import Runtime, runtime
from tasks.settle import each
from tasks.undo import connected, undo_define, undo_start, undo_volumes

STAGE: dict[str, Any] = {
    "retries": 1, "retry_delay_seconds": 2, "retry_condition_fn": stage_may_retry, "persist_result": False,
}  # fmt: skip
STOP_GRACE_S = 30.0


async def stage(
    host: str, ids: Sequence[str], work: Callable[[Runtime, Operation, Deployable], Coroutine[Any, Any, bool]]
) -> list[str]:
    """Run work for every operation of a batch that may go on; return those that may go on after it."""
    rt = runtime()
    ops = await load(ids)
    views = await rt.store.read(lambda c: rows.deployables(c, [op.subject_id for op in ops]))
    return await each(host, ops, lambda op: work(rt, op, views[op.subject_id]))


async def make_disks(rt: Runtime, view: Deployable) -> list[DiskAttachment]:
    """Ensure the disks of an instance: files in its datastore, or its hypervisor's own pool."""
    host = await connected(rt, view)
    if keeper_of(host, view.kind) is not None:
        return specs.pool_disks(view)
    assert view.datastore is not None
    storage = host.storage(view.datastore.path)
    disks = [await storage.ensure_volume(volume) for volume in specs.volumes(view)]
    nics = [await host.network.ensure_nic(specs.network(x), specs.nic(x)) for x in view.leases]
    return [*disks, await storage.ensure_seed(specs.seed(view, nics))]


@task(name="create", task_run_name="create on {host}", **STAGE)
async def create(host: str, ids: Sequence[str]) -> list[str]:
    """Make the disks of a batch of instances, then define them."""

    async def work(rt: Runtime, op: Operation, view: Deployable) -> bool:
        disks: list[DiskAttachment] = []

        async def volumes(_: Operation) -> Seen:
            disks[:] = await make_disks(rt, view)
            return Seen(True, {"disks": [disk.source for disk in disks]})

        async def define(_: Operation) -> Seen:
            drivers = await connected(rt, view)
            if not disks:  # the step before was done by a worker that has died since
                disks[:] = await make_disks(rt, view)
            nics = [await drivers.network.ensure_nic(specs.network(x), specs.nic(x)) for x in view.leases]
            return Seen(await drivers.hypervisor.define(specs.instance(view, disks, nics)), {"name": on_host(view.id)})

        return await step(op, Verb.DEPLOY, "volumes", host, volumes) and await step(
            op, Verb.DEPLOY, "define", host, define
        )

    return await stage(host, ids, work)


@task(name="start", task_run_name="start on {host}", **STAGE)
async def start_created(host: str, ids: Sequence[str]) -> list[str]:
    """Start the instances of a batch that were just created."""
    return await _start(Verb.DEPLOY, host, ids)


@task(name="start", task_run_name="start on {host}", **STAGE)
async def start_stopped(host: str, ids: Sequence[str]) -> list[str]:
    """Start stopped instances of a batch."""
    return await _start(Verb.START, host, ids)


async def _start(verb: Verb, host: str, ids: Sequence[str]) -> list[str]:
    async def work(rt: Runtime, op: Operation, view: Deployable) -> bool:
        async def start(_: Operation) -> Seen:
            await rt.store.write(lambda c: rows.set_state(c, view.id, InstanceState.STARTING, epoch=op.epoch))
            drivers = await connected(rt, view)
            return Seen(await drivers.hypervisor.start(on_host(view.id)))

        return await step(op, verb, "start", host, start, also=done(op))

    return await stage(host, ids, work)


@task(name="stop", task_run_name="stop on {host}", **STAGE)
async def shut_down(host: str, ids: Sequence[str]) -> list[str]:
    """Ask the guests to shut down, and cut the power after the grace time."""

    async def work(rt: Runtime, op: Operation, view: Deployable) -> bool:
        grace_s = float(op.parameters.get("grace_s", STOP_GRACE_S))

        async def stop(_: Operation) -> Seen:
            drivers = await connected(rt, view)
            return Seen(await drivers.hypervisor.stop(on_host(view.id), grace_s=grace_s), {"grace_s": grace_s})

        return await step(op, Verb.SHUTDOWN, "stop", host, stop, deadline_s=grace_s + 60, also=done(op))

    return await stage(host, ids, work)


@task(name="delete", task_run_name="delete on {host}", **STAGE)
async def delete(host: str, ids: Sequence[str]) -> list[str]:
    """Take instances away from their host: power, definition, disks, then addresses and reservation."""

    async def work(rt: Runtime, op: Operation, view: Deployable) -> bool:
        grace_s = float(op.parameters.get("grace_s", 0))

        async def stop(_: Operation) -> Seen:
            return Seen(await undo_start(rt, view, grace_s=grace_s))

        async def undefine(_: Operation) -> Seen:
            return Seen(await undo_define(rt, view))

        async def drop(_: Operation) -> Seen:
            return Seen(await undo_volumes(rt, view))

        async def release(_: Operation) -> Seen:
            return Seen(True)

        def free(c: Any, _: Seen) -> None:
            rows.release(c, op, view.id)
            finish(c, op, OperationState.DONE)

        await rt.store.write(lambda c: rows.set_state(c, view.id, InstanceState.DELETING, epoch=op.epoch))
        steps: tuple[tuple[str, Action], ...] = (("stop", stop), ("undefine", undefine), ("delete-volumes", drop))
        if view.host is not None:  # one that was never placed, or was undone, has nothing on any host
            for name, action in steps:
                if not await step(op, Verb.DELETE, name, host, action, deadline_s=grace_s + 60):
                    return False
        return await run_step(op, sequence_of(Verb.DELETE, "release"), "release", host, release, also=free)

    return await stage(host, ids, work)


async def step(
    op: Operation,
    verb: Verb,
    name: str,
    host: str,
    action: Action,
    *,
    deadline_s: float | None = None,
    also: Also | None = None,
) -> bool:
    """Run one of a verb's steps by its name in the lifecycle table."""
    undo = rows.step_rule(verb, name).compensation
    sequence = sequence_of(verb, name)
    return await run_step(op, sequence, name, host, action, compensation=undo, deadline_s=deadline_s, also=also)
