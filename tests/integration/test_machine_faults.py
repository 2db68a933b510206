"""What can go wrong while a machine is enrolled: each fault ends in a state, a reason, and a next step.

What BMCs and ramdisks do is simulated here; the real services are in tests/contract, with the same errors.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from control import machines, operations, tables
from core.errors import (
    Conflict,
    CredentialRejected,
    HostFault,
    NotFound,
    RackflowError,
    Unreachable,
    Unsupported,
)  # fmt: skip
from core.states import MachineState, OperationState, Verb
from drivers import hardware
from drivers.fake_world import FOREVER, world
from tests.integration.line import Line
from tests.integration.sshd import sshd

VERB = Verb.ENROLL_MACHINE
BODY = {"machines": [{"name": "f0", "bmc": "fake://f0"}]}


@dataclass(frozen=True)
class Fault:
    """What a verb of the BMC raises, and the step in which the enrollment ends."""

    verb: str
    error: RackflowError
    step: str


FAULTS = {
    "a wrong password": Fault("power", CredentialRejected("refused", fix="correct it"), "power"),
    "a BMC that does not answer": Fault("power", Unreachable("no answer"), "power"),
    "a BMC that is no BMC": Fault("power", HostFault("says nonsense", fix="look at it"), "power"),
    "a system that it does not manage": Fault("power", NotFound("no such system", fix="name another"), "power"),
    "a BMC that tells nothing": Fault("inspect", Unsupported("cannot", fix="use Redfish"), "inspect"),
    "a machine that never boots the ramdisk": Fault(
        "inspect", HostFault("the ramdisk did not answer within 1800 s", fix="look at its console"), "inspect"
    ),
    "a ramdisk that tells of an error": Fault("inspect", HostFault("ramdisk: no disks", fix="mend it"), "inspect"),
    "an inspection that somebody else makes": Fault("inspect", Conflict("it is inspected already"), "inspect"),
    "an Inspector that is away": Fault("inspect", Unreachable("no answer", fix="start it"), "inspect"),
}  # fmt: skip


def runs(pid: Path) -> bool:
    """Say whether the process whose number stands in a file runs."""
    return Path("/proc", pid.read_text().strip()).exists()


def show(line: Line) -> dict[str, Any]:
    return line.store.read_now(lambda c: machines.show(c, line.admin, "f0"))


@pytest.mark.parametrize("powered", [True, False])
@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_ends_in_a_clear_state(line: Line, name: str, powered: bool) -> None:
    fault, host = FAULTS[name], world.hosts["f0"]
    host.powered = powered
    world.fail("f0", f"baremetal.{fault.verb}", fault.error, FOREVER)
    (op,) = await line.run(VERB, BODY)
    assert op.state in (OperationState.FAILED, OperationState.COMPENSATED), (op.state, op.reason)
    assert (op.error or {})["code"] == fault.error.code
    assert line.steps(op.id)[-1] == (fault.step, "failed")
    found = show(line)
    assert (found["state"], found["error"]["message"]) == (MachineState.FAULTY, fault.error.message)
    assert (found["error"]["fix"] or "") == fault.error.fix
    assert host.powered is powered
    world.faults.clear()
    (again,) = await line.run(VERB, BODY)  # nothing is left over that would stand in its way
    assert (again.state, show(line)["state"]) == (OperationState.DONE, MachineState.READY)
    assert show(line)["error"] is None


FOUND: dict[str, tuple[dict[str, Any], str, str]] = {
    "a MAC address that another one has": ({"macs": ("52:54:00:00:00:0a",)}, "f1", Conflict.code),
    "a serial number that another one has": ({"serial": "A1"}, "f1", Conflict.code),
    "a memory module that died": ({"memory_mib": 49152}, "f0", HostFault.code),
}  # fmt: skip


@pytest.mark.parametrize("powered", [True, False])
@pytest.mark.parametrize("name", FOUND)
async def test_what_an_inspection_finds_ends_in_a_clear_state(line: Line, name: str, powered: bool) -> None:
    values, before, code = FOUND[name]
    if before != "f0":
        vars(world.hosts[before]).update(values)
    await line.run(VERB, {"machines": [{"name": before, "bmc": f"fake://{before}"}]})
    host = world.hosts["f0"]
    vars(host).update(values)
    host.powered = powered
    (op,) = await line.run(VERB, BODY)
    assert op.state in (OperationState.FAILED, OperationState.COMPENSATED), (op.state, op.reason)
    found = show(line)
    assert (found["state"], found["error"]["code"], host.powered) == (MachineState.FAULTY, code, powered)
    assert found["error"]["evidence"], "what was seen"
    assert found["error"]["fix"], "what to do"


async def test_what_passes_by_itself_is_tried_again(line: Line) -> None:
    world.fail("f0", "baremetal.power", Unreachable("no answer"), 2)
    world.slow("f0", "baremetal.inspect", 0.3)
    (op,) = await line.run(VERB, BODY)
    assert (op.state, op.error) == (OperationState.DONE, None)


async def test_power_that_will_not_go_off_again_is_held_for_a_person(line: Line) -> None:
    """It was off, its inspection failed half-way, and nobody can say that it is off again."""
    host = world.hosts["f0"]
    host.powered = False
    world.fail("f0", "baremetal.inspect", HostFault("ramdisk: no disks"), FOREVER)
    world.fail("f0", "baremetal.set_power", HostFault("took the order, and is on"), FOREVER)
    (op_id,) = line.submit(VERB, BODY)
    t = tables.operation
    for _ in range(8):
        await line.work()
        line.store.write_now(lambda c: c.execute(sa.update(t).where(t.c.id == op_id).values(not_before=None)))
    (op,) = line.operations([op_id])
    assert op.state is OperationState.HELD, (op.state, op.reason)
    assert "took the order, and is on" in str(op.error)
    assert show(line)["state"] == MachineState.FAULTY


async def test_a_second_enrollment_while_one_runs_is_refused(line: Line) -> None:
    line.submit(VERB, BODY)
    for body in (BODY, {"names": ["f0"]}):
        with pytest.raises(Conflict, match="is busy") as caught:
            line.submit(VERB, body)
        assert "operation cancel" in caught.value.fix


@pytest.mark.parametrize("was", [None, MachineState.READY])
async def test_an_abort_while_hardware_is_tried_ends_the_tool(
    line: Line, tmp_path: Path, was: MachineState | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 60"
    only = hardware.Try("burn-in", "stress-ng", ("sh", "-c", script), 60, lambda result: pytest.fail("it ended"))
    monkeypatch.setattr(hardware, "tries", lambda machine, want: [only])
    folder = tmp_path / "ssh"
    folder.mkdir()
    async with sshd(folder) as here:
        ssh = {"address": here.address, "port": here.port, "key_file": str(here.key_file)}
        first = {"machines": [{"name": "f0", "bmc": "fake://f0", "ssh": ssh}]}
        if was is not None:
            await line.run(VERB, first)
        wanted = {"checks": ["burn-in"], "burn_in_s": 60}
        first["machines"][0]["hardware"] = wanted
        (op_id,) = line.submit(VERB, first if was is None else {"names": ["f0"], "hardware": wanted})
        work = asyncio.create_task(line.work())
        while not pid.exists():
            await asyncio.sleep(0.01)
        line.store.write_now(lambda c: operations.cancel(c, line.admin, op_id))
        await line.runtime.look_for_cancels()
        await work
        assert not runs(pid)
        await line.runtime.pool.close()
    (op,) = line.operations([op_id])
    assert op.state is OperationState.CANCELLED, (op.state, op.error)
    assert show(line)["state"] == (was or MachineState.FAULTY)
