"""Flows without hosts: they run ledger operations in two steps, and can be held between them by a file."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

from prefect import flow, task
from prefect.runtime import flow_run

from control import operations as ledger
from control.ledger import Operation, Stale
from core.states import OperationState, StepState
from tasks.runtime import runtime

STEPS = ("first", "second")


def note(what: str, **facts: Any) -> None:
    """Append a line to the trace that the tests read."""
    line = {"what": what, "at": time.time(), "pid": os.getpid(), **facts}
    with (runtime().settings.paths.run_dir / "trace.jsonl").open("a") as trace:
        trace.write(json.dumps(line) + "\n")


@task(name="step", persist_result=False)
async def step(op: Operation, sequence: int) -> None:
    """Do one step: begin, note that the world was changed, end."""
    store = runtime().store
    begun = await store.write(lambda c: ledger.begin_step(c, op, sequence, STEPS[sequence - 1]))
    if begun.state is StepState.DONE:
        return
    note("step", operation=op.id, sequence=sequence, attempt=begun.attempt)
    await store.write(lambda c: ledger.end_step(c, op, sequence, changed=True))


async def _one(op: Operation) -> None:
    store = runtime().store
    await step(op, 1)
    if (runtime().settings.paths.run_dir / "break").exists():
        raise RuntimeError("the flow broke between its steps")
    while (runtime().settings.paths.run_dir / "hold").exists():
        if await store.read(lambda c: ledger.is_cancelled(c, op)):
            note("cancelled", operation=op.id)
            return await store.write(lambda c: ledger.finish(c, op, OperationState.CANCELLED))
        await asyncio.sleep(0.1)
    await step(op, 2)
    await store.write(lambda c: ledger.finish(c, op, OperationState.DONE))
    note("done", operation=op.id)


@flow(name="stage")
async def stage(label: str = "", operations: list[str] = []) -> None:  # noqa: B006
    """Run what the dispatcher gives; a run from elsewhere only notes its label."""
    note("flow", run=str(flow_run.get_id()), label=label, operations=operations)
    if label == "boom":
        raise RuntimeError("this flow was told to fail")
    held = await runtime().store.read(lambda c: _held(c, operations))
    try:
        await asyncio.gather(*(_one(op) for op in held))
    except Stale:
        note("stale")


def _held(c: Any, ids: list[str]) -> list[Operation]:
    return [op for op in ledger.get(c, ids) if op.claimed_by == runtime().worker_id]
