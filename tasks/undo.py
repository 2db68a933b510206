"""Take back what an operation did: its steps' compensations in reverse order, unless there is no way back any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from control import drift, operations
from control.instances import Deployable
from control.lifecycle import NoReturn, rule, step_rule
from control.operations import Operation, Step
from core.errors import HostFault, RackflowError, Unreachable
from core.states import HostState, StepState
from tasks.actions import ACTIONS, DEADLINES_S, MENDS_DISKS, ONE_WAY, OWED, PROBES
from tasks.ledger import Seen
from tasks.runtime import Runtime
from tasks.work import Work, view_of

BEGUN = (StepState.DONE, StepState.FAILED, StepState.RUNNING)


async def no_way_back(rt: Runtime, op: Operation, steps: Sequence[Step]) -> bool:
    """Say whether an operation can only go forward. Raise Unreachable when that cannot be known now."""
    by_name = {step.name: step for step in steps if step.state in BEGUN}
    for known in rule(op.verb).steps:
        step = by_name.get(known.name)
        if step is None:
            continue
        if known.name in ONE_WAY and await ONE_WAY[known.name](Work(rt, op, await view_of(rt, op))):
            return True
        if known.no_return is None:
            continue
        if known.no_return is NoReturn.BEGUN or step.state is StepState.DONE:
            return True
        if known.name in PROBES and await PROBES[known.name](Work(rt, op, await view_of(rt, op))):
            return True
    return False


async def was_done(rt: Runtime, op: Operation, step: Step) -> bool:
    """Say whether a step that seemed to fail was done all the same, as the world shows. Raise Unreachable."""
    return step.name in PROBES and await PROBES[step.name](Work(rt, op, await view_of(rt, op)))


async def undo(rt: Runtime, op: Operation, steps: Sequence[Step]) -> None:
    """Compensate steps in reverse order; what a host that does not answer keeps is written down as owed to it."""
    silent: set[str] = set()
    for step in sorted(steps, key=lambda step: -step.sequence):
        if step.state not in BEGUN:
            continue
        view = await view_of(rt, op)
        seen = await _undo_one(rt, op, step, view, silent) if step.compensation else Seen(False)
        await rt.store.write(lambda c, s=step, done=seen: _write(c, op, s, done))  # type: ignore[misc]


def _write(c: Any, op: Operation, step: Step, done: Seen) -> None:
    if done.write is not None:
        done.write(c)
    operations.undo_step(c, op, step.sequence)


async def _undo_one(rt: Runtime, op: Operation, step: Step, view: Deployable, silent: set[str]) -> Seen:
    on_target = step_rule(op.verb, step.name)[1].on_target
    record = view.other if on_target else view.host
    host = record.name if record else ""
    if step.compensation in OWED and (record is None or host in silent):
        return Seen(False)
    try:
        return await _in_time(step.compensation, host, Work(rt, op, view))
    except Unreachable as error:
        if step.compensation not in OWED:
            if record is None or record.state is not HostState.FENCED:
                raise
            if step.compensation in MENDS_DISKS:
                raise HostFault(
                    f"{host} is fenced, with disks that are half restored", op.subject, error.to_dict(),
                    f"power it on, then: rackflow operation retry {op.id}",
                ) from error
            return Seen(False)  # it has lost its power: its instances are failed over, or held, as the record says
        silent.add(host)
        seen = error.to_dict()
        return Seen(False, None, lambda c: drift.open_(
            c, subject=op.subject, host=host, kind=drift.RESIDUE, recorded={"on": None}, seen=seen, policy="repair"
        ))  # fmt: skip


async def _in_time(name: str, host: str, w: Work) -> Seen:
    """Run a compensation. Raise Unreachable past its deadline: an undo that hangs would hold its instance for ever."""
    limit_s = DEADLINES_S.get(name) or w.grace_s + w.rt.settings.worker.step_deadline_s
    try:
        async with asyncio.timeout(limit_s):
            return await ACTIONS[name](w)
    except TimeoutError as error:
        raise Unreachable(f"undoing by {name} took longer than {limit_s:.0f} s", f"host/{host}") from error
    except RackflowError:
        raise
    except Exception as error:  # a defect of ours must not leave it half undone without a word
        raise HostFault(f"undoing by {name} broke: {type(error).__name__}: {error}", f"host/{host}") from error
