"""Hardware tried from within: the real tools, over a real SSH connection to this machine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from blueprints.machine import MachineRulesSpec
from control import machines
from control.operations import Operation
from core.errors import CredentialRejected, HostFault, Invalid, Unsupported
from core.settings import DriverSettings
from core.states import MachinePower, MachineState, OperationState, Verb
from drivers import hardware
from drivers.baremetal.base import BareMetal
from drivers.hardware import Machine, Want
from drivers.hardware_output import Outcome
from drivers.transport.base import Endpoint
from drivers.transport.ssh import connect
from tests.integration.line import Line
from tests.integration.sshd import sshd

VERB = Verb.ENROLL_MACHINE
QUICK = {"seconds": 1, "memory_mib": 2}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Endpoint]:
    folder = tmp_path / "ssh"
    folder.mkdir()
    async with sshd(folder) as endpoint:
        yield endpoint


def machine(here: Endpoint, **more: Any) -> dict[str, Any]:
    ssh = {"address": here.address, "port": here.port, "key_file": str(here.key_file)}
    return {"machines": [{"name": "f0", "bmc": "fake://f0", "ssh": ssh, **more}]}


def checks_of(line: Line) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in line.store.read_now(lambda c: machines.show(c, line.admin, "f0"))["checks"]}


def state_of(line: Line) -> MachineState:
    return line.store.read_now(lambda c: machines.get(c, "f0")).state


async def test_memory_burn_in_and_links_pass_with_figures(line: Line, here: Endpoint) -> None:
    (op,) = await line.run(VERB, machine(here, hardware={**QUICK, "checks": ["memory", "burn-in"], "burn_in_s": 1}))
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert line.steps(op.id)[-1] == ("hardware", "done")
    found = checks_of(line)
    assert (found["memory"]["passed"], found["memory"]["figure"], found["memory"]["unit"]) == (True, 2.0, "MiB")
    assert found["burn-in"]["passed"] is True
    assert found["burn-in"]["figure"] > 0
    assert found["nothing-lost"]["kind"] == "rule"
    assert state_of(line) is MachineState.READY
    pinned = line.store.read_now(lambda c: machines.get(c, "f0")).spec["ssh"]["host_key"]
    assert pinned == here.host_key


async def test_a_disk_is_read_and_not_written(here: Endpoint, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    content = bytes(range(256)) * 2**14
    disk.write_bytes(content)
    missing = str(tmp_path / "gone")
    transport = await connect(here, DriverSettings())

    async def told(_: object) -> None:
        return None

    try:
        want = Want(("disk",), seconds=1, disk_min_mbps=1e9)
        found = await hardware.run(transport, Machine(frozenset({"fio"}), (str(disk), missing), {}), want, told)
    finally:
        await transport.close()
    by_name = {one.name: one for one in found}
    slow, gone = by_name[f"disk-read {disk}"], by_name[f"disk-read {missing}"]
    assert slow.figure is not None
    assert slow.figure > 0
    assert (slow.passed, slow.require, slow.unit) == (False, ">= 1e+09 MB/s", "MB/s")
    assert (gone.passed, gone.figure) == (False, 0.0)
    assert by_name[f"disk-health {disk}"] == Outcome(
        f"disk-health {disk}", False, require="smartctl installed",
        evidence={"why": "smartctl is not installed there (apt-get install smartmontools)"},
    )  # fmt: skip
    assert disk.read_bytes() == content


async def test_a_disk_that_fails_its_check_is_told_and_mended_by_the_next_try(
    line: Line, here: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Outcome("disk-health /dev/sda", False, 12.0, "sectors reallocated", "SMART passed", {"celsius": 61})
    good = Outcome("disk-health /dev/sda", True, 0.0, "sectors reallocated", "SMART passed", {})
    outcomes = [bad]

    async def run(*_: object) -> list[Outcome]:
        return [outcomes[-1]]

    monkeypatch.setattr(hardware, "run", run)
    (op,) = await line.run(VERB, machine(here, hardware=QUICK))
    assert reason(op)["code"] == HostFault.code
    assert reason(op)["message"] == (
        "machine f0 failed: disk-health /dev/sda (SMART passed, found 12 sectors reallocated)"
    )
    assert reason(op)["evidence"]["failed"][0]["evidence"] == {"celsius": 61}
    assert reason(op)["fix"] == "mend it, then: rackflow machine checks f0 --run"
    assert (state_of(line), checks_of(line)["disk-health /dev/sda"]["passed"]) == (MachineState.FAULTY, False)
    outcomes.append(good)
    (again,) = await line.run(VERB, {"names": ["f0"], "hardware": QUICK})
    assert again.state is OperationState.DONE, again.error
    assert line.steps(again.id) == [("hardware", "done")]
    assert (state_of(line), checks_of(line)["disk-health /dev/sda"]["passed"]) == (MachineState.READY, True)


async def test_sound_hardware_does_not_mend_what_else_is_wrong(
    line: Line, here: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*_: object) -> list[Outcome]:
        return [Outcome("memory", True)]

    monkeypatch.setattr(hardware, "run", run)
    rules = {"checks": [{"name": "large", "require": "memory_mib >= 1000000"}]}
    line.store.write_now(lambda c: machines.set_rules(c, line.admin, MachineRulesSpec.model_validate(rules)))
    (op,) = await line.run(VERB, machine(here))
    assert reason(op)["code"] == HostFault.code
    (again,) = await line.run(VERB, {"names": ["f0"], "hardware": QUICK})
    assert again.state is OperationState.DONE, again.error
    assert state_of(line) is MachineState.FAULTY


async def test_another_host_key_than_wanted_is_refused(line: Line, here: Endpoint) -> None:
    body = machine(here, hardware=QUICK)
    body["machines"][0]["ssh"]["fingerprint"] = "SHA256:" + "A" * 43
    (op,) = await line.run(VERB, body)
    assert reason(op)["code"] == CredentialRejected.code
    assert state_of(line) is MachineState.FAULTY


async def test_hardware_without_a_way_in_is_refused_at_once(line: Line) -> None:
    with pytest.raises(Invalid, match="give ssh"):
        line.submit(VERB, {"machines": [{"name": "f0", "bmc": "fake://f0", "hardware": {}}]})
    await line.run(VERB, {"machines": [{"name": "f0", "bmc": "fake://f0"}]})
    with pytest.raises(Invalid, match="reached by SSH"):
        line.submit(VERB, {"names": ["f0"], "hardware": {}})


async def test_a_bmc_that_tells_nothing_is_made_up_for_by_what_runs_there(
    line: Line, here: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerOnly(BareMetal):
        """As IPMI."""

        async def power(self) -> MachinePower:
            return MachinePower.ON

        async def close(self) -> None:
            return None

    async def power_only(*_: object) -> BareMetal:
        return PowerOnly()

    monkeypatch.setattr("tasks.machines.bmc_of", power_only)
    (op,) = await line.run(VERB, machine(here))
    assert (op.state, op.error) == (OperationState.DONE, None)
    seen = line.store.read_now(lambda c: machines.show(c, line.admin, "f0"))["inventory"]
    assert seen["cpu"]["count"] == os.cpu_count()
    (refused,) = await line.run(VERB, {"machines": [{"name": "f1", "bmc": "fake://f1"}]})
    assert reason(refused)["code"] == Unsupported.code
    assert "ssh" in reason(refused)["fix"]


def reason(op: Operation) -> dict[str, Any]:
    assert op.state in (OperationState.FAILED, OperationState.COMPENSATED), (op.state, op.reason)
    assert op.error is not None
    return op.error
