"""The stage that chooses hosts: one transaction for the whole batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from prefect import task

from control import instances, operations, placing, placing_asleep
from control.lifecycle import rule
from control.operations import Operation
from core.errors import Busy, Invalid
from core.states import ImageState, InstanceState, Verb
from tasks.ledger import load
from tasks.power_saving import ask
from tasks.runtime import runtime

SEQUENCE = 1  # it is the first step of each of these
PLACED = (Verb.DEPLOY, Verb.RESTORE, Verb.REDEPLOY)


@task(name="place", task_run_name="place {count} instances", persist_result=False)
async def place(ids: Sequence[str], count: int) -> dict[str, list[str]]:
    """Choose hosts for the operations that have none yet; return host name -> operations that go on there."""
    rt = runtime()
    ops = await load(ids)
    seen = await rt.store.read(lambda c: instances.places(c, [o.subject_id for o in ops]))
    hosts: dict[str, list[str]] = defaultdict(list)
    waiting: list[Operation] = []
    for op in ops:
        host, _ = seen[op.subject_id]
        if host is not None:
            hosts[host].append(op.id)  # placed before; the steps that follow find what is done
        else:
            waiting.append(op)
    if waiting:
        rt.require_claim()
        features, policy = await rt.features(), rt.settings.placement_policy
        states = {op.id: seen[op.subject_id][1] for op in waiting}
        for op_id, host in (await rt.store.write(lambda c: _place(c, waiting, states, features, policy))).items():
            hosts[host].append(op_id)
    return dict(hosts)


async def unplaced(ids: Sequence[str]) -> list[str]:
    """Return those operations of a batch that a host is to be chosen for."""
    return [op.id for op in await load(ids) if op.verb in PLACED]


def _place(
    c: Any, ops: list[Operation], states: dict[str, ImageState | None], features: dict[str, Any], policy: str
) -> dict[str, str]:
    """Write decisions, reservations, leases and the steps, in one transaction; return operation -> host."""
    operations.begin_steps(c, [(op, SEQUENCE, "place", "", "release") for op in ops])
    usable = []
    for op in ops:
        if states[op.id] is ImageState.READY:
            usable.append(op)
        elif states[op.id] is None:
            operations.fail_step(c, op, SEQUENCE, instances.no_image(op.subject_name))
        elif states[op.id] in (ImageState.PENDING, ImageState.IMPORTING):
            operations.fail_step(c, op, SEQUENCE, Busy("its image is still being imported", op.subject))
        else:
            operations.fail_step(c, op, SEQUENCE, Invalid("its image could not be imported", op.subject))
    by_id = {op.id: op for op in usable}
    placed: dict[str, str] = {}
    ends, states_now, refused = [], [], []
    for outcome in placing.place(c, usable, features, policy, looked=True):
        op = by_id[outcome.operation_id]
        if outcome.error is not None:
            operations.fail_step(c, op, SEQUENCE, outcome.error)
            refused.append(outcome.error)
        else:
            assert outcome.host is not None
            placed[op.id] = outcome.host
            ends.append((op, SEQUENCE, True, {"host": outcome.host}))
            states_now.append((outcome.instance_id, rule(op.verb).during or InstanceState.STAGING, op.epoch, ""))
    wakes = {name: None for error in refused if (name := placing_asleep.woken_by(error))}
    ask(c, Verb.WAKE, wakes, "instances wait for room")
    instances.set_states(c, states_now)
    operations.end_steps(c, ends)
    return placed
