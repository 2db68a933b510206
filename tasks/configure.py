"""A machine becomes a hypervisor over SSH: look, plan what is missing, do it, and look again until nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from prefect import task

from control import configuring, hosts
from control.operations import Operation
from core.errors import HostFault
from core.states import Verb
from drivers import role, role_plan
from drivers.role import Plan, Role, role_of
from drivers.transport.base import Transport
from tasks.ledger import Seen, load, run_step
from tasks.runtime import runtime
from tasks.settle import each

CONFIGURE_S = 2400.0
ROUNDS = 4  # what LXD keeps shows only when its packages, then its daemon are there
_SETTLE_S = 2.0


async def plan_of(t: Transport, want: Role) -> Plan:
    """Return what is missing on a machine. Raise Unreachable, HostFault."""
    return role_plan.plan(await role.look(t, want), want)


async def configure(t: Transport, want: Role) -> Seen:
    """Ensure that a machine is a hypervisor. Raise HostFault (what a command said, or what is missing still)."""
    done: list[str] = []
    missing: list[str] = []
    for _ in range(ROUNDS):
        plan = await plan_of(t, want)
        if plan.complete and not plan.actions:
            return Seen(bool(done), {"changes": done, "notes": list(plan.notes)})
        missing = [action.words for action in plan.actions]
        await role.do(t, plan.actions)
        done += missing
        if not plan.complete:
            await asyncio.sleep(_SETTLE_S)
    raise HostFault(
        f"{t.endpoint.name} is not as it was told to be: " + ("; ".join(missing) or f"{want.kind} does not answer"),
        f"host/{t.endpoint.name}", {"done": done, "missing": missing}, "see the logs of its services",
    )  # fmt: skip


@task(name="configure", task_run_name="configure hosts", persist_result=False)
async def configure_hosts(ids: Sequence[str]) -> list[str]:
    """Configure the hosts of a batch, side by side."""
    rt = runtime()
    ops = [op for op in await load(ids) if op.verb is Verb.CONFIGURE]
    records = await rt.store.read(lambda c: hosts.by_id(c, {op.subject_id for op in ops}))

    async def work(op: Operation) -> bool:
        record = records[op.subject_id]

        async def act(_: Operation) -> Seen:
            t = await rt.pool.transport(rt.endpoint(record))
            seen = await configure(t, role_of(record.spec, record.driver or record.spec["driver"]))
            return replace(seen, write=lambda c: configuring.note(c, record, []))

        return await run_step(op, 1, "configure", record.name, act, deadline_s=CONFIGURE_S, last=True)

    return await each("", ops, work)
