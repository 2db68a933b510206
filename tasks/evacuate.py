"""Empty hosts: a migration per instance, each an operation of its own, a few at a time; this starts and counts them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prefect import task

from control import evacuation, hosts, operations
from control.evacuation import Guest, Plan, Progress
from control.hosts import HostRecord
from control.operations import Operation, Stale
from core.errors import Conflict, NeedsOperator, RackflowError, Retryable, Unreachable
from core.states import HostState, InstanceState, OperationState, Verb
from drivers.hypervisor.powers import MigratesLive
from tasks.ledger import Seen, finish, load, run_step
from tasks.runtime import Runtime, runtime
from tasks.settle import each

PARALLEL = 2
LOOK_S = 1.0
LONGEST_S = 7 * 24 * 3600.0
EMPTYING = (HostState.DRAINING, HostState.MAINTENANCE)


async def _obstacles(hypervisor: MigratesLive, guest: Guest) -> list[str]:
    """Return why an instance cannot be moved while it runs. Raise Unreachable; what is wrong with one binds only it."""
    try:
        return await hypervisor.preflight(guest.on_host)
    except Unreachable:
        raise
    except RackflowError as error:
        return [str(error)]


class Evacuation:
    """The steps for one host."""

    def __init__(self, rt: Runtime, op: Operation, record: HostRecord) -> None:
        self.rt, self.op, self.record = rt, op, record
        self.plans: dict[str, Plan] = {}
        self.ended = 0
        self.told: dict[str, Any] = {}

    async def drain(self, _: Operation) -> Seen:
        """Let nothing more be placed there."""
        if self.record.state in EMPTYING:
            return Seen(False, {"state": self.record.state.value})
        return Seen(True, {"state": HostState.DRAINING.value},
                    lambda c: hosts.set_state(c, self.record.id, HostState.DRAINING))  # fmt: skip

    async def preflight(self, _: Operation) -> Seen:
        """Say of each instance whether it can go, where to and how, or why not."""
        look = await self._look()
        plans = await self._plan(look.guests)
        return Seen(False, {
            "instances": len(look.guests), "cannot": {p.guest.name: p.reason for p in plans if p.reason},
            "can": {p.guest.name: {"to": p.target, "live": bool(p.live)} for p in plans if not p.reason},
        })  # fmt: skip

    async def move(self, _: Operation) -> Seen:
        """Let them go, a few at a time, until none is left. Raise NeedsOperator with those that cannot, and why."""
        while True:
            look = await self._look()
            if look.state not in EMPTYING:
                raise Conflict(
                    f"host {self.record.name} is {look.state} meanwhile: it is not emptied any more",
                    self.op.subject, {"state": look.state},
                )  # fmt: skip
            if not look.guests:
                return Seen(bool(look.moves), {"moved": evacuation.moved(look)})
            self.plans = evacuation.still_good(self.plans, look, room_came_free=look.ended > self.ended)
            self.ended = look.ended
            started = await self._go(look)
            if not started and self._all_stuck(look):
                self.plans = evacuation.still_good(self.plans, look, last_time=True)
                started = await self._go(look)
            await self._tell(look)
            if not started and self._all_stuck(look):
                raise self._hopeless(look)
            await asyncio.sleep(LOOK_S)

    async def _go(self, look: Progress) -> int:
        """Plan for those for whom nobody has yet, and start what may go; return how many were started."""
        new = [g for g in look.guests if g.busy is None and g.id not in self.plans and g.id not in look.moves]
        self.plans.update({one.guest.id: one for one in await self._plan(new)})
        return await self._start(look)

    async def _look(self) -> Progress:
        return await self.rt.store.read(lambda c: evacuation.progress(c, self.op))

    async def _plan(self, guests: Sequence[Guest]) -> list[Plan]:
        """Plan for some instances; those that run are asked about on their host."""
        if not guests:
            return []
        bound: dict[str, list[str]] = {}
        if self.op.parameters.get("live") is not False and self.record.capabilities.get("migrate_live"):
            host = await self.rt.host(self.record)
            if isinstance(host.hypervisor, MigratesLive):
                for guest in guests:
                    if guest.state is InstanceState.RUNNING:
                        bound[guest.id] = await _obstacles(host.hypervisor, guest)
        features, policy = await self.rt.features(), self.rt.settings.placement_policy
        return await self.rt.store.read(
            lambda c: evacuation.plan(c, self.op, self.record, guests, bound, features, policy)
        )

    async def _start(self, look: Progress) -> int:
        """Start as many migrations as may run; return how many were started."""
        free = int(self.op.parameters.get("parallel") or PARALLEL) - len(look.moving)
        started = 0
        for one in look.waiting(self.plans)[: max(0, free)]:
            self.rt.require_claim()
            try:
                await self.rt.store.write(lambda c, p=one: evacuation.start(c, self.op, p))  # type: ignore[misc]
                started += 1
            except Stale:
                raise
            except RackflowError as error:  # it has changed since it was planned for
                self.plans[one.guest.id] = Plan(one.guest, str(error), passing=isinstance(error, Retryable))
        if started:
            self.rt.wake()
        return started

    async def _tell(self, look: Progress) -> None:
        """Write down how far it is, when that has changed."""
        told = {
            "left": len(look.guests), "moved": evacuation.moved(look),
            "moving": sorted(op.subject_name for op in look.moving), "cannot": look.stuck(self.plans),
        }  # fmt: skip
        if told != self.told:
            self.told = told
            await self.rt.store.write(lambda c: operations.note_step(c, self.op, 3, told))

    def _all_stuck(self, look: Progress) -> bool:
        return len(look.stuck(self.plans)) == len(look.guests)

    def _hopeless(self, look: Progress) -> NeedsOperator:
        """Return the error that says of all that is left why it cannot go."""
        stuck = look.stuck(self.plans)
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(stuck.items())[:5])
        return NeedsOperator(
            f"{len(stuck)} instances cannot leave host {self.record.name}: {listed}", self.op.subject,
            {"cannot": stuck, "moved": evacuation.moved(look)},
            f"mend that or shut them down, then: rackflow operation retry {self.op.id}",
        )  # fmt: skip

    def end(self, c: Any, _: Seen) -> None:
        """End it; the host gets the state that was asked for."""
        then = self.op.parameters.get("then")
        if then:
            hosts.set_state(c, self.record.id, HostState(then))
        finish(c, self.op, OperationState.DONE)


@task(name="evacuate", task_run_name="evacuate hosts", persist_result=False)
async def evacuate_hosts(ids: Sequence[str]) -> list[str]:
    """Empty the hosts of a batch, side by side; one that takes hours keeps nobody waiting."""
    rt = runtime()

    async def work(op: Operation) -> bool:
        job = Evacuation(rt, op, await rt.store.read(lambda c: hosts.get(c, op.subject_id)))
        return (
            await run_step(op, 1, "drain", "", job.drain)
            and await run_step(op, 2, "preflight", "", job.preflight, deadline_s=600)
            and await run_step(op, 3, "move", "", job.move, deadline_s=LONGEST_S, also=job.end)
        )

    ops = [op for op in await load(ids) if op.verb is Verb.EVACUATE]
    went = await asyncio.gather(*(each(f"evacuate {op.subject}", [op], work) for op in ops))
    return [one for some in went for one in some]
