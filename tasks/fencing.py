"""Cut the power of a dead host, see that it is off, then let its instances start elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from prefect import task

from control import failover, fencing, hosts
from control.hosts import HostRecord
from control.operations import Operation
from core.errors import Conflict, HostFault, Unreachable, Unsupported
from core.states import MachinePower, OperationState, Verb
from drivers.baremetal.base import PowerChange
from tasks.ledger import Seen, finish, load, run_step
from tasks.runtime import Runtime, runtime
from tasks.settle import each
from tasks.watch import RECONCILER, bmc_of

CUT_S = 240.0
ANSWER_S = 15.0  # a host that says nothing for so long does not answer
APART_S = 1.0  # between two readings of the power: a host that its BMC puts on again at once is not off


class Fencing:
    """The steps for one host."""

    def __init__(self, rt: Runtime, op: Operation, record: HostRecord) -> None:
        self.rt, self.op, self.record = rt, op, record

    async def cut(self, _: Operation) -> Seen:
        """See that it still does not answer, cut its power, and read back twice that it is off."""
        await self._require_silence("it answers, so it is not dead", "evacuate moves away what runs there")
        if self.op.parameters.get("confirmed"):
            seen: dict[str, Any] = {"confirmed_by": self.op.asked_by}
        else:
            seen = await self._power_off()
            await self._require_silence("its BMC says that it is off, and it answers", "see whose BMC that is")
        with suppress(TimeoutError):  # connections to a dead host may not close by themselves
            async with asyncio.timeout(ANSWER_S):
                await self.rt.locks.drop(self.record.name)
                await self.rt.pool.drop(self.record.name)
        error = failover.fenced_error(self.record.name, seen)
        return Seen(True, seen, lambda c: hosts.record_fenced(c, self.op, self.record.id, error))

    async def _power_off(self) -> dict[str, Any]:
        found = await bmc_of(self.rt, self.record)
        if found is None:
            raise Unsupported(
                f"host {self.record.name} has no BMC that could cut its power", f"host/{self.record.name}", {},
                failover.by_hand(self.record.name),
            )  # fmt: skip
        try:
            before = await found.power()
            await found.set_power(PowerChange.FORCE_OFF)
            reads = [await found.power()]
            await asyncio.sleep(APART_S)
            reads.append(await found.power())
        finally:
            await found.close()
        evidence = {"bmc": self.record.spec["bmc"]["address"], "before": before.value, "read": [r.value for r in reads]}
        if any(read is not MachinePower.OFF for read in reads):
            raise HostFault(
                f"the BMC of {self.record.name} took the order, and does not say that it is off",
                f"host/{self.record.name}", evidence, failover.by_hand(self.record.name),
            )  # fmt: skip
        return evidence

    async def _require_silence(self, what: str, fix: str) -> None:
        """Raise Conflict if it answers, whatever else is wrong with it."""
        name = self.record.name
        try:
            async with asyncio.timeout(ANSWER_S):
                host = await self.rt.pool.get(self.record.driver, self.rt.endpoint(self.record))
                await host.answer()
        except (Unreachable, TimeoutError):
            return
        raise Conflict(f"host {name}: {what}", f"host/{name}", {"address": self.record.address}, fix)

    async def fail_over(self, _: Operation) -> Seen:
        """Let what it held start elsewhere, where its disks are seen; the rest is held."""
        done = await self.rt.store.write(lambda c: fencing.pursue(c, self.record, RECONCILER))
        self.rt.wake()
        return Seen(bool(done["elsewhere"] or done["held"]), dict(done))


@task(name="fence", task_run_name="fence hosts", persist_result=False)
async def fence_hosts(ids: Sequence[str]) -> list[str]:
    """Fence the hosts of a batch, side by side."""
    rt = runtime()

    async def work(op: Operation) -> bool:
        job = Fencing(rt, op, await rt.store.read(lambda c: hosts.get(c, op.subject_id)))
        name = job.record.name

        def end(c: Any, _: Seen) -> None:
            finish(c, op, OperationState.DONE)

        return await run_step(op, 1, "cut", "", job.cut, deadline_s=CUT_S) and await run_step(
            op, 2, "fail-over", name, job.fail_over, also=end
        )

    return await each("", [op for op in await load(ids) if op.verb is Verb.FENCE], work)
