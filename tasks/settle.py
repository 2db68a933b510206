"""The end of a batch: every operation is done, failed, undone or held, or waits for its next try. None stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prefect import task

from control import hosts, instances, machine_stages, operations, recovery
from control.lifecycle import VERBS
from control.operations import Operation, Stale, Step
from control.placing_asleep import woken_by
from core.errors import HostFault, NeedsOperator, Permanent, RackflowError, Retryable, Unreachable, from_dict
from core.states import InstanceState, OperationState, StepState, Verb
from tasks import adoption, machine_power
from tasks.actions import LEFT_BEHIND, MENDS_DISKS
from tasks.ledger import finish, is_mine, leave
from tasks.power import state_now
from tasks.retry import GIVE_UP_AFTER, PLACES, is_hosts_fault, later
from tasks.runtime import Runtime, runtime
from tasks.undo import BEGUN, no_way_back, undo, was_done
from tasks.work import Work, view_of

OPEN = (OperationState.RUNNING, OperationState.COMPENSATING)
BAD = (OperationState.FAILED, OperationState.COMPENSATED, OperationState.HELD, OperationState.CANCELLED)
LAST = {  # the step with which it is whole; a sweep has as many steps as there are hosts
    Verb.ENROLL: "observe", Verb.RETIRE: "retire", Verb.EVACUATE: "move", Verb.FENCE: "fail-over", Verb.ADOPT: "mark",
    Verb.APPLY_PLAN: "move", Verb.SLEEP: "power-off", Verb.WAKE: "answer",
}  # fmt: skip
UNDO: dict[Verb, Callable[[Runtime, Operation], Awaitable[None]]] = {  # not of an instance
    Verb.ADOPT: adoption.undo, Verb.ENROLL_MACHINE: machine_power.as_found,
}  # fmt: skip
POWER = (Verb.START, Verb.SHUTDOWN, Verb.POWEROFF, Verb.REBOOT, Verb.SUSPEND, Verb.RESUME)
CHOOSING = {"place", "reserve"}  # steps that look for a host: what fails later may go better elsewhere
SETTLE_RUNS = 5  # an undo that fails for what does not pass is tried that often: a disk may be full for a while only
MAY_RUN = {"start", "restore", "start-again"}  # after these it may run on its host, whatever was heard of it


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
        if self.op.verb in LAST:
            return LAST[self.op.verb] in done
        if self.op.verb is Verb.ENROLL_MACHINE:
            return machine_stages.is_whole(self.op.parameters, done)
        if self.op.verb not in VERBS:
            return bool(done) and len(done) == len(self.steps)
        return all(rule.name in done for rule in VERBS[self.op.verb].steps)

    @property
    def failed(self) -> Step | None:
        """Return the step that failed last."""
        failed = [s for s in self.steps if s.state is StepState.FAILED]
        return failed[-1] if failed else None

    @property
    def chose(self) -> bool:
        """Say whether it was placed, or was given a target, by us and might as well go elsewhere."""
        return not self.op.parameters.get("host") and any(
            s.name in CHOOSING and s.state is StepState.DONE for s in self.steps
        )


@task(name="settle", task_run_name="settle", persist_result=False)
async def settle(ids: Sequence[str]) -> None:
    """Bring what is left of a batch to its end. Raise BatchFailed when some of it failed for good."""
    rt = runtime()
    try:
        await settle_now(ids)
        rows = await rt.store.read(lambda c: operations.get(c, ids))
    finally:
        leave(rt, ids)
    bad = [f"{o.subject_name}: {o.error['message'] if o.error else o.state}" for o in rows if o.state in BAD]
    if bad:
        raise BatchFailed(f"{len(bad)} of {len(ids)} operations failed: " + "; ".join(bad[:5]))


async def settle_now(ids: Sequence[str]) -> None:
    """Bring those of some operations that this worker still holds to their end."""
    rt = runtime()
    rows = await rt.store.read(lambda c: operations.get(c, ids))
    mine = [o for o in rows if is_mine(rt, o) and o.state in OPEN]
    steps = await rt.store.read(lambda c: operations.steps_of(c, [o.id for o in mine]))
    await asyncio.gather(*(_guarded(rt, Case(o, steps.get(o.id, []))) for o in mine))


async def each(
    host: str, ops: Sequence[Operation], work: Callable[[Operation], Awaitable[bool]],
    bound: asyncio.Semaphore | None = None,
) -> list[str]:  # fmt: skip
    """Run work for every operation, as many at a time as the host may have; return the ids of those that may go on.

    One whose work failed is settled at once: it waits for nobody, and nobody for it.
    """
    bound = bound or runtime().slots(host)

    async def one(op: Operation) -> bool:
        async with bound:
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
        problem = error
        with suppress(Stale):
            await rt.store.write(lambda c: _not_settled(c, case.op, problem))


def _not_settled(c: Any, op: Operation, error: RackflowError) -> None:
    """Let it wait for its next try; what did not pass by itself in several runs waits for the operator."""
    (now,) = operations.get(c, [op.id])  # it may be undone since it was read
    if isinstance(error, Retryable) or now.attempts < SETTLE_RUNS:
        operations.postpone(c, op, f"settling failed: {error}", later(now.attempts))
        return
    if now.state is OperationState.COMPENSATING:
        error = recovery.while_undoing(now, error)
    finish(c, op, OperationState.HELD, error)


async def _settle(rt: Runtime, case: Case) -> None:
    """End one operation, or let it wait for its next try."""
    op, error, failed = case.op, case.error, case.failed
    if failed is not None and error is not None and failed.host and _blames_host(error):
        await _note_trouble(rt, failed.host)
    if op.state is OperationState.COMPENSATING:
        await _undo_and_end(rt, case, error)
    elif case.is_whole:
        await rt.store.write(lambda c: finish(c, op, OperationState.DONE))
    elif await _died_with_its_host(rt, case, error):
        await _hold(rt, op, _on_fenced(op, error))
    elif op.cancel_requested:
        await _give_up(rt, case, error)
    elif error is None or failed is None:  # cut off before a step could fail: go on soon
        await _wait(rt, op, "cut off; it goes on where it stopped")
    elif op.verb in VERBS and failed.name not in CHOOSING and case.chose and is_hosts_fault(error):
        await _elsewhere(rt, case, failed, error)
    elif isinstance(error, Permanent) or _tried_enough(op, error):
        await _give_up(rt, case, error)
    elif isinstance(error, NeedsOperator):
        await _hold(rt, op, error)
    else:
        await _wait(rt, op, str(error))


async def _died_with_its_host(rt: Runtime, case: Case, error: RackflowError | None) -> bool:
    """Say whether it can neither go on nor back before its host, which is fenced, has been powered on again.

    Disks that are half restored are put right there and nowhere else: nothing may start from them elsewhere.
    """
    op, failed = case.op, case.failed
    if op.verb not in VERBS or not (await _work(rt, op)).is_fenced:
        return False
    if failed is not None and failed.name in LEFT_BEHIND.get(op.verb, ()):
        return False  # the next try leaves to the host what it was to take away
    if any(step.state in BEGUN and step.compensation in MENDS_DISKS for step in case.steps):
        return True
    return isinstance(error, Unreachable) and await no_way_back(rt, op, case.steps)


def _on_fenced(op: Operation, error: RackflowError | None) -> RackflowError:
    return HostFault(
        f"its host was fenced in the middle of {op.verb}", op.subject, {"error": error.to_dict() if error else None},
        f"power the host on and enable it, then: rackflow operation retry {op.id}",
    )  # fmt: skip


def _tried_enough(op: Operation, error: RackflowError) -> bool:
    """Say whether it ends here. A look asks no operator: the next one looks again. A host that wakes is waited for."""
    if woken_by(error):
        return False
    if op.verb is Verb.RECONCILE and isinstance(error, NeedsOperator):
        return True
    return op.attempts >= GIVE_UP_AFTER.get(op.verb, op.attempts + 1)


def _blames_host(error: RackflowError) -> bool:
    return is_hosts_fault(error) and not isinstance(error, Permanent)


async def _note_trouble(rt: Runtime, host: str) -> None:
    rt.troubled.add(host)
    await rt.store.write(lambda c: hosts.note_trouble(c, host))


async def _wait(rt: Runtime, op: Operation, reason: str) -> None:
    await rt.store.write(lambda c: operations.postpone(c, op, reason, later(op.attempts)))


async def _hold(rt: Runtime, op: Operation, error: RackflowError) -> None:
    await rt.store.write(lambda c: finish(c, op, OperationState.HELD, error))


async def _elsewhere(rt: Runtime, case: Case, failed: Step, error: RackflowError) -> None:
    """A host's error sends the instance to another host, where that is possible; an error of its own ends it."""
    op = case.op
    avoid = list(op.parameters.get("avoid", []))
    if isinstance(error, Unreachable) and failed.name in MAY_RUN and not (await _work(rt, op)).is_fenced:
        await _wait(rt, op, str(error))  # it may be running there: nothing is decided before the host answers again
        return
    if len(avoid) + 1 >= PLACES or await no_way_back(rt, op, case.steps):
        await _give_up(rt, case, error)
        return
    blamed = _chosen(case)
    await undo(rt, op, case.steps)

    def try_again(c: Any) -> None:
        operations.set_parameters(c, op, {**op.parameters, "avoid": [*avoid, blamed], "avoid_error": error.to_dict()})
        before = InstanceState(op.parameters.get("was") or InstanceState.PENDING)
        instances.set_state(c, op.subject_id, before, epoch=op.epoch, reason=f"{blamed}: {error}"[:1000])
        operations.postpone(c, op, f"{blamed}: {error}; looking for another host", None)

    await rt.store.write(try_again)


async def _work(rt: Runtime, op: Operation) -> Work:
    return Work(rt, op, await view_of(rt, op))


def _chosen(case: Case) -> str:
    """Return the host that was chosen for the instance."""
    for step in case.steps:
        if step.name in CHOOSING and step.evidence:
            return str(step.evidence.get("to") or step.evidence.get("host") or "")
    return ""


async def _give_up(rt: Runtime, case: Case, error: RackflowError | None) -> None:
    """Undo, unless there is no way back: then go on, or ask the operator."""
    op = case.op
    if op.verb not in VERBS or not await no_way_back(rt, op, case.steps):
        await _undo_and_end(rt, case, error)
        return
    if op.cancel_requested:
        await rt.store.write(lambda c: operations.too_late(c, op))
        rt.cancelled.discard(op.id)
    if case.failed is not None and await was_done(rt, op, case.failed):
        await _wait(rt, op, f"{case.failed.name} was done all the same: it goes on")
    elif isinstance(error, Permanent | NeedsOperator) and error.code != "cancelled":
        await _hold(rt, op, error)
    else:
        await _wait(rt, op, "there is no way back any more: it goes on")


async def _undo_and_end(rt: Runtime, case: Case, error: RackflowError | None) -> None:
    """Undo what was done, in reverse order, then end the operation."""
    op = case.op
    reason = error or (from_dict(op.error) if op.error else None)
    state = OperationState.FAILED
    if op.verb in VERBS and any(step.compensation for step in case.steps):
        state = OperationState.COMPENSATED
        if op.state is not OperationState.COMPENSATING:
            await rt.store.write(lambda c: operations.compensating(c, op, reason))
        await undo(rt, op, case.steps)
    elif op.verb in UNDO:
        state = OperationState.COMPENSATED
        if op.state is not OperationState.COMPENSATING:
            await rt.store.write(lambda c: operations.compensating(c, op, reason))
        await UNDO[op.verb](rt, op)
    end = OperationState.CANCELLED if op.cancel_requested else state
    seen = await _seen(rt, op)
    await rt.store.write(lambda c: finish(c, op, end, reason, seen))


async def _seen(rt: Runtime, op: Operation) -> InstanceState | None:
    """Return the state in which an instance is after a change of its power was given up half-way; None: as the table
    says. What was cut off may have been done all the same; where nothing can be seen it is taken to be as it was.
    """
    if op.verb not in POWER:
        return None
    work = await _work(rt, op)
    seen = None if work.is_fenced else await state_now(work)
    lost = seen is InstanceState.OFF and op.verb in (Verb.REBOOT, Verb.SUSPEND, Verb.RESUME)
    return work.was if seen is None or lost else seen  # what lost its power is to run: the reconcile sees to that
