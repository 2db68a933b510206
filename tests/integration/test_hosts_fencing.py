"""Hosts that fall silent: dead, cut off, or with a BMC that lies. Whatever it is, nothing runs twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from blueprints.cluster import ClusterSpec
from control import clusters, drift, hosts, operations
from control.accept.draft import unfinished
from core.errors import Conflict, HostFault, Unreachable, Unsupported
from core.ids import on_host
from core.states import HostState, InstanceState, MachinePower, OperationState, PowerState, Verb
from drivers.baremetal.fake import FakeBmc
from drivers.fake_world import FOREVER, world
from tests.integration.line import Line
from tests.integration.pump import (
    SAN,
    Pump,
    at_once,
    deploy,
    fence_quickly,
    host_of,
    look,
    running,
    with_bmcs,
    with_san,
)

DONE = OperationState.DONE


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fence_quickly(monkeypatch)


@pytest_asyncio.fixture
async def pump(line: Line) -> AsyncIterator[Pump]:
    """Three hosts with BMCs and a SAN; a host may count as dead after two looks."""
    await with_bmcs(line)
    await with_san(line)
    at_once(line)
    found = Pump(line)
    yield found
    await found.stop()


async def guests(line: Line) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Deploy one to the SAN and one to the disks of the same host; return the host and both."""
    (shared,) = await deploy(line, "shared", requirements={"datastore": "san"})
    (local,) = await deploy(line, "local", requirements={"host": shared["host"], "datastore": "local"})
    return shared["host"], shared, local


def fences(line: Line) -> list[operations.Operation]:
    rows = line.store.read_now(lambda c: operations.list_(c, line.admin))
    return line.operations([row["id"] for row in rows if row["verb"] == Verb.FENCE])


def error(line: Line, host: str) -> dict[str, Any]:
    found = host_of(line, host).error
    assert found is not None
    return found


async def test_a_dead_host_is_fenced_and_what_can_starts_elsewhere(line: Line, pump: Pump) -> None:
    host, shared, local = await guests(line)
    world.crash(host)
    await look(line)
    assert fences(line) == [], "one silent look is none"
    assert line.instance("shared")["reason"].startswith(f"host {host} does not answer since ")
    await look(line)
    await pump.rest()
    (op,) = fences(line)
    assert (op.state, op.asked_by) == (DONE, "reconciler"), op.error
    assert host_of(line, host).state is HostState.FENCED
    moved = line.instance("shared")
    assert (moved["state"], moved["host"] != host) == (InstanceState.RUNNING, True)
    assert world.read_disk(shared["id"], "root") == "shared"
    held = line.instance("local")
    assert (held["state"], held["host"]) == (InstanceState.HELD, host)
    assert held["reason"] == f"its disks are on {host}, which is fenced: power it on again or restore a backup"
    assert world.harm == []
    await comes_back(line, pump, host, local["id"])


async def comes_back(line: Line, pump: Pump, host: str, local: str) -> None:
    """Power it on: what is elsewhere is cleared there before anything is placed, what was held goes on."""
    left = on_host(line.instance("shared")["id"])
    assert left in world.hosts[host].instances
    world.revive(host)
    await look(line)
    assert left not in world.hosts[host].instances
    assert host_of(line, host).state is HostState.FENCED, "until somebody enables it"
    line.store.write_now(lambda c: hosts.enable(c, line.admin, host))
    await look(line, 2)
    await pump.rest()
    await look(line)
    assert host_of(line, host).state is HostState.READY
    assert (line.instance("local")["state"], running(local)) == (InstanceState.RUNNING, [host])
    assert world.read_disk(line.instance("shared")["id"], "root") == "shared"
    assert line.store.read_now(lambda c: drift.list_(c, line.admin)) == []
    assert world.harm == []


async def test_a_host_that_is_cut_off_is_switched_off_before_anything_starts(line: Line, pump: Pump) -> None:
    host, shared, _ = await guests(line)
    world.cut(host)
    assert running(shared["id"]) == [host]
    await look(line, 2)
    await pump.rest()
    (there,) = running(shared["id"])
    assert there == line.instance("shared")["host"] != host
    assert world.hosts[host].powered is False
    assert world.harm == []


async def test_left_overs_are_never_started_and_go_before_the_host_is_ready(line: Line, pump: Pump) -> None:
    host, shared, _ = await guests(line)
    world.cut(host)
    await look(line, 2)
    await pump.rest()
    world.revive(host)
    world.fail(host, "hypervisor.undefine", HostFault("libvirt is odd", f"host/{host}"), FOREVER)
    line.store.write_now(lambda c: hosts.enable(c, line.admin, host))
    await look(line, 2)
    assert host_of(line, host).state is HostState.FAULTY
    world.faults.clear()
    await look(line)
    assert host_of(line, host).state is HostState.READY
    assert on_host(shared["id"]) not in world.hosts[host].instances
    assert running(shared["id"]) == [line.instance("shared")["host"]]
    assert world.harm == []


@pytest.mark.parametrize("verb", ["baremetal.power", "baremetal.set_power", "hypervisor.define", "hypervisor.start"])
async def test_a_killed_worker_changes_nothing_about_it(line: Line, pump: Pump, verb: str) -> None:
    host, shared, _ = await guests(line)
    world.cut(host)
    await look(line, 2)
    before = world.calls.get(verb, 0)
    world.hang("*", verb)
    while world.calls.get(verb, 0) == before:
        await pump.round()
    await pump.kill()
    world.release("*", verb)
    await pump.rest()
    assert [op.state for op in fences(line)] == [DONE]
    assert running(shared["id"]) == [line.instance("shared")["host"]] != [host]
    assert line.instance("local")["state"] == InstanceState.HELD
    assert world.harm == []


async def test_a_host_that_answers_again_is_not_fenced(line: Line, pump: Pump) -> None:
    host, shared, _ = await guests(line)
    world.cut(host)
    await look(line, 2)
    world.hosts[host].connected = True
    await pump.rest()
    (op,) = fences(line)
    assert op.state is OperationState.FAILED
    assert "it answers" in str(op.error)
    await look(line)
    assert (host_of(line, host).state, host_of(line, host).error) == (HostState.READY, None)
    assert running(shared["id"]) == [host]
    assert line.instance("shared")["reason"] in ("", None)
    assert world.harm == []


async def test_a_host_that_comes_back_while_it_is_fenced_starts_nothing(line: Line, pump: Pump) -> None:
    host, shared, _ = await guests(line)
    world.cut(host)
    await look(line, 2)
    world.hang("*", "hypervisor.define")
    while host_of(line, host).state is not HostState.FENCED or line.instance("local")["state"] != "held":
        await pump.round()
    subject = f"host/{host_of(line, host).id}"
    while line.store.read_now(lambda c: unfinished(c, [subject])):  # the fencing has yet to write its own end
        await pump.round()
    world.revive(host)
    with pytest.raises(Conflict, match="under way"):
        line.store.write_now(lambda c: hosts.enable(c, line.admin, host))
    for decide in (hosts.disable, hosts.maintain):
        with pytest.raises(Conflict, match="is fenced"):
            line.store.write_now(lambda c, d=decide: d(c, line.admin, host))  # type: ignore[misc]
    with pytest.raises(Conflict, match="is fenced"):
        line.submit(Verb.EVACUATE, {"hosts": [host]})
    await pump.until(line.submit(Verb.RECONCILE, {"hosts": []}))
    assert running(shared["id"]) == []
    world.release("*", "hypervisor.define")
    await pump.rest()
    assert running(shared["id"]) == [line.instance("shared")["host"]] != [host]
    assert world.harm == []


async def test_a_bmc_that_says_off_and_on_again_is_not_believed(
    line: Line, pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, shared, _ = await guests(line)
    answers = [MachinePower.ON, MachinePower.ON, MachinePower.OFF, MachinePower.ON]

    async def power(self: FakeBmc) -> MachinePower:
        return answers.pop(0)  # asked once more, the test fails

    async def nothing(self: FakeBmc, change: object, *, timeout_s: float = 60.0) -> bool:
        return True

    monkeypatch.setattr(FakeBmc, "power", power)
    monkeypatch.setattr(FakeBmc, "set_power", nothing)
    world.cut(host)
    await look(line, 2)
    await pump.rest()
    (op,) = fences(line)
    assert op.state is OperationState.HELD
    assert "does not say that it is off" in error(line, host)["evidence"]["failover"]
    await look(line, 3)
    assert len(fences(line)) == 1, "it is not tried again and again"
    assert "--confirmed" in error(line, host)["fix"]
    assert host_of(line, host).state is HostState.UNREACHABLE
    assert running(shared["id"]) == [host]
    assert line.instance("shared")["state"] == InstanceState.RUNNING


async def test_a_bmc_of_another_machine_is_found_out(line: Line, pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
    host, shared, _ = await guests(line)

    async def off(self: FakeBmc) -> MachinePower:
        world.hosts[host].connected = True  # while it is asked, the network is mended
        return MachinePower.OFF

    async def nothing(self: FakeBmc, change: object, *, timeout_s: float = 60.0) -> bool:
        return True

    monkeypatch.setattr(FakeBmc, "set_power", nothing)
    monkeypatch.setattr(FakeBmc, "power", off)
    world.cut(host)
    await look(line)
    world.hosts[host].connected = False
    await look(line)
    world.hosts[host].connected = False
    await pump.rest()
    (op,) = fences(line)
    assert op.state is OperationState.FAILED
    assert running(shared["id"]) == [host]
    assert line.instance("shared")["host"] == host


async def test_a_bmc_that_hangs_or_is_silent_leaves_it_to_people(line: Line, pump: Pump) -> None:
    host, shared, _ = await guests(line)
    world.hang(host, "baremetal.power")
    world.cut(host)
    await look(line, 3)
    assert error(line, host)["evidence"]["failover"] == "its BMC does not answer either"
    world.release(host, "baremetal.power")
    world.hosts[host].bmc_answers = False
    await look(line, 2)
    assert fences(line) == []
    world.crash(host)
    (op,) = await pump.until(line.submit(Verb.FENCE, {"hosts": [host], "confirmed": True}))
    assert op.state is DONE
    await pump.rest()
    assert running(shared["id"]) == [line.instance("shared")["host"]] != [host]
    assert world.harm == []


async def test_without_a_bmc_a_person_decides(line: Line) -> None:
    await with_san(line)
    at_once(line)
    pump = Pump(line)
    host, shared, _ = await guests(line)
    world.crash(host)
    await look(line, 3)
    assert fences(line) == []
    assert host_of(line, host).state is HostState.UNREACHABLE
    assert "it has no BMC" in error(line, host)["evidence"]["failover"]
    assert error(line, host)["fix"] == f"see to it that it is off, then: rackflow host fence {host} --confirmed"
    (op,) = await pump.until(line.submit(Verb.FENCE, {"hosts": [host]}))
    assert (op.state, op.error is not None and op.error["code"]) == (OperationState.FAILED, Unsupported.code)
    (op,) = await pump.until(line.submit(Verb.FENCE, {"hosts": [host], "confirmed": True}))
    assert op.state is DONE
    await pump.rest()
    assert running(shared["id"]) == [line.instance("shared")["host"]]
    await pump.stop()


async def test_nobody_is_believed_who_says_that_a_host_is_off_which_answers(line: Line, pump: Pump) -> None:
    host, _, _ = await guests(line)
    (op,) = await pump.until(line.submit(Verb.FENCE, {"hosts": [host], "confirmed": True}))
    assert op.state is OperationState.FAILED
    assert "it answers" in str(op.error)
    assert host_of(line, host).state is HostState.READY


async def test_a_label_leaves_it_to_people(line: Line, pump: Pump) -> None:
    host, _, _ = await guests(line)
    cluster = host_of(line, host).cluster
    spec = {"name": cluster, "labels": {"rackflow.failover": "manual"}}
    line.store.write_now(lambda c: clusters.ensure(c, line.admin, ClusterSpec.model_validate(spec)))
    world.crash(host)
    await look(line, 3)
    assert fences(line) == []
    assert error(line, host)["fix"] == f"rackflow host fence {host}"
    (op,) = await pump.until(line.submit(Verb.FENCE, {"hosts": [host]}))
    assert op.state is DONE


async def test_when_most_hosts_are_silent_the_front_end_is_cut_off(line: Line, pump: Pump) -> None:
    for name in ("f0", "f1"):
        world.cut(name)
    await look(line, 3)
    assert fences(line) == []
    assert "rather the front-end is cut off" in error(line, "f0")["evidence"]["failover"]
    assert all(host.powered for host in world.hosts.values())


async def test_an_evacuation_does_not_keep_a_dead_host_from_being_fenced(line: Line, pump: Pump) -> None:
    host, shared, _ = await guests(line)
    (one,) = line.submit(Verb.EVACUATE, {"hosts": [host]})
    world.crash(host)
    await look(line, 2)
    await line.runtime.look_for_cancels()
    await pump.rest()
    await line.runtime.look_for_cancels()
    await pump.rest()
    assert line.operations([one])[0].state is OperationState.CANCELLED
    assert host_of(line, host).state is HostState.FENCED
    assert running(shared["id"]) == [line.instance("shared")["host"]] != [host]
    assert world.harm == []


async def test_what_could_not_start_elsewhere_is_held(line: Line, pump: Pump) -> None:
    host, shared, _ = await guests(line)
    world.crash(host)
    world.fail("*", "hypervisor.define", Unsupported("no such machine type", "instance/shared"), FOREVER)
    await look(line, 2)
    await pump.rest()
    await look(line)
    held = line.instance("shared")
    assert (held["state"], held["host"]) == (InstanceState.HELD, host)
    assert "no such machine type" in held["reason"]
    world.faults.clear()
    (op,) = await pump.until(line.submit(Verb.FAILOVER, {"instances": ["shared"]}))
    assert op.state is DONE
    assert running(shared["id"]) == [line.instance("shared")["host"]] != [host]
    assert world.harm == []


async def test_a_fail_over_by_hand_needs_a_fenced_host(line: Line, pump: Pump) -> None:
    host, _, _ = await guests(line)
    with pytest.raises(Conflict, match="not fenced"):
        line.submit(Verb.FAILOVER, {"instances": ["shared"]})
    world.crash(host)
    await look(line, 2)
    await pump.rest()
    with pytest.raises(Unsupported, match="only"):
        line.submit(Verb.FAILOVER, {"instances": ["local"]})


async def test_what_was_under_way_on_the_dead_host_is_ended_first(line: Line, pump: Pump) -> None:
    host, shared, _ = await guests(line)
    world.fail(host, "hypervisor.stop", Unreachable("no answer", f"host/{host}"), FOREVER)
    (stop,) = line.submit(Verb.SHUTDOWN, {"instances": ["shared"], "grace_s": 0})
    await pump.rest()
    assert line.operations([stop])[0].state is OperationState.PENDING
    world.crash(host)
    await look(line, 2)
    await pump.rest()
    await look(line)
    await pump.rest()
    assert line.operations([stop])[0].state is OperationState.CANCELLED
    assert running(shared["id"]) == [line.instance("shared")["host"]] != [host]
    assert world.harm == []


async def test_a_re_enrolled_host_stays_fenced(line: Line, pump: Pump) -> None:
    host, _, _ = await guests(line)
    world.crash(host)
    await look(line, 2)
    await pump.rest()
    world.revive(host)
    await with_bmcs(line)
    assert host_of(line, host).state is HostState.FENCED
    assert SAN in world.shared
    assert world.hosts[host].instances[on_host(line.instance("local")["id"])].power is PowerState.STOPPED


@pytest.mark.parametrize("live", [True, False])
async def test_a_host_that_dies_while_an_instance_leaves_it_keeps_nobody_waiting(
    line: Line, pump: Pump, live: bool
) -> None:
    """What cannot be undone there any more is not waited for: the instance starts where its disks are seen."""
    host, shared, _ = await guests(line)
    world.write(shared["id"], "root", "precious")
    verb = "hypervisor.migrate" if live else "hypervisor.stop"
    world.hang(host, verb)
    (op_id,) = line.submit(Verb.MIGRATE, {"instances": ["shared"], "live": live})
    while not any(state == "running" for name, state in line.steps(op_id) if name in ("transfer", "stop")):
        await pump.round()
    world.crash(host)
    world.release(host, verb)
    await look(line)
    await look(line)
    for _ in range(60):
        await pump.round()
        if line.instance("shared")["state"] == "running" and line.instance("shared")["host"] != host:
            break
        await look(line)
    found = line.instance("shared")
    assert (found["state"], found["host"] != host) == ("running", True), (found, line.steps(op_id))
    assert world.read_disk(shared["id"], "root") == "precious"
    assert world.harm == []


@pytest.mark.parametrize(("store", "step"), [("local", "define"), ("san", "define"), ("local", "start")])
async def test_a_deploy_under_way_on_a_host_that_is_fenced_goes_elsewhere(
    line: Line, pump: Pump, store: str, step: str
) -> None:
    """The host is off: what was made there runs nowhere, and is taken away when it is back."""
    world.hang("*", f"hypervisor.{step}")
    spec = {"name": "new", "image": "vm", "kind": "vm", "cpu": 1, "memory": 512, "requirements": {"datastore": store}}
    (op_id,) = line.submit(Verb.DEPLOY, {"instances": [spec]})
    while (step, "running") not in line.steps(op_id):
        await pump.round()
    host = line.instance("new")["host"]
    world.crash(host)
    await look(line, 2)
    while host_of(line, host).state is not HostState.FENCED or fences(line)[0].finished_at is None:
        await pump.round()
    assert line.instance("new")["host"] == host, "it was still there when the host was fenced"
    world.release("*", f"hypervisor.{step}")
    await pump.rest()
    (op,) = line.operations([op_id])
    found = line.instance("new")
    assert (op.state, found["state"], found["host"] != host) == (DONE, InstanceState.RUNNING, True), op.error
    assert running(found["id"]) == [found["host"]]
    (owed,) = line.store.read_now(lambda c: drift.list_(c, line.admin))
    assert (owed["kind"], owed["host"], owed["policy"]) == (drift.RESIDUE, host, drift.REPAIR)
    world.write(found["id"], "root", "mine")
    world.revive(host)
    line.store.write_now(lambda c: hosts.enable(c, line.admin, host))
    await look(line, 2)
    assert line.store.read_now(lambda c: drift.list_(c, line.admin)) == []
    assert on_host(found["id"]) not in world.hosts[host].instances
    assert world.read_disk(found["id"], "root") == "mine"
    assert running(found["id"]) == [found["host"]]
    assert world.harm == []
