"""What the ledger is told of steps, many at a time: some begin, some end, some fail, and some end their operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control import instances, operations, schedules
from control.ledger import look
from control.lifecycle import VERBS, state_after
from control.operations import Operation, Stale, Step
from core.errors import Cancelled, RackflowError
from core.states import InstanceState, OperationState, StepState, Verb

Ending = tuple[Operation, OperationState, RackflowError | None, InstanceState | None]


@dataclass(frozen=True)
class Begin:
    """A step that is to begin; one that is done already is left as it is. during: its instance's state from now on."""

    op: Operation
    sequence: int
    name: str
    host: str
    compensation: str
    during: InstanceState | None


@dataclass(frozen=True)
class End:
    """A step that went well. last: and so did its operation; following: what begins in the same moment."""

    op: Operation
    step: Step
    changed: bool
    evidence: dict[str, Any] | None
    last: bool
    following: Begin | None = None


def write(c: Any, items: Sequence[Begin | End]) -> list[Step | Exception | None]:
    """Write what is told; the answers come in the same order: the step that began, None, Stale or Cancelled.

    Each step stands in it once; an operation may have several, on different hosts. What follows a step does not begin
    when its operation is not wanted any more; whoever begins it by itself is told.
    """
    stale, unwanted = look(c, [item.op for item in items])  # once for all that is written below
    mine = [item for item in items if item.op.id not in stale]
    _end(c, [item for item in mine if isinstance(item, End)])
    begins = {n: item if isinstance(item, Begin) else item.following for n, item in enumerate(items)}
    ready = {n: one for n, one in begins.items() if one and one.op.id not in stale and one.op.id not in unwanted}
    begun = dict(zip(ready, _begin(c, list(ready.values())), strict=True))

    def answer(n: int, item: Begin | End) -> Step | Exception | None:
        if item.op.id in stale:
            return _stale(item.op)
        if isinstance(item, Begin) and n not in begun:
            return not_wanted(item.op)
        return begun.get(n)

    return [answer(n, item) for n, item in enumerate(items)]


def _stale(op: Operation) -> Stale:
    return Stale(f"operation {op.id} was taken over or is finished", f"operation/{op.id}", {"operations": [op.id]})


def not_wanted(op: Operation) -> Cancelled:
    """Return the error of a step that does not begin, or is ended, because somebody cancelled its operation."""
    return Cancelled(f"{op.verb} of {op.subject_name} was cancelled", op.subject)


def _begin(c: Any, items: Sequence[Begin]) -> list[Step]:
    steps = operations.begin_steps(c, [(i.op, i.sequence, i.name, i.host, i.compensation) for i in items], looked=True)
    instances.set_states(c, [
        (i.op.subject_id, i.during, i.op.epoch, "")
        for i, step in zip(items, steps, strict=True) if i.during is not None and step.state is not StepState.DONE
    ])  # fmt: skip
    return steps


def _end(c: Any, items: Sequence[End]) -> None:
    ends = [(i.op, i.step.sequence, i.changed, i.evidence) for i in items]
    operations.end_steps(c, ends, begun=[i.step for i in items], looked=True)
    finish_all(c, [(i.op, OperationState.DONE, None, None) for i in items if i.last], looked=True)


def finish(
    c: Any, op: Operation, state: OperationState, error: RackflowError | None = None,
    seen: InstanceState | None = None,
) -> None:  # fmt: skip
    """End an operation and give its instance the state that the lifecycle table says, or that it was seen in."""
    finish_all(c, [(op, state, error, seen)])


def finish_all(c: Any, ends: Sequence[Ending], *, looked: bool = False) -> None:
    """End operations and give their instances the states that the lifecycle table says, or that they were seen in.

    looked: none of them is stale, as the caller has seen in this transaction.
    """
    if not ends:
        return
    changes = []
    for op, state, error, seen in ends:
        if op.verb is Verb.DELETE and state is OperationState.DONE:
            instances.mark_deleted(c, op, op.subject_id)
        elif op.verb is Verb.DELETE and state is not OperationState.HELD:
            instances.not_deleted(c, op, op.subject_id, str(error or ""))
        elif op.verb in VERBS:
            changes.append((op.subject_id, _state_after(op, state, seen), op.epoch, str(error or "")[:1000]))
    instances.set_states(c, changes)
    running = {subject for subject, state, _, _ in changes if state is InstanceState.RUNNING}
    schedules.started(c, [
        op.subject_id for op, *_ in ends if op.subject_id in running and _before(op) is not InstanceState.RUNNING
    ])  # fmt: skip
    operations.finish_all(c, [(op, state, error) for op, state, error, _ in ends], looked=looked)


def _before(op: Operation) -> InstanceState:
    return InstanceState(op.parameters.get("was") or InstanceState.PENDING)


def _state_after(op: Operation, state: OperationState, seen: InstanceState | None) -> InstanceState:
    if state is OperationState.HELD:
        return InstanceState.HELD
    if seen is not None:
        return seen
    well = state is OperationState.DONE
    if well and op.parameters.get("then"):
        return InstanceState(op.parameters["then"])
    return state_after(op.verb, _before(op), well=well)
