"""What is done to a machine by its BMC when somebody asks for it: power, identify LED, erasure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from prefect import task

from control import machines
from control.accept.machine_change import require_may
from control.machines import MachineRecord
from control.operations import Operation
from core.errors import Unreachable, Unsupported
from core.states import Verb
from drivers.baremetal.base import GOALS, BareMetal, PowerChange
from drivers.baremetal.facets import FACETS, BootDevice, BootsOnce, Erases, Identifies
from tasks.ledger import Seen, load, run_step
from tasks.machine_power import POWER_S, bmc_of
from tasks.runtime import Runtime, runtime
from tasks.settle import each

POLITE_S = 300.0  # that an operating system gets to shut down
ERASE_S = 86400.0  # large disks are overwritten for hours
SPARE_S = 10.0  # that a driver gets beyond its own deadline


@dataclass(frozen=True)
class Action:
    """facet: what its BMC must be able to do, "" = power only. do: returns whether it changed anything."""

    facet: str
    deadline_s: float
    do: Callable[[BareMetal], Awaitable[bool]]


def _power(change: PowerChange, seconds: float = POWER_S) -> Action:
    return Action("", seconds, lambda bmc: bmc.set_power(change, timeout_s=seconds))


async def _identify(bmc: BareMetal, on: bool) -> bool:
    assert isinstance(bmc, Identifies)
    return await bmc.identify(on)


async def _rescue(bmc: BareMetal) -> bool:
    """Start it from the network, this once: what answers there (a ramdisk) is the way in when its own system is not."""
    assert isinstance(bmc, BootsOnce)
    await bmc.boot_once(BootDevice.NETWORK)
    return await bmc.set_power(PowerChange.RESET, timeout_s=POWER_S)


async def _erase(bmc: BareMetal) -> bool:
    assert isinstance(bmc, Erases)
    return await bmc.erase(timeout_s=ERASE_S)


ACTIONS: dict[str, Action] = {  # by their names in blueprints' MachineAction
    "power-on": _power(PowerChange.ON),
    "power-off": _power(PowerChange.OFF, POLITE_S),
    "power-cut": _power(PowerChange.FORCE_OFF),
    "reset": _power(PowerChange.RESET),
    "rescue": Action("boot-once", 2 * POWER_S, _rescue),
    "led-on": Action("identify", POWER_S, lambda bmc: _identify(bmc, True)),
    "led-off": Action("identify", POWER_S, lambda bmc: _identify(bmc, False)),
    "erase": Action("erase", ERASE_S, _erase),
}
ORDERED = {"power-on": PowerChange.ON, "power-off": PowerChange.OFF, "power-cut": PowerChange.FORCE_OFF}


@task(name="change-machine", task_run_name="change machines", persist_result=False)
async def change_machines(ids: Sequence[str]) -> list[str]:
    """Do what was asked for to the machines of a batch, side by side."""
    rt = runtime()
    ops = [op for op in await load(ids) if op.verb is Verb.CHANGE_MACHINE]
    records = await rt.store.read(lambda c: machines.by_id(c, {op.subject_id for op in ops}))

    async def work(op: Operation) -> bool:
        name, record = op.parameters["action"], records[op.subject_id]
        deadline_s = ACTIONS[name].deadline_s + 2 * SPARE_S
        return await run_step(op, 1, name, "", lambda op: _act(rt, op, record), deadline_s=deadline_s, last=True)

    return await each("", ops, work)


async def _act(rt: Runtime, op: Operation, record: MachineRecord) -> Seen:
    name = op.parameters["action"]
    action = ACTIONS[name]
    if not op.parameters.get("force"):
        await rt.store.read(lambda c: require_may(c, name, record.name))  # it may have been given instances meanwhile
    bmc = await bmc_of(rt, record)
    try:
        if action.facet and not isinstance(bmc, FACETS[action.facet]):
            raise Unsupported(
                f"the BMC of {record.name} cannot do that: {name}", f"machine/{record.name}", {"needs": action.facet},
                f"rackflow machine show {record.name} names its BMC; what it can do stands in its last enrollment",
            )  # fmt: skip
        async with asyncio.timeout(action.deadline_s + SPARE_S):
            changed = await action.do(bmc)
    except TimeoutError as error:
        raise Unreachable(
            f"the BMC of {record.name} did not answer in {action.deadline_s:.0f} s", f"machine/{record.name}",
            {"action": name}, f"see whether {record.spec['bmc']} is reached from here",
        ) from error  # fmt: skip
    finally:
        await bmc.close()
    power = {"power": GOALS[ORDERED[name]].value} if name in ORDERED else {}
    return Seen(changed, {"action": name, **power})
