"""Run steps under the ledger: enter a form's request, begin, act with retries, end, and keep instances apart.

Prefect shows and drives, the ledger is the record: what a stage returns is only the list of operations that may go on.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefect.runtime import flow_run

from control import access, instances, operations, requests
from control.lifecycle import VERBS
from control.operations import Operation, Stale, Step
from core.errors import HostFault, RackflowError, Unreachable
from core.states import InstanceState, OperationState, StepState, Verb
from tasks.retry import retrying
from tasks.runtime import Runtime, StepCancelled, runtime
from tasks.step_writes import Begin, End, finish, not_wanted

__all__ = [
    "PREFECT_IDENTITY", "Action", "Also", "Begun", "Seen", "by_host", "enter", "finish", "is_mine", "leave", "load",
    "run_step", "sequence_of",
]  # fmt: skip

_run: ContextVar[dict[str, int] | None] = ContextVar("operations of this flow run, and their epochs", default=None)
PREFECT_IDENTITY = "prefect"  # who a run acts for when it was started from Prefect's UI, a schedule or its API


@dataclass(frozen=True)
class Seen:
    """What an action did. changed: whether the world differs from before; evidence: JSON-ready.

    write: what the record is to say when the step ends, in the same transaction.
    """

    changed: bool
    evidence: dict[str, Any] | None = None
    write: Callable[[Any], object] | None = None


Action = Callable[[Operation], Coroutine[Any, Any, Seen]]
Also = Callable[[Any, Seen], None]  # more to write when a step ends
Begun = dict[int, Step]  # by their places: steps that began when the one before them ended


async def enter(verb: Verb, body: dict[str, Any], given: Sequence[str]) -> list[str]:
    """Return the operations to run: the given ones, or those of the form's request, entered under the run's own id."""
    rt = runtime()
    if given:
        return await _entered(rt, given)
    run_id = flow_run.get_id()

    def submit(c: Any) -> list[str]:
        who = access.named(c, PREFECT_IDENTITY)
        accepted = requests.submit(c, who, verb, body, source="prefect", idempotency_key=f"run-{run_id}")
        claimed = operations.claim_pending(c, rt.worker_id, only=[o.id for o in accepted.operations])
        operations.set_flow_run(c, [o.id for o in claimed], str(run_id))
        return [o.id for o in claimed]

    return await _entered(rt, await rt.store.write(submit))


async def _entered(rt: Runtime, ids: Sequence[str]) -> list[str]:
    rows = await rt.store.read(lambda c: operations.get(c, ids))
    epochs = {o.id: o.epoch for o in rows if o.claimed_by == rt.worker_id}
    _run.set(epochs)
    rt.active.update(epochs)
    return list(ids)


def is_mine(rt: Runtime, op: Operation) -> bool:
    """Say whether this flow run holds an operation. One that it had to give back may be another run's of the worker."""
    epochs = _run.get()
    return op.claimed_by == rt.worker_id and (epochs is None or epochs.get(op.id) == op.epoch)


def leave(rt: Runtime, ids: Sequence[str]) -> None:
    """End this flow run's part in operations."""
    epochs = _run.get() or {}
    rt.leave({one: epochs.get(one, rt.active.get(one, 0)) for one in ids})


async def load(ids: Sequence[str]) -> list[Operation]:
    """Return the operations of this batch that this flow run still holds and that are to go on."""
    rt = runtime()
    rows = await rt.store.read(lambda c: operations.get(c, ids))
    return [o for o in rows if is_mine(rt, o) and o.state is OperationState.RUNNING and not o.cancel_requested]


async def by_host(ids: Sequence[str]) -> dict[str, list[str]]:
    """Return host name -> operations of the batch whose instance is placed there ("" = on no host)."""
    rt = runtime()
    ops = await load(ids)
    views = await rt.store.read(lambda c: instances.deployables(c, [o.subject_id for o in ops]))
    hosts: dict[str, list[str]] = defaultdict(list)
    for op in ops:
        host = views[op.subject_id].host
        hosts[host.name if host else ""].append(op.id)
    return dict(hosts)


def sequence_of(verb: Verb, step: str) -> int:
    """Return a step's place in its verb, counted from 1."""
    return [rule.name for rule in VERBS[verb].steps].index(step) + 1


async def run_step(
    op: Operation,
    sequence: int,
    name: str,
    host: str,
    action: Action,
    *,
    compensation: str = "",
    deadline_s: float | None = None,
    also: Also | None = None,
    during: InstanceState | None = None,
    last: bool = False,
    following: Begin | None = None,
    begun: Begun | None = None,
    bound: AbstractAsyncContextManager[None] | None = None,
) -> bool:
    """Run one step until it is done (True) or has failed for good (False; the reason stands in the ledger).

    A step that is done already is not run again. `also` writes in the same transaction that ends the step; during: the
    state of its instance while it runs; last: its end is the operation's; following: the step that begins as it ends,
    which is noted in begun, where this one stands if it began so; bound: what it acts within
    """
    rt = runtime()
    begun = begun if begun is not None else {}
    limit_s = deadline_s or rt.settings.worker.step_deadline_s

    async def attempt() -> bool:
        _may_go(rt, op)
        step = begun.pop(sequence, None) or await rt.steps.add(
            Begin(op, sequence, name, host, compensation, during)
        )
        if step.state is StepState.DONE:
            return True
        try:
            async with bound or nullcontext():
                _may_go(rt, op)
                async with asyncio.timeout(limit_s):
                    seen = await rt.cancellable(op.id, action(op))
        except StepCancelled as error:
            raise await failed(not_wanted(op)) from error
        except TimeoutError as error:
            raise await failed(Unreachable(f"step {name} took longer than {limit_s:.0f} s", f"host/{host}")) from error
        except RackflowError as error:
            raise await failed(error) from error
        except Exception as error:  # a defect of ours must not pass for the host's silence
            raise await failed(
                HostFault(f"step {name} broke: {type(error).__name__}: {error}", f"host/{host}")
            ) from error
        try:
            end = End(op, step, seen.changed, seen.evidence, last, following)
            if (later := await _end(rt, end, seen, also)) is not None:
                begun[later.sequence] = later
        except Stale:
            raise
        except RackflowError as error:  # the record refuses what the step found: no room, a name taken meanwhile
            raise await failed(error) from error
        return True

    async def failed(error: RackflowError) -> RackflowError:
        await rt.store.write(lambda c: operations.fail_step(c, op, sequence, error))
        return error

    try:
        return await retrying(attempt)
    except Stale:  # somebody else has this operation now: leave it alone
        return False
    except RackflowError:
        return False


def _may_go(rt: Runtime, op: Operation) -> None:
    """Raise Busy when the claim is about to end, Cancelled when the operation is not wanted any more."""
    rt.require_claim()
    if op.id in rt.cancelled:
        raise not_wanted(op)


async def _end(rt: Runtime, end: End, seen: Seen, also: Also | None) -> Step | None:
    """End a step well: together with others, or alone when there is more to write, which may be refused.

    Return the following step if it has begun.
    """
    if seen.write is None and also is None:
        following: Step | None = await rt.steps.add(end)
        return following

    def alone(c: Any) -> None:
        operations.end_step(c, end.op, end.step.sequence, changed=end.changed, evidence=end.evidence)
        if seen.write is not None:
            seen.write(c)
        if also is not None:
            also(c, seen)
        if end.last:
            finish(c, end.op, OperationState.DONE)

    await rt.store.write(alone)
    return None
