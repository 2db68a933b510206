"""Take over instances that run on a host already."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from control import hosts
from control.operations import Operation
from core.states import Verb
from tasks.adoption import Adoption
from tasks.ledger import load, run_step
from tasks.runtime import runtime
from tasks.settle import each


@task(name="adopt", task_run_name="adopt instances", persist_result=False)
async def adopt_instances(ids: Sequence[str]) -> list[str]:
    """Adopt the instances that the operations of a batch name, on their hosts side by side."""
    rt = runtime()

    async def work(op: Operation) -> bool:
        record = await rt.store.read(lambda c: hosts.get(c, op.subject_id))
        job = Adoption(rt, op, record)
        return (
            await run_step(op, 1, "describe", record.name, job.describe)
            and await run_step(op, 2, "record", record.name, job.write, compensation="disown")
            and await run_step(op, 3, "mark", record.name, job.mark, compensation="disown", last=True)
        )

    return await each("", [op for op in await load(ids) if op.verb is Verb.ADOPT], work)
