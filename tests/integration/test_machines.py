"""Machines enrolled by simulated BMCs: bad passwords, silence, doubles, losses, aborts and killed workers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import tasks.machine_power
import tasks.machines
from blueprints.machine import MachineRulesSpec
from control import machines, operations, secrets, tables
from control.operations import Operation
from control.secrets import Seal
from core.errors import Conflict, CredentialRejected, HostFault, Invalid, Unreachable
from core.states import MachineState, OperationState, Verb
from drivers.fake_world import world
from tests.integration.line import Line
from tests.integration.pump import Pump

STEPS = ("power", "inspect", "classify", "check")
VERB = Verb.ENROLL_MACHINE
RULES = MachineRulesSpec.model_validate({
    "classify": [{"name": "virt", "when": "virtualises and cpus >= 16", "role": "kvm", "traits": ["vt"]}],
    "checks": [{"name": "memory", "require": "memory_mib >= 65536", "figure": "memory_mib"}],
})  # fmt: skip


def bodies(*names: str, **more: Any) -> dict[str, Any]:
    return {"machines": [{"name": name, "bmc": f"fake://{name}", **more} for name in names]}


def machine(line: Line, name: str) -> dict[str, Any]:
    return line.store.read_now(lambda c: machines.show(c, line.admin, name))


def give_rules(line: Line) -> None:
    line.store.write_now(lambda c: machines.set_rules(c, line.admin, RULES))


async def enroll(line: Line, *names: str, **more: Any) -> list[Operation]:
    return await line.run(VERB, {**bodies(*names), **more})


def reason(op: Operation) -> dict[str, Any]:
    assert op.state in (OperationState.FAILED, OperationState.COMPENSATED), (op.state, op.reason)
    assert op.error is not None
    return op.error


async def test_a_machine_is_inspected_sorted_and_checked(line: Line) -> None:
    give_rules(line)
    (op,) = await enroll(line, "f0")
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert line.steps(op.id) == [(name, "done") for name in STEPS]
    found = machine(line, "f0")
    assert (found["state"], found["inventory"]["memory_mib"]) == (MachineState.READY, 65536)
    assert (found["classified"]["role"], found["classified"]["traits"]) == ("kvm", ["vt"])
    assert [(c["name"], c["passed"], c["figure"]) for c in found["checks"]] == [
        ("nothing-lost", True, 0.0), ("memory", True, 65536.0),
    ]  # fmt: skip


async def test_a_password_is_used_and_stands_nowhere_in_clear(line: Line) -> None:
    world.hosts["f0"].bmc_password = "hunter2"
    seal = Seal(line.settings.paths.secrets_key)
    (op,) = await enroll(line, "f0", sealed={"f0": seal.close_up("hunter2")})
    assert op.state is OperationState.DONE, op.error
    everything = line.store.read_now(
        lambda c: [str(row) for table in tables.metadata.sorted_tables for row in c.execute(table.select())]
    )
    assert "hunter2" not in "".join(everything)
    assert "sealed" not in json.dumps(machine(line, "f0"))
    seal.add_key()
    assert line.store.write_now(lambda c: secrets.encrypt_again(c, seal)) == 1
    seal.drop_old_keys()
    (again,) = await enroll(line, "f0")  # without a password: the one that is kept
    assert again.state is OperationState.DONE, again.error


async def test_a_kept_password_never_goes_to_another_bmc(line: Line) -> None:
    seal = Seal(line.settings.paths.secrets_key)
    await enroll(line, "f0", sealed={"f0": seal.close_up("hunter2")})
    moved = {"machines": [{"name": "f0", "bmc": "fake://elsewhere"}]}
    line.submit(VERB, moved)
    assert line.store.read_now(lambda c: machines.get(c, "f0")).sealed_password == ""


async def test_a_password_in_clear_is_refused(line: Line) -> None:
    with pytest.raises(Invalid, match="not encrypted"):
        line.submit(VERB, bodies("f0", password="hunter2"))


async def test_a_wrong_password_fails_that_machine_only(line: Line) -> None:
    world.hosts["f1"].bmc_password = "right"
    good, bad = await enroll(line, "f0", "f1")
    assert good.state is OperationState.DONE
    assert reason(bad)["code"] == CredentialRejected.code
    assert machine(line, "f1")["state"] == MachineState.FAULTY
    assert machine(line, "f1")["error"]["code"] == CredentialRejected.code


async def test_a_silent_bmc_ends_at_its_deadline(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.machines, "POWER_S", 0.05)
    world.hang("f0", "baremetal.power")
    (op,) = await enroll(line, "f0")
    assert reason(op)["code"] == Unreachable.code
    assert "did not answer in" in reason(op)["message"]
    assert machine(line, "f0")["state"] == MachineState.FAULTY


@pytest.mark.parametrize(("same", "what"), [
    ({"macs": ("52:54:00:00:00:0A",)}, "MAC address 52:54:00:00:00:0a"), ({"serial": "A1"}, "serial number A1"),
])  # fmt: skip
async def test_what_another_machine_has_is_refused(line: Line, same: dict[str, Any], what: str) -> None:
    for name in ("f0", "f1"):
        for field, value in same.items():
            setattr(world.hosts[name], field, value)
    (first,) = await enroll(line, "f0")
    (second,) = await enroll(line, "f1")
    assert first.state is OperationState.DONE
    assert (reason(second)["code"], reason(second)["message"]) == (Conflict.code, f"machine f0 has the {what} already")
    assert machine(line, "f1")["inventory"] is None
    line.store.write_now(lambda c: machines.retire(c, line.admin, "f0"))
    (third,) = await enroll(line, "f1")
    assert third.state is OperationState.DONE, third.error


async def test_a_serial_that_nobody_wrote_tells_nothing(line: Line) -> None:
    for name in ("f0", "f1"):
        world.hosts[name].serial = "To Be Filled By O.E.M."
    assert {op.state for op in await enroll(line, "f0", "f1")} == {OperationState.DONE}


async def test_the_same_bmc_twice_is_refused_at_once(line: Line) -> None:
    await enroll(line, "f0")
    with pytest.raises(Conflict, match="machine f0's already"):
        line.submit(VERB, {"machines": [{"name": "other", "bmc": "FAKE://F0/".lower()}]})
    line.submit(VERB, {"machines": [{"name": "other", "bmc": "fake://f0", "system": "2"}]})


async def test_a_machine_that_has_less_than_before_fails_once_and_tells_what(line: Line) -> None:
    await enroll(line, "f0")
    world.hosts["f0"].memory_mib = 49152
    (op,) = await enroll(line, "f0")
    assert reason(op)["code"] == HostFault.code
    lost = {"what": "memory_mib", "kind": "less", "before": 65536, "after": 49152}
    assert reason(op)["evidence"]["lost"] == [lost]
    assert machine(line, "f0")["state"] == MachineState.FAULTY
    seen = line.store.read_now(lambda c: machines.history(c, line.admin, "f0"))
    assert [one["changes"] for one in seen] == [[lost], []]
    (taken,) = await enroll(line, "f0")
    assert (taken.state, machine(line, "f0")["state"]) == (OperationState.DONE, MachineState.READY)


async def test_a_failed_check_tells_its_figure(line: Line) -> None:
    give_rules(line)
    world.hosts["f0"].memory_mib = 1024
    (op,) = await enroll(line, "f0")
    assert reason(op)["message"] == "machine f0 failed: memory (memory_mib >= 65536, found 1024)"
    assert [c["passed"] for c in machine(line, "f0")["checks"]] == [True, False]


@pytest.mark.parametrize("powered", [True, False])
@pytest.mark.parametrize("verb", ["power", "inspect"])
async def test_an_abort_leaves_the_power_as_found(
    line: Line, verb: str, powered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = world.hosts["f0"]
    host.powered = powered
    world.hang("f0", f"baremetal.{verb}")
    (op_id,) = line.submit(VERB, bodies("f0"))
    work = asyncio.create_task(line.work())
    while not world.calls.get(f"baremetal.{verb}"):
        await asyncio.sleep(0.01)
    if verb == "inspect":
        host.powered = True  # the ramdisk runs
    line.store.write_now(lambda c: operations.cancel(c, line.admin, op_id))
    await line.runtime.look_for_cancels()
    await work
    (op,) = line.operations([op_id])
    assert op.state is OperationState.CANCELLED, (op.state, op.error)
    assert host.powered is powered
    assert machine(line, "f0")["state"] == MachineState.FAULTY


@pytest.mark.parametrize("verb", ["power", "inspect"])
async def test_a_killed_worker_is_followed_by_another(line: Line, verb: str) -> None:
    world.hang("f0", f"baremetal.{verb}")
    (op_id,) = line.submit(VERB, bodies("f0"))
    pump = Pump(line)
    await pump.round()
    while not world.calls.get(f"baremetal.{verb}"):
        await asyncio.sleep(0.01)
    await pump.kill()
    world.release("f0", f"baremetal.{verb}")
    for _ in range(3):
        await line.work()
    (op,) = line.operations([op_id])
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert len(line.store.read_now(lambda c: machines.history(c, line.admin, "f0"))) == 1
