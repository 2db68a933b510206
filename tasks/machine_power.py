"""How a machine's BMC is reached with what the record knows, and its power as it was found."""

from __future__ import annotations

import asyncio
from pathlib import Path

from control import machines
from control.machines import MachineRecord
from control.operations import Operation, steps_of
from control.secrets import Seal
from core.errors import HostFault, Retryable
from core.states import MachinePower, StepState
from drivers.baremetal.base import BareMetal, BmcEndpoint, PowerChange
from drivers.baremetal.facets import Deploys, Registers
from drivers.bmcs import connect
from tasks.runtime import Runtime

POWER_S = 60.0
BACK_S = 120.0


async def bmc_of(rt: Runtime, machine: MachineRecord) -> BareMetal:
    """Return the driver of a machine's BMC. Raise Invalid, CredentialRejected."""
    spec = machine.spec
    password = Seal(rt.settings.paths.secrets_key).open_up(machine.sealed_password, f"machine/{machine.name}")
    file = Path(spec["password_file"]) if spec["password_file"] else None
    endpoint = BmcEndpoint(
        machine.name, spec["bmc"], spec["user"], file, password, verify_tls=spec["verify_tls"],
        system_id=spec["system"], inspector=(spec.get("node") or {}).get("inspector", ""),
    )  # fmt: skip
    return await connect(endpoint, rt.settings.drivers)


async def register(machine: MachineRecord, bmc: BareMetal) -> bool:
    """Let what stands between us and a machine's BMC know it, where the machine's spec says how."""
    node = machine.spec.get("node")
    if not node or not isinstance(bmc, Registers):
        return False
    file = Path(node["password_file"]) if node["password_file"] else None
    behind = BmcEndpoint(
        machine.name, node["address"], node["user"], file, verify_tls=machine.spec["verify_tls"],
        system_id=node["system"],
    )  # fmt: skip
    return await bmc.register(node["driver"], behind, node["macs"])


async def as_found(rt: Runtime, op: Operation) -> None:
    """Put a machine off again that was off when its enrollment began, and take back what Ironic wrote to it.

    Raise HostFault when that is not certain.
    """
    steps = {step.name: step for step in (await rt.store.read(lambda c: steps_of(c, [op.id])))[op.id]}
    if "enroll" in steps and steps["enroll"].state is StepState.DONE:
        return  # it is a host by now, out of use: who looks why needs it on
    machine = (await rt.store.read(lambda c: machines.by_id(c, [op.subject_id])))[op.subject_id]
    power, install = steps.get("power"), steps.get("install")
    was_off = (
        power is not None and power.state is StepState.DONE
        and (power.evidence or {}).get("power") == MachinePower.OFF
    )  # fmt: skip
    began = install is not None and install.state is not StepState.PENDING
    deployed = began and (machine.spec.get("install") or {}).get("by") == "ironic"
    if not was_off and not deployed:
        return
    bmc = await bmc_of(rt, machine)
    try:
        if deployed and isinstance(bmc, Deploys):
            await bmc.take_back()
        if was_off:
            async with asyncio.timeout(BACK_S):
                await bmc.set_power(PowerChange.FORCE_OFF, timeout_s=POWER_S)
    except (Retryable, TimeoutError) as error:
        raise HostFault(
            f"machine {machine.name} was off, and its BMC does not say that it is again: {error}",
            f"machine/{machine.name}", {"found": MachinePower.OFF.value}, "look at its power, then retire or enroll it",
        ) from error  # fmt: skip
    finally:
        await bmc.close()
