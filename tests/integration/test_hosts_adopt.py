"""Instances that were there before: taken over as they are, or not at all; and machines that changed their address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

import tasks.hosts
from control import drift, networks, operations, tables
from core.errors import Conflict, HostFault, Invalid, Unsupported
from core.states import HostState, InstanceKind, InstanceState, OperationState, PowerState, Verb
from drivers.facts import gather_facts
from drivers.fake_world import world
from drivers.hypervisor.base import InstanceSpec, NicAttachment
from tests.integration.line import Line
from tests.integration.pump import Pump, deploy, host_of, look

DONE = OperationState.DONE
MAC = "52:54:00:aa:bb:0"


@pytest_asyncio.fixture
async def pump(line: Line) -> AsyncIterator[Pump]:
    """Two VMs of somebody's on f0: old-1 runs, old-2 is off."""
    for number in (1, 2):
        name = f"old-{number}"
        nic = NicAttachment("eth0", f"{MAC}{number}", "br0", address=f"10.9.0.20{number}/16")
        spec = InstanceSpec("", name, name, InstanceKind.VM, 2, 1024, (), (nic,))
        world.hosts["f0"].add_foreign(name, InstanceKind.VM, spec)
    host = world.hosts["f0"]
    host.power_on(host.instances["old-1"])
    await look(line)
    found = Pump(line)
    yield found
    await found.stop()


def adopt(line: Line, *names: str, **new: str) -> str:
    (one,) = line.submit(Verb.ADOPT, {"hosts": ["f0"], "instances": list(names), "names": new})
    return one


def open_drift(line: Line) -> list[str]:
    return sorted(row["subject"] for row in line.store.read_now(lambda c: drift.list_(c, line.admin)))


async def test_they_become_ours_as_they_are(line: Line, pump: Pump) -> None:
    assert open_drift(line) == ["foreign/old-1", "foreign/old-2"]
    (op,) = await pump.until([adopt(line, "old-1", "old-2", **{"old-1": "shop"})])
    assert op.state is DONE, (op.error, op.reason)
    shop, old = line.instance("shop"), line.instance("old-2")
    assert (shop["state"], old["state"]) == (InstanceState.RUNNING, InstanceState.OFF)
    assert (shop["host"], shop["cpu"], shop["memory_mib"]) == ("f0", 2, 1024)
    assert (shop["addresses"], old["addresses"]) == (["10.9.0.201"], [])
    assert [nic["mac"] for nic in shop["nics"]] == [f"{MAC}1"]
    there = world.hosts["f0"].instances["old-1"]
    assert (there.boots, there.power) == (1, PowerState.RUNNING)
    assert there.spec is not None
    assert there.spec.id == shop["id"]
    await look(line)
    assert open_drift(line) == []


async def test_afterwards_verbs_work_but_those_on_our_own_disks(line: Line, pump: Pump) -> None:
    await pump.until([adopt(line, "old-1")])
    there = world.hosts["f0"].instances["old-1"]
    for verb, power in ((Verb.SHUTDOWN, PowerState.STOPPED), (Verb.START, PowerState.RUNNING)):
        (op,) = await line.run(verb, {"instances": ["old-1"], **({"grace_s": 0} if verb is Verb.SHUTDOWN else {})})
        assert (op.state, there.power) == (DONE, power), op.error
    for verb, more in ((Verb.REBOOT, {}), (Verb.SNAPSHOT, {"snapshot": "s"}), (Verb.RESIZE, {"memory": 2048})):
        (op,) = await line.run(verb, {"instances": ["old-1"], **more})
        assert op.state is DONE, (verb, op.error)
    for verb in (Verb.MIGRATE, Verb.UNDEPLOY, Verb.STOP):
        with pytest.raises(Unsupported, match="was adopted"):
            line.submit(verb, {"instances": ["old-1"]})
    world.kill("f0", "old-1")
    await look(line)
    await pump.rest()
    assert there.power is PowerState.RUNNING, "it is looked after as any other"
    (op,) = await line.run(Verb.DELETE, {"instances": ["old-1"]})
    assert op.state is DONE
    assert "old-1" not in world.hosts["f0"].instances


async def test_what_has_problems_is_refused_with_all_reasons(line: Line, pump: Pump) -> None:
    host = world.hosts["f0"]
    host.instances["old-1"].problems = ("it has a tpm device",)
    odd = host.instances["old-2"].foreign
    assert odd is not None
    host.instances["old-2"].foreign = replace(odd, nics=(replace(odd.nics[0], bridge="virbr9"),))
    (op,) = await pump.until([adopt(line, "old-1", "old-2")])
    assert op.state in (OperationState.FAILED, OperationState.COMPENSATED)
    assert op.error is not None
    assert op.error["evidence"]["reasons"] == {
        "old-1": ["it has a tpm device"], "old-2": ["no network is on its bridge virbr9"],
    }  # fmt: skip
    untouched(line)


def untouched(line: Line) -> None:
    """See that nothing was taken over."""
    assert [i.spec for i in world.hosts["f0"].instances.values()] == [None, None]
    for table in (tables.instance, tables.lease):
        live = [r for r in line.store.read_now(lambda c, t=table: c.execute(t.select()).mappings().all())  # type: ignore[misc]
                if r.get("live_name", "lease")]  # fmt: skip
        assert live == []


async def test_a_mark_that_fails_takes_all_back(line: Line, pump: Pump) -> None:
    world.fail("f0", "hypervisor.adopt", Invalid("not today", "instance/old-2"), 1, after=True)
    (op,) = await pump.until([adopt(line, "old-1", "old-2")])
    assert op.state is OperationState.COMPENSATED
    untouched(line)
    (op,) = await pump.until([adopt(line, "old-1", "old-2")])
    assert op.state is DONE, "the names are free again"


async def test_a_host_fault_waits_for_the_operator(line: Line, pump: Pump) -> None:
    world.fail("f0", "hypervisor.adopt", HostFault("the disk is full", "host/f0"), 1)
    (op,) = await pump.until([adopt(line, "old-1")])
    assert op.state is OperationState.HELD


@pytest.mark.parametrize("verb", ["describe", "adopt"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_killed_worker_changes_nothing_about_it(line: Line, pump: Pump, verb: str, times: int) -> None:
    one = adopt(line, "old-1", "old-2")
    before = world.calls.get(f"hypervisor.{verb}", 0) + times - 1
    while world.calls.get(f"hypervisor.{verb}", 0) <= before and not line.operations([one])[0].finished_at:
        await pump.round()
    await pump.kill()
    (op,) = await pump.until([one])
    assert op.state is DONE, (op.error, op.reason)
    names = {"old-1": InstanceState.RUNNING, "old-2": InstanceState.OFF}
    for name, state in names.items():
        spec = world.hosts["f0"].instances[name].spec
        assert spec is not None
        assert (line.instance(name)["state"], line.instance(name)["id"]) == (state, spec.id)


async def test_more_than_the_host_has_is_noted(line: Line, pump: Pump) -> None:
    spec = world.hosts["f0"].instances["old-2"].foreign
    assert spec is not None
    world.hosts["f0"].instances["old-2"].foreign = replace(spec, memory_mib=100_000)
    (op,) = await pump.until([adopt(line, "old-2")])
    assert op.state is DONE
    steps = line.store.read_now(lambda c: operations.steps_of(c, [op.id]))[op.id]
    assert steps[-1].evidence is not None
    assert steps[-1].evidence["overbooked"] == {"memory_mib": {"reserved": 100_000, "has": 65536}}


async def test_a_network_is_needed(line: Line, pump: Pump) -> None:
    line.store.write_now(lambda c: networks.delete(c, line.admin, "lan"))
    (op,) = await pump.until([adopt(line, "old-1")])
    assert "no network is on its bridge br0" in str(op.error)


# the same machine, elsewhere


async def test_a_host_that_holds_instances_may_change_its_address(line: Line) -> None:
    (web,) = await deploy(line, "web")
    host = web["host"]
    moved = {"name": host, "address": "10.99.7.7", "driver": "fake"}
    with pytest.raises(Conflict, match="fingerprint"):
        line.submit(Verb.ENROLL, {"hosts": [moved]})
    (op,) = await line.run(Verb.ENROLL, {"hosts": [{**moved, "fingerprint": "SHA256:abc"}]})
    assert op.state is DONE, op.error
    assert (host_of(line, host).address, host_of(line, host).state) == ("10.99.7.7", HostState.READY)
    assert line.instance("web")["state"] == InstanceState.RUNNING


async def test_another_machine_is_not_taken_for_it(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    (web,) = await deploy(line, "web")
    before = host_of(line, web["host"])

    async def other(transport: Any) -> Any:
        return replace(await gather_facts(transport), machine_id="another")

    monkeypatch.setattr(tasks.hosts, "gather_facts", other)
    moved = {"name": before.name, "address": "10.99.7.7", "driver": "fake", "fingerprint": "SHA256:abc"}
    (op,) = await line.run(Verb.ENROLL, {"hosts": [moved]})
    assert op.state is OperationState.FAILED
    assert op.error is not None
    assert op.error["evidence"]["machine_id"] == "another"
    after = host_of(line, before.name)
    assert (after.address, after.host_key, after.state) == (before.address, before.host_key, HostState.READY)
