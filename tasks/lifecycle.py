"""Carry an operation on an instance through the steps of its verb, as the lifecycle table has them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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
from tasks.ledger import Also, Begun, Seen, load, run_step
from tasks.moves import owe
from tasks.retry import stage_may_retry
from tasks.runtime import Runtime, runtime
from tasks.settle import each
from tasks.step_writes import Begin
from tasks.work import Work, view_of

GROUPS, SHARED = 10, 4  # tasks in a flow run, each of which costs Prefect some 20 ms: one per host, or for more hosts
BATCHED = "place"  # done for all of a batch together, in tasks/place.py
STAGE: dict[str, Any] = {
    "retries": 1, "retry_delay_seconds": 2, "retry_condition_fn": stage_may_retry, "persist_result": False,
}  # fmt: skip


@task(name="deploy", task_run_name="deploy on {where}", **STAGE)
async def deploy(where: str, hosts: Mapping[str, Sequence[str]]) -> None:
    """Make a batch's instances on the hosts that they were placed on. None waits for another."""
    await _all(hosts)


@task(name="change", task_run_name="change on {where}", **STAGE)
async def change(where: str, hosts: Mapping[str, Sequence[str]]) -> None:
    """Carry a batch's instances on some hosts through all steps of their verbs."""
    await _all(hosts)


def groups(hosts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Sequence[str]]]:
    """Return what each task of a flow run is called and does, {host: operations}: one per host, or per some of many."""
    names = list(hosts)
    count = len(names) if len(names) <= GROUPS else SHARED
    found = {}
    for part in (names[first::count] for first in range(count)):
        where = part[0] + (f" and {len(part) - 1} more" if part[1:] else "")
        found[where] = {host: hosts[host] for host in part}
    return found


async def _all(hosts: Mapping[str, Sequence[str]]) -> None:
    """Carry every operation of a batch that may go on through its steps, on each host as many as it may have."""
    rt = runtime()
    of = {one: host for host, ids in hosts.items() for one in ids}
    ops = await load(list(of))
    views = await rt.store.read(lambda c: instances.deployables(c, [op.subject_id for op in ops]))
    ended = await asyncio.gather(
        *(each(host, [op for op in ops if of[op.id] == host], lambda op: carry_on(rt, op, views[op.subject_id]),
               rt.lanes(host)) for host in hosts),
        return_exceptions=True,
    )  # fmt: skip
    for error in ended:
        if isinstance(error, BaseException):
            raise error


async def carry_on(rt: Runtime, op: Operation, view: Deployable) -> bool:
    """Run an operation's steps one after the other; False when one has failed for good."""
    steps = {n: step for n, step in enumerate(rule(op.verb).steps, 1) if step.name != BATCHED}
    begun: Begun = {}
    shown = view.state
    for n, step in steps.items():
        begin, then = _begin(op, view, n, step, shown), steps.get(n + 1)
        shown = begin.during or shown
        reread = step.name in REREAD and then is not None
        following = _begin(op, view, n + 1, then, shown) if then and not reread else None
        if not await _one(Work(rt, op, view), step, begin, following, begun, last=n == max(steps)):
            return False
        if reread:
            view = await view_of(rt, op)
    return True


def _begin(op: Operation, view: Deployable, sequence: int, step: StepRule, shown: InstanceState) -> Begin:
    """Return how a step begins. shown: the state in which the instance is by then."""
    host = view.other if step.on_target else view.host
    state = step.during or rule(op.verb).during
    name = host.name if host else ""
    return Begin(op, sequence, step.name, name, step.compensation, None if state is shown else state)


async def _one(
    work: Work, step: StepRule, begin: Begin, following: Begin | None, begun: Begun, *, last: bool
) -> bool:  # fmt: skip
    rt, op, name = work.rt, work.op, begin.host
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
        op, begin.sequence, step.name, name, act, compensation=step.compensation, deadline_s=deadline_s,
        also=_well(rt, name) if last and name in rt.troubled else None, during=begin.during, last=last,
        following=following, begun=begun, bound=rt.slots(name) if name else None,
    )  # fmt: skip


def _well(rt: Runtime, host: str) -> Also:
    """Return what forgets the failures of a host on which an operation went well."""

    def forget(c: Any, _: Seen) -> None:
        host_rows.note_well(c, host)
        rt.troubled.discard(host)

    return forget
