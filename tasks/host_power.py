"""Switch off a host that nobody needs, having seen on itself that it holds nothing; switch it on, and see it ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from prefect import task

from control import hosts, machines, sleeping
from control.hosts import HostRecord
from control.operations import Operation
from core.errors import Conflict, CredentialRejected, HostFault, NotFound, RackflowError, Unreachable, Unsupported
from core.states import MachinePower, OperationState, Verb
from drivers.baremetal.base import BareMetal, PowerChange
from tasks import machine_power, watch
from tasks.ledger import Seen, finish, load, run_step
from tasks.power_saving import ask
from tasks.runtime import Runtime, runtime
from tasks.settle import each

SHUTDOWN_S = 180.0  # an operating system that takes longer to shut down is cut off: it holds nothing
CUT_S = 60.0
BOOT_S = 900.0  # servers test their memory for minutes
APART_S = 1.0  # between two readings of the power
LOOK_S = 5.0  # between two looks whether it answers
ANSWER_S = 15.0


async def bmc_of(rt: Runtime, record: HostRecord) -> BareMetal:
    """Return the driver of a host's BMC, or of that of the machine of its name. Raise Unsupported, Invalid."""
    found = await watch.bmc_of(rt, record)
    if found is not None:
        return found
    try:
        machine = await rt.store.read(lambda c: machines.get(c, record.name))
    except NotFound as error:
        raise Unsupported(f"host {record.name} has no BMC", f"host/{record.name}", {}, "enroll it with bmc") from error
    return await machine_power.bmc_of(rt, machine)


class HostPower:
    """The steps for one host."""

    def __init__(self, rt: Runtime, op: Operation, record: HostRecord) -> None:
        self.rt, self.op, self.record = rt, op, record

    async def check(self, _: Operation) -> Seen:
        """See on the host itself that nothing is there, ours or not."""
        await self._require_empty()
        return Seen(False, {"instances": 0})

    async def _require_empty(self) -> None:
        name = self.record.name
        await self.rt.store.write(lambda c: sleeping.require_chosen(c, self.op, self.record))
        async with asyncio.timeout(ANSWER_S):
            host = await self.rt.host(self.record)
            seen = await host.hypervisor.instances()
        if seen:
            raise Conflict(
                f"host {name} holds {len(seen)} instances that the record does not have there", f"host/{name}",
                {"instances": [one.name for one in seen][:20]}, f"rackflow host foreign {name}",
            )  # fmt: skip

    async def power_off(self, _: Operation) -> Seen:
        """Let the operating system shut down, cut the power where it does not, and read back twice that it is off.

        One that an earlier try has told to go is silent by now; that it is empty was seen before that.
        """
        bmc = await bmc_of(self.rt, self.record)
        try:
            before = await bmc.power()
            if before is not MachinePower.OFF:
                with suppress(Unreachable, TimeoutError):
                    await self._require_empty()
            await self._let_go()
            how = await self._off(bmc)
            reads = [await bmc.power()]
            await asyncio.sleep(APART_S)
            reads.append(await bmc.power())
        finally:
            await bmc.close()
        evidence = {"before": before.value, "how": how, "read": [read.value for read in reads]}
        if any(read is not MachinePower.OFF for read in reads):
            name = self.record.name
            raise HostFault(
                f"the BMC of {name} took the order, and does not say that it is off", f"host/{name}", evidence
            )
        return Seen(before is not MachinePower.OFF, evidence)

    async def _off(self, bmc: BareMetal) -> str:
        try:
            await bmc.set_power(PowerChange.OFF, timeout_s=SHUTDOWN_S)
            return "shut down"
        except (HostFault, Unsupported):
            await bmc.set_power(PowerChange.FORCE_OFF, timeout_s=CUT_S)
            return "cut off"

    async def _let_go(self) -> None:
        with suppress(TimeoutError):  # connections to a host that is going may not close by themselves
            async with asyncio.timeout(ANSWER_S):
                await self.rt.locks.drop(self.record.name)
                await self.rt.pool.drop(self.record.name)

    async def power_on(self, _: Operation) -> Seen:
        """Switch it on."""
        bmc = await bmc_of(self.rt, self.record)
        try:
            return Seen(await bmc.set_power(PowerChange.ON))
        finally:
            await bmc.close()

    async def answer(self, _: Operation) -> Seen:
        """Wait until its hypervisor answers. Raise HostFault when that takes too long."""
        begun, name = time.monotonic(), self.record.name
        await self._let_go()
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    host = await self.rt.host(self.record)
                    await host.hypervisor.capacity()
                    return Seen(True, {"answered_after_s": round(time.monotonic() - begun, 1)})
            except (CredentialRejected, Unsupported):
                raise
            except (RackflowError, TimeoutError) as error:  # SSH may be there before the hypervisor is
                if time.monotonic() - begun > BOOT_S:
                    raise HostFault(
                        f"host {name} has power, and does not answer after {BOOT_S:.0f} s: {error or 'no answer'}",
                        f"host/{name}", {"address": self.record.address}, "look at its console",
                    ) from error  # fmt: skip
            await asyncio.sleep(LOOK_S)


async def _sleep(job: HostPower) -> bool:
    op, host_id = job.op, job.record.id

    def end(c: Any, _: Seen) -> None:
        sleeping.record_asleep(c, op, host_id)
        finish(c, op, OperationState.DONE)

    deadline_s = SHUTDOWN_S + CUT_S + 60.0
    return await run_step(op, 1, "check", job.record.name, job.check) and await run_step(
        op, 2, sleeping.POWER_OFF, "", job.power_off, deadline_s=deadline_s, also=end
    )


async def _wake(job: HostPower) -> bool:
    op, host_id = job.op, job.record.id

    def end(c: Any, _: Seen) -> None:
        sleeping.record_awake(c, op, host_id)
        finish(c, op, OperationState.DONE)

    return await run_step(op, 1, "power-on", "", job.power_on, deadline_s=120.0) and await run_step(
        op, 2, "answer", "", job.answer, deadline_s=BOOT_S + 60.0, also=end
    )


_WORK = {Verb.SLEEP: _sleep, Verb.WAKE: _wake}


async def look_asleep(rt: Runtime, record: HostRecord) -> Seen:
    """Ask the BMC of a host that is asleep; one that somebody has switched on is let be ready again."""
    power = MachinePower.UNKNOWN
    with suppress(RackflowError, TimeoutError):
        async with asyncio.timeout(watch.BMC_S):
            bmc = await bmc_of(rt, record)
            try:
                power = await bmc.power()
            finally:
                await bmc.close()
    if power is not MachinePower.ON:
        return Seen(False, {"state": record.state.value, "power": power.value})
    woken = await rt.store.write(lambda c: ask(c, Verb.WAKE, [record.name], "somebody has switched it on"))
    if woken:
        rt.wake()
    return Seen(bool(woken), {"state": record.state.value, "power": power.value})


@task(name="host power", task_run_name="sleep and wake hosts", persist_result=False)
async def change_power(ids: Sequence[str]) -> list[str]:
    """Put the hosts of a batch to sleep, or wake them, side by side."""
    rt = runtime()

    async def work(op: Operation) -> bool:
        job = HostPower(rt, op, await rt.store.read(lambda c: hosts.get(c, op.subject_id)))
        went = await _WORK[op.verb](job)
        if went and op.verb is Verb.WAKE:
            rt.wake()  # deploys wait for it
        return went

    return await each("", [op for op in await load(ids) if op.verb in _WORK], work)
