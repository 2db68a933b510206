"""Carry plans out: a migration per move, each an operation of its own, in order and a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from prefect import task

from control import applying, operations
from control.applying import Look
from control.operations import Operation, Stale
from core.errors import Conflict, RackflowError
from core.states import Verb
from tasks.ledger import Seen, load, run_step
from tasks.runtime import Runtime, runtime
from tasks.settle import each

LOOK_S = 1.0
LONGEST_S = 7 * 24 * 3600.0
PATIENCE = timedelta(minutes=10)  # with a move that waits, e.g. for room that somebody else has taken


class Applying:
    """The one step of an operation on a plan."""

    def __init__(self, rt: Runtime, op: Operation) -> None:
        self.rt, self.op = rt, op
        self.told: dict[str, Any] = {}

    async def move(self, _: Operation) -> Seen:
        """Begin what may begin, until all is over. Raise Conflict at the first thing that goes wrong."""
        while True:
            look = await self.rt.store.read(lambda c: applying.look(c, self.op))
            if len(look.over) == len(look.moves):
                return Seen(bool(look.moves), look.told())
            problem = look.problem(PATIENCE) or await self._begin(look)
            await self._tell(look)
            if problem:
                await self.rt.store.write(lambda c, look=look: applying.stop(c, self.op, look))  # type: ignore[misc]
                raise self._stopped(look, problem)
            await asyncio.sleep(LOOK_S)

    async def _begin(self, look: Look) -> str:
        """Ask for what may begin now; return why one was refused, "" = none was."""
        for n in look.next:
            self.rt.require_claim()
            try:
                await self.rt.store.write(lambda c, n=n: applying.begin(c, self.op, n, look.moves[n]))  # type: ignore[misc]
            except Stale:
                raise
            except RackflowError as error:
                return str(error)
            self.rt.wake()
        return ""

    async def _tell(self, look: Look) -> None:
        """Write down how far it is, when that has changed."""
        told = look.told()
        if told != self.told:
            self.told = told
            await self.rt.store.write(lambda c: operations.note_step(c, self.op, 1, told))

    def _stopped(self, look: Look, problem: str) -> Conflict:
        left = len(look.moves) - len(look.over) - len(look.moving)
        still = f", {len(look.moving)} are still under way" if look.moving else ""
        return Conflict(
            f"stopped after {len(look.over)} of {len(look.moves)} moves{still}: {problem}", self.op.subject,
            {**look.told(), "not_begun": left, "problem": problem},
            f"what has moved stays where it is; see rackflow plan show {self.op.subject_id}, then make a new plan",
        )  # fmt: skip


@task(name="apply-plan", task_run_name="apply plan", persist_result=False)
async def apply_plans(ids: Sequence[str]) -> list[str]:
    """Carry out the plans of a batch."""
    rt = runtime()

    async def work(op: Operation) -> bool:
        job = Applying(rt, op)
        return await run_step(op, 1, "move", "", job.move, deadline_s=LONGEST_S, last=True)

    return await each("", [op for op in await load(ids) if op.verb is Verb.APPLY_PLAN], work)
