"""Carry an operation on an instance through the steps of its verb, as the lifecycle table has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task

from control import hosts as host_rows
from control import instances
from control.instances import Deployable
from control.lifecycle import StepRule, rule
from control.operations import Operation
from core.errors import Unreachable
from core.states import InstanceState
from tasks.actions import ACTIONS, DEADLINES_S, LEFT_BEHIND, REREAD
from tasks.ledger import Also, Seen, load, run_step
from tasks.moves import owe
from tasks.retry import stage_may_retry
from tasks.runtime import Runtime, runtime
from tasks.settle import each
from tasks.work import Work, view_of

BATCHED = "place"  # done for all of a batch together, in tasks/place.py
STAGE: dict[str, Any] = {
    "retries": 1, "retry_delay_seconds": 2, "retry_condition_fn": stage_may_retry, "persist_result": False,
}  # fmt: skip


@task(name="deploy", task_run_name="deploy on {host}", **STAGE)
async def deploy(host: str, ids: Sequence[str]) -> list[str]:
    """Make a batch's instances on the host that they were placed on. None waits for another."""
    return await _all(host, ids)


@task(name="change", task_run_name="change on {host}", **STAGE)
async def change(host: str, ids: Sequence[str]) -> list[str]:
    """Carry a batch's instances on one host through all steps of their verbs."""
    return await _all(host, ids)


async def _all(host: str, ids: Sequence[str]) -> list[str]:
    """Carry every operation of a batch that may go on through its steps; return those that have come to their end."""
    rt = runtime()
    ops = await load(ids)
    views = await rt.store.read(lambda c: instances.deployables(c, [op.subject_id for op in ops]))
    return await each(host, ops, lambda op: carry_on(rt, op, views[op.subject_id]))


async def carry_on(rt: Runtime, op: Operation, view: Deployable) -> bool:
    """Run an operation's steps one after the other; False when one has failed for good."""
    steps = rule(op.verb).steps
    shown = view.state
    for sequence, step in enumerate(steps, 1):
        if step.name == BATCHED:
            continue
        state = step.during or rule(op.verb).during
        during = None if state is shown else state
        if not await _one(rt, op, view, sequence, step, during, last=sequence == len(steps)):
            return False
        shown = state or shown
        if step.name in REREAD and sequence < len(steps):
            view = await view_of(rt, op)
    return True


async def _one(
    rt: Runtime, op: Operation, view: Deployable, sequence: int, step: StepRule, during: InstanceState | None, *,
    last: bool,
) -> bool:  # fmt: skip
    work = Work(rt, op, view)
    host = view.other if step.on_target else view.host
    name = host.name if host else ""
    action = ACTIONS[step.name]

    async def act(_: Operation) -> Seen:
        try:
            return await action(work)
        except Unreachable as error:
            if not work.is_fenced or step.name not in LEFT_BEHIND.get(op.verb, ()):
                raise
            seen = error.to_dict()
            return Seen(False, {"owed": name}, lambda c: owe(c, work, name, seen))

    deadline_s = DEADLINES_S.get(step.name)
    if step.name in ("stop", "reboot"):
        deadline_s = work.grace_s + 60
    return await run_step(
        op, sequence, step.name, name, act, compensation=step.compensation, deadline_s=deadline_s,
        also=_well(rt, name) if last and name in rt.troubled else None, during=during, last=last,
    )  # fmt: skip


def _well(rt: Runtime, host: str) -> Also:
    """Return what forgets the failures of a host on which an operation went well."""

    def forget(c: Any, _: Seen) -> None:
        host_rows.note_well(c, host)
        rt.troubled.discard(host)

    return forget
