"""The end of a batch: every operation is done, failed, undone or held, or waits for its next try. None stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import task

from control import drift, instances, operations
from control.instances import Deployable
from control.lifecycle import VERBS
from control.operations import Operation, Stale, Step
from core.errors import NeedsOperator, Permanent, RackflowError, Unreachable, from_dict
from core.states import InstanceState, OperationState, StepState, Verb
from tasks.ledger import finish
from tasks.retry import GIVE_UP_AFTER, PLACES, is_hosts_fault, later
from tasks.runtime import Runtime, runtime
from tasks.undo import UNDO

OPEN = (OperationState.RUNNING, OperationState.COMPENSATING)
BAD = (OperationState.FAILED, OperationState.COMPENSATED, OperationState.HELD, OperationState.CANCELLED)


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
    """Bring what is left of a batch to its end. Raise BatchFailed when some of it failed for good."""
    rt = runtime()
    try:
        await settle_now(ids)
        rows = await rt.store.read(lambda c: operations.get(c, ids))
    finally:
        rt.active.difference_update(ids)
    bad = [f"{o.subject_name}: {o.error['message'] if o.error else o.state}" for o in rows if o.state in BAD]
    if bad:
        raise BatchFailed(f"{len(bad)} of {len(ids)} operations failed: " + "; ".join(bad[:5]))


async def settle_now(ids: Sequence[str]) -> None:
    """Bring those of some operations that this worker still holds to their end."""
    rt = runtime()
    rows = await rt.store.read(lambda c: operations.get(c, ids))
    mine = [o for o in rows if o.claimed_by == rt.worker_id and o.state in OPEN]
    steps = await rt.store.read(lambda c: operations.steps_of(c, [o.id for o in mine]))
    await asyncio.gather(*(_guarded(rt, Case(o, steps.get(o.id, []))) for o in mine))


async def each(host: str, ops: Sequence[Operation], work: Callable[[Operation], Awaitable[bool]]) -> list[str]:
    """Run work for every operation, as many at a time as the host may have; return the ids of those that may go on.

    One whose work failed is settled at once: it waits for nobody, and nobody for it.
    """
    slots = runtime().slots(host)

    async def one(op: Operation) -> bool:
        async with slots:
            went = await work(op)
            if not went:
                await settle_now([op.id])
            return went

    went = await asyncio.gather(*(one(op) for op in ops))
    return [op.id for op, ok in zip(ops, went, strict=True) if ok]


async def _guarded(rt: Runtime, case: Case) -> None:
    try:
        await _settle(rt, case)
    except Stale:
        return  # another worker has it now
    except RackflowError as error:
        text = f"settling failed: {error}"
        await rt.store.write(lambda c: operations.postpone(c, case.op, text, later(case.op.attempts)))


async def _settle(rt: Runtime, case: Case) -> None:
    """End one operation, or let it wait for its next try."""
    op, error = case.op, case.error
    if op.state is OperationState.COMPENSATING or op.cancel_requested:
        await _undo_and_end(rt, case, error)
    elif case.is_whole:
        await rt.store.write(lambda c: finish(c, op, OperationState.DONE))
    elif error is None:  # cut off before a step could fail: go on soon
        await _wait(rt, op, "cut off; it goes on where it stopped")
    elif op.verb is Verb.DEPLOY and case.failed_at != "place":
        await _deploy_failed(rt, case, error)
    elif isinstance(error, Permanent) or op.attempts >= GIVE_UP_AFTER.get(op.verb, op.attempts + 1):
        await _undo_and_end(rt, case, error)
    elif isinstance(error, NeedsOperator):
        await rt.store.write(lambda c: finish(c, op, OperationState.HELD, error))
    else:
        await _wait(rt, op, str(error))


async def _wait(rt: Runtime, op: Operation, reason: str) -> None:
    await rt.store.write(lambda c: operations.postpone(c, op, reason, later(op.attempts)))


async def _deploy_failed(rt: Runtime, case: Case, error: RackflowError) -> None:
    """A host's error sends the instance to another host, an error of its own ends it."""
    op = case.op
    avoid = list(op.parameters.get("avoid", []))
    if not is_hosts_fault(error) or len(avoid) + 1 >= PLACES:
        await _undo_and_end(rt, case, error)
        return
    if case.failed_at == "start" and isinstance(error, Unreachable):
        await _wait(rt, op, str(error))  # it may be running there: nothing is decided before the host answers again
        return
    view = await _undo(rt, case)
    host = view.host.name if view.host else ""

    def elsewhere(c: Any) -> None:
        operations.set_parameters(c, op, {**op.parameters, "avoid": [*avoid, host], "avoid_error": error.to_dict()})
        instances.set_state(c, view.id, InstanceState.PENDING, epoch=op.epoch, reason=f"{host}: {error}"[:1000])
        operations.postpone(c, op, f"{host}: {error}; looking for another host", None)

    await rt.store.write(elsewhere)


async def _undo_and_end(rt: Runtime, case: Case, error: RackflowError | None) -> None:
    """Undo what was done, in reverse order, then end the operation."""
    op = case.op
    reason = error or (from_dict(op.error) if op.error else None)
    state = OperationState.FAILED
    if op.verb is Verb.DEPLOY:
        state = OperationState.COMPENSATED
        if op.state is not OperationState.COMPENSATING:
            await rt.store.write(lambda c: operations.compensating(c, op, reason))
        await _undo(rt, case)
    end = OperationState.CANCELLED if op.cancel_requested else state
    await rt.store.write(lambda c: finish(c, op, end, reason))


async def _undo(rt: Runtime, case: Case) -> Deployable:
    """Compensate an instance's steps in reverse order; what an unreachable host keeps is written down as residue."""
    op = case.op
    view = (await rt.store.read(lambda c: instances.deployables(c, [op.subject_id])))[op.subject_id]
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
