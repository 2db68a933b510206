"""Change machines by their BMCs: power, identify LED, disks wiped."""

from __future__ import annotations

from prefect import flow

from blueprints.machine import MachineAction
from core.states import Verb
from tasks.forms import names
from tasks.ledger import enter
from tasks.machine_actions import change_machines
from tasks.settle import settle


@flow(name="change_machine", flow_run_name="change_machine")
async def change_machine(
    machines: str = "",
    action: MachineAction = "power-on",
    operations: list[str] = [],  # noqa: B006 - a form's default
) -> None:
    """Do something to machines by their BMCs.

    Args:
        machines: names, separated by commas
        action: power-off asks the operating system, power-cut does not; rescue starts it from the network once;
            erase wipes all disks of what is no host
        operations: leave empty; filled by rackflow's dispatcher
    """
    batch = await enter(Verb.CHANGE_MACHINE, {"machines": names(machines), "action": action}, operations)
    try:
        await change_machines(batch)
    finally:
        await settle(batch)
