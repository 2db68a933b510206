"""The work of each stage of a machine's enrollment; which stages there are, and in which order: control/machine_stages.

A stage is a row of that table and one of this: what is done, and after how many seconds it has failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import task

from control import machines
from control.machine_stages import stages_of
from control.operations import Operation
from core.states import Verb
from tasks.commission import ENROLL_S, VERIFY_S, Commission
from tasks.configure import CONFIGURE_S
from tasks.install import BOOT_S, INSTALL_S, RAMDISK_S, Installation
from tasks.ledger import Action, load, run_step
from tasks.machine_hardware import hardware_deadline_s, try_hardware
from tasks.machine_power import POWER_S
from tasks.machines import INSPECT_S, REGISTER_S, SPARE_S, MachineEnrollment
from tasks.runtime import Runtime, runtime
from tasks.settle import each

AT_ONCE = 256  # machines of a batch; most of the time each waits for its BMC, or for its ramdisk
LATE_S = 180.0  # that a machine gets beyond a step's own deadline, which names what it waited for
RECORD_S = 60.0  # for what only reads and writes the record


@dataclass(frozen=True)
class Work:
    """act: the step of one machine's enrollment, at its place; deadline_s: by the machine's spec and the operation's
    parameters. by_bmc: it speaks with the BMC, which may stand before many machines.
    """

    act: Callable[[MachineEnrollment, int], Action]
    deadline_s: Callable[[Mapping[str, Any], Mapping[str, Any]], float]
    by_bmc: bool = False


def _within(seconds: float) -> Callable[[Mapping[str, Any], Mapping[str, Any]], float]:
    return lambda spec, parameters: seconds


def _installation(job: MachineEnrollment, writes_at: int) -> Installation:
    """Return the steps that install it. writes_at: the place of the step that writes the disk."""
    return Installation(job.rt, job.op, job.record, writes_at)


def _commission(job: MachineEnrollment) -> Commission:
    return Commission(job.rt, job.op, job.record)


def _hardware(job: MachineEnrollment, sequence: int) -> Action:
    return lambda op: try_hardware(job.rt, op, sequence, job.record)


WORK: dict[str, Work] = {
    "power": Work(lambda job, _: job.power, _within(REGISTER_S + POWER_S + SPARE_S), by_bmc=True),
    "inspect": Work(lambda job, _: job.inspect, _within(INSPECT_S + 2 * SPARE_S), by_bmc=True),
    "classify": Work(lambda job, _: job.classify, _within(RECORD_S)),
    "check": Work(lambda job, _: job.check, _within(RECORD_S)),
    "hardware": Work(_hardware, hardware_deadline_s),
    "ramdisk": Work(lambda job, at: _installation(job, at + 1).ramdisk, _within(RAMDISK_S + LATE_S)),
    "install": Work(lambda job, at: _installation(job, at).install, _within(INSTALL_S)),
    "boot": Work(lambda job, at: _installation(job, at - 1).boot, _within(BOOT_S + LATE_S)),
    "configure": Work(lambda job, _: _commission(job).configure, _within(CONFIGURE_S)),
    "enroll": Work(lambda job, _: _commission(job).enroll, _within(ENROLL_S)),
    "verify": Work(lambda job, _: _commission(job).verify, _within(VERIFY_S)),
}


@task(name="enroll-machine", task_run_name="enroll machines", persist_result=False)
async def enroll_machines(ids: Sequence[str]) -> list[str]:
    """Take the machines of a batch through their stages, side by side."""
    rt = runtime()
    ops = [op for op in await load(ids) if op.verb is Verb.ENROLL_MACHINE]
    records = await rt.store.read(lambda c: machines.by_id(c, {op.subject_id for op in ops}))
    bound = asyncio.Semaphore(AT_ONCE)
    return await each("", ops, lambda op: _go_through(rt, op, MachineEnrollment(rt, op, records[op.subject_id])), bound)


async def _go_through(rt: Runtime, op: Operation, job: MachineEnrollment) -> bool:
    stages = stages_of(op.parameters)
    slots = rt.bmc_slots(job.record.spec["bmc"])
    for sequence, name in enumerate(stages, 1):
        work, last = WORK[name], sequence == len(stages)
        went = await run_step(
            op, sequence, name, "", work.act(job, sequence), last=last,
            deadline_s=work.deadline_s(job.record.spec, op.parameters),
            also=(lambda c, _: machines.set_ready(c, op, job.record.id)) if last else None,
            bound=slots if work.by_bmc else None,
        )  # fmt: skip
        if not went:
            return False
    return True
