"""The end of a batch: every operation is done, failed, undone or held, or waits for its next try. None stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefect import task

from control import drift, instances, operations
from control.instances import Deployable
from control.lifecycle import VERBS
from control.operations import Operation, Stale, Step
from core.errors import NeedsOperator, Permanent, RackflowError, Unreachable, from_dict
from core.states import InstanceState, OperationState, StepState, Verb
from tasks.instances import instance_id, undo_define, undo_start, undo_volumes
from tasks.retry import PLACES, is_hosts_fault, later
from tasks.runtime import Runtime, runtime

UNDO = {"stop": undo_start, "undefine": undo_define, "delete-volumes": undo_volumes}


class BatchFailed(RackflowError):
    """Some operations of a flow run failed; each one's reason stands in the ledger."""

    code = "batch-failed"


@dataclass(frozen=True)
class Case:
    """One operation at the end of its flow run, with its steps."""

    op: Operation
    steps: list[Step]

    @property
    def error(self) -> RackflowError | None:
        failed = [s for s in self.steps if s.state is StepState.FAILED and s.error]
        return from_dict(failed[-1].error or {}) if failed else None

    @property
    def is_whole(self) -> bool:
        """Say whether all that there is to do was done."""
        done = [s.name for s in self.steps if s.state is StepState.DONE]
        if self.op.verb not in VERBS:
            return bool(done) and len(done) == len(self.steps)
        if self.op.verb is Verb.DELETE:
            return "release" in done
        return all(rule.name in done for rule in VERBS[self.op.verb].steps)

    @property
    def failed_at(self) -> str:
        failed = [s.name for s in self.steps if s.state is StepState.FAILED]
        return failed[-1] if failed else ""


@task(name="settle", task_run_name="settle", persist_result=False)
async def settle(ids: Sequence[str]) -> None:
    """Bring every operation of a batch to its end. Raise BatchFailed when some failed for good."""
    rt = runtime()
    rows = await rt.store.read(lambda c: operations.get(c, ids))
    mine = [
        o
        for o in rows
        if o.claimed_by == rt.worker_id and o.state in (OperationState.RUNNING, OperationState.COMPENSATING)
    ]
    steps = await rt.store.read(lambda c: operations.steps_of(c, [o.id for o in mine]))
    try:
        ends = await asyncio.gather(*(_guarded(rt, Case(o, steps.get(o.id, []))) for o in mine))
    finally:
        rt.active.difference_update(ids)
    bad = [end for end in ends if end]
    if bad:
        raise BatchFailed(f"{len(bad)} of {len(ids)} operations failed: " + "; ".join(bad[:5]))


async def _guarded(rt: Runtime, case: Case) -> str:
    try:
        return await _settle(rt, case)
    except Stale:
        return ""  # another worker has it now
    except RackflowError as error:
        text = f"settling failed: {error}"
        await rt.store.write(lambda c: operations.postpone(c, case.op, text, later(case.op.attempts)))
        return ""


async def _settle(rt: Runtime, case: Case) -> str:
    """End one operation; return a line for the flow's failure, or nothing."""
    op, error = case.op, case.error
    if op.state is OperationState.COMPENSATING or op.cancel_requested:
        return await _undo_and_end(rt, case, error)
    if case.is_whole:
        await rt.store.write(lambda c: _finish(c, op, OperationState.DONE, None))
        return ""
    if error is None:  # cut off before a step could fail: go on soon
        await rt.store.write(
            lambda c: operations.postpone(c, op, "cut off; it goes on where it stopped", later(op.attempts))
        )
        return ""
    if op.verb is Verb.DEPLOY and case.failed_at != "place":
        return await _deploy_failed(rt, case, error)
    if isinstance(error, Permanent):
        return await _undo_and_end(rt, case, error)
    if isinstance(error, NeedsOperator):
        await rt.store.write(lambda c: _finish(c, op, OperationState.HELD, error))
        return f"{op.subject_name}: {error}"
    await rt.store.write(lambda c: operations.postpone(c, op, str(error), later(op.attempts)))
    return ""


async def _deploy_failed(rt: Runtime, case: Case, error: RackflowError) -> str:
    """A host's error sends the instance to another host, an error of its own ends it."""
    op = case.op
    avoid = list(op.parameters.get("avoid", []))
    if not is_hosts_fault(error) or len(avoid) + 1 >= PLACES:
        return await _undo_and_end(rt, case, error)
    if case.failed_at == "start" and isinstance(error, Unreachable):
        # It may be running there: nothing is decided before the host answers again.
        await rt.store.write(lambda c: operations.postpone(c, op, str(error), later(op.attempts)))
        return ""
    view = await _undo(rt, case)
    host = view.host.name if view.host else ""

    def elsewhere(c: Any) -> None:
        operations.set_parameters(c, op, {**op.parameters, "avoid": [*avoid, host], "avoid_error": error.to_dict()})
        instances.set_state(c, view.id, InstanceState.PENDING, epoch=op.epoch, reason=f"{host}: {error}"[:1000])
        operations.postpone(c, op, f"{host}: {error}; looking for another host", None)

    await rt.store.write(elsewhere)
    return ""


async def _undo_and_end(rt: Runtime, case: Case, error: RackflowError | None) -> str:
    """Undo what was done, in reverse order, then end the operation."""
    op = case.op
    if op.verb is Verb.DEPLOY:
        if op.state is not OperationState.COMPENSATING:
            await rt.store.write(lambda c: operations.compensating(c, op, error))
        await _undo(rt, case)
        state = OperationState.CANCELLED if op.cancel_requested else OperationState.COMPENSATED
    else:
        state = OperationState.CANCELLED if op.cancel_requested else OperationState.FAILED
    await rt.store.write(lambda c: _finish(c, op, state, error))
    return f"{op.subject_name}: {error or 'cancelled'}"


async def _undo(rt: Runtime, case: Case) -> Deployable:
    """Compensate an instance's steps in reverse order; what an unreachable host keeps is written down as residue."""
    op = case.op
    view = (await rt.store.read(lambda c: instances.deployables(c, [instance_id(op)])))[instance_id(op)]
    reachable = True
    begun = [s for s in reversed(case.steps) if s.state in (StepState.DONE, StepState.FAILED, StepState.RUNNING)]
    for step in begun:
        undo = UNDO.get(step.compensation)
        if undo is not None and view.host is not None and reachable:
            try:
                await undo(rt, view)
            except Unreachable as error:
                reachable = False
                seen = error.to_dict()
                name = view.host.name
                await rt.store.write(lambda c, n=name, s=seen: drift.open_(  # type: ignore[misc]
                    c, subject=op.subject, host=n, kind="residue", recorded={"on": None}, seen=s, policy="repair"
                ))  # fmt: skip
        sequence = step.sequence
        await rt.store.write(lambda c, n=sequence: operations.undo_step(c, op, n))  # type: ignore[misc]
    await rt.store.write(lambda c: instances.release(c, op, view.id))
    return view


def _finish(c: Any, op: Operation, state: OperationState, error: RackflowError | None) -> None:
    """End an operation and give its instance the state that the lifecycle table says."""
    rule = VERBS.get(op.verb)
    if rule is not None:
        if state is OperationState.DONE and op.verb is Verb.DELETE:
            instances.mark_deleted(c, op, instance_id(op))
        else:
            target = {OperationState.DONE: rule.done, OperationState.HELD: InstanceState.HELD}.get(state, rule.failed)
            instances.set_state(c, instance_id(op), target, epoch=op.epoch, reason=str(error or "")[:1000])
    operations.finish(c, op, state, error=error)
