"""A host is fenced in the middle of a change: nothing runs there, so the instance lasts elsewhere, or is held."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from control import drift, hosts, instances, operations, recovery
from control.lifecycle import PASSING
from core.errors import Unreachable
from core.ids import on_host
from core.states import HostState, InstanceState, OperationState, PowerState, Verb
from drivers.fake_world import world
from tests.integration.line import Line
from tests.integration.pump import Pump, at_once, deploy, fence_quickly, host_of, look, running, with_bmcs, with_san

LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fence_quickly(monkeypatch)


@pytest_asyncio.fixture
async def pump(line: Line) -> AsyncIterator[Pump]:
    """Three hosts with BMCs and a SAN; a host may count as dead after two looks."""
    await with_bmcs(line)
    await with_san(line)
    at_once(line)
    line.runtime.claim_until = float("inf")  # nobody renews it here
    found = Pump(line)
    yield found
    await found.stop()


async def guest(line: Line, store: str) -> tuple[str, dict[str, Any]]:
    """Deploy one to a datastore; return its host and it."""
    (one,) = await deploy(line, "web", requirements={"datastore": store})
    return one["host"], one


async def until(line: Line, pump: Pump, so: Callable[[], bool]) -> None:
    """Work and look until something is so."""
    end = time.monotonic() + LIMIT_S
    while not so() and time.monotonic() < end:
        await pump.round()
        await look(line)
        await line.runtime.look_for_cancels()
    assert so(), (line.instance("web"), line.store.read_now(lambda c: operations.list_(c, line.admin))[:4])


async def begun(line: Line, pump: Pump, op_id: str, step: str) -> None:
    """Work until a step has begun."""
    while (step, "running") not in line.steps(op_id):
        await pump.round()


async def dies(line: Line, pump: Pump, host: str, hung: str) -> None:
    """Crash a host that a hung call goes to, and let it be fenced."""
    world.crash(host)
    world.release("*", hung)
    await until(line, pump, lambda: host_of(line, host).state is HostState.FENCED)


def lasts(line: Line) -> bool:
    return InstanceState(line.instance("web")["state"]) not in PASSING


@pytest.mark.parametrize("store", ["san", "local"])
async def test_a_target_fenced_before_it_starts_there(line: Line, pump: Pump, store: str) -> None:
    source, web = await guest(line, store)
    world.hang("*", "hypervisor.start")
    (op_id,) = line.submit(Verb.MIGRATE, {"instances": ["web"], "live": False})
    await begun(line, pump, op_id, "start-again")
    target = line.instance("web")["host"]
    assert target != source
    await dies(line, pump, target, "hypervisor.start")
    await until(line, pump, lambda: lasts(line) and op_id in ended(line))
    found = line.instance("web")
    assert (found["state"], running(web["id"])) == (InstanceState.RUNNING, [found["host"]])
    assert found["host"] != target
    assert world.read_disk(web["id"], "root") == "web"
    assert world.harm == []


async def test_a_fail_over_whose_target_is_fenced_too_goes_to_a_third_host(line: Line, pump: Pump) -> None:
    source, web = await guest(line, "san")
    world.crash(source)
    await look(line, 2)
    world.hang("*", "hypervisor.start")
    while line.instance("web")["host"] == source:
        await pump.round()
    target = line.instance("web")["host"]
    await dies(line, pump, target, "hypervisor.start")
    await until(line, pump, lambda: lasts(line) and bool(running(web["id"])))
    found = line.instance("web")
    assert (found["state"], running(web["id"])) == (InstanceState.RUNNING, [found["host"]])
    assert found["host"] not in (source, target)
    assert world.harm == []


async def test_a_fail_over_cancelled_since_its_target_is_fenced_ends(line: Line, pump: Pump) -> None:
    source, web = await guest(line, "san")
    world.crash(source)
    await look(line, 2)
    world.hang("*", "hypervisor.start")
    while line.instance("web")["host"] == source:
        await pump.round()
    (op,) = of_verb(line, Verb.FAILOVER)
    await begun(line, pump, op.id, "start-again")
    target = line.instance("web")["host"]
    line.store.write_now(lambda c: operations.cancel(c, line.admin, op.id))
    await dies(line, pump, target, "hypervisor.start")
    await until(line, pump, lambda: lasts(line) and op.id in ended(line))
    await until(line, pump, lambda: line.instance("web")["state"] == InstanceState.HELD)
    assert line.instance("web")["host"] == source
    assert "could not be started elsewhere" in line.instance("web")["reason"]
    assert running(web["id"]) == []
    assert world.harm == []


def of_verb(line: Line, verb: Verb) -> list[operations.Operation]:
    rows = line.store.read_now(lambda c: operations.list_(c, line.admin))
    return line.operations([row["id"] for row in rows if row["verb"] == verb])


def ended(line: Line) -> set[str]:
    rows = line.store.read_now(lambda c: operations.list_(c, line.admin))
    return {row["id"] for row in rows if row["state"] not in ("pending", "running", "compensating")}


@pytest.mark.parametrize("store", ["san", "local"])
async def test_a_target_fenced_while_it_is_on_its_way_live(line: Line, pump: Pump, store: str) -> None:
    """It runs on the source: it goes to another host, and its memory with it."""
    source, web = await guest(line, store)
    world.remember(web["id"], "thought")
    world.hang("*", "hypervisor.migrate.copy")
    (op_id,) = line.submit(Verb.MIGRATE, {"instances": ["web"], "live": True})
    await begun(line, pump, op_id, "transfer")
    target = other_host(line, "web")
    await dies(line, pump, target, "hypervisor.migrate.copy")
    await until(line, pump, lambda: lasts(line) and op_id in ended(line))
    found = line.instance("web")
    assert (found["state"], running(web["id"])) == (InstanceState.RUNNING, [found["host"]])
    assert found["host"] not in (source, target)
    assert (world.read_disk(web["id"], "root"), world.recall(web["id"])) == ("web", "thought")
    assert world.harm == []


def other_host(line: Line, name: str) -> str:
    found = line.store.read_now(lambda c: instances.deployables(c, [line.instance(name)["id"]]))
    (one,) = found.values()
    assert one.other is not None
    return one.other.name


@pytest.mark.parametrize("store", ["san", "local"])
async def test_a_target_fenced_once_it_runs_there(line: Line, pump: Pump, store: str) -> None:
    """The source has let it go: from shared disks it starts elsewhere; else it is held, and the source's copy kept."""
    source, web = await guest(line, store)
    world.hang("*", "hypervisor.migrate.leave")
    (op_id,) = line.submit(Verb.MIGRATE, {"instances": ["web"], "live": True})
    while len(running(web["id"])) != 1 or running(web["id"]) == [source]:
        await pump.round()
    (target,) = running(web["id"])
    world.fail(source, "hypervisor.migrate.leave", Unreachable("the answer was lost", f"host/{source}"), after=True)
    await dies(line, pump, target, "hypervisor.migrate.leave")
    assert on_host(web["id"]) not in world.hosts[source].instances
    await until(line, pump, lambda: lasts(line) and op_id in ended(line))
    if store == "san":
        await until(line, pump, lambda: lasts(line) and bool(running(web["id"])))
        assert running(web["id"]) == [line.instance("web")["host"]] != [target]
        assert line.instance("web")["state"] == InstanceState.RUNNING
        assert world.read_disk(web["id"], "root") == "web"
        return
    await until(line, pump, lambda: line.instance("web")["state"] == InstanceState.HELD)
    assert line.instance("web")["host"] == target
    assert f"its disks are on {target}, which is fenced" in line.instance("web")["reason"]
    copies = world.hosts[source].store(line.settings.drivers.datastore_path).volumes
    assert web["id"] in copies, "the copy that answers is not taken away"
    await comes_back(line, pump, target, op_id)
    assert running(web["id"]) == [target]
    assert web["id"] not in copies
    assert world.harm == []


async def comes_back(line: Line, pump: Pump, target: str, op_id: str) -> None:
    world.revive(target)
    line.store.write_now(lambda c: hosts.enable(c, line.admin, target))
    await look(line, 2)
    line.store.write_now(lambda c: recovery.retry(c, line.admin, op_id))
    await until(line, pump, lambda: op_id in ended(line) and line.instance("web")["state"] == InstanceState.RUNNING)
    await until(line, pump, lambda: bool(running(line.instance("web")["id"])))


@pytest.mark.parametrize("verb", [Verb.UNDEPLOY, Verb.STOP])
async def test_a_host_fenced_while_it_starts_again_from_the_front_end(line: Line, pump: Pump, verb: Verb) -> None:
    """Its files are at the front-end still: it is as it was before."""
    _, web = await guest(line, "local")
    await line.run(verb, {"instances": ["web"], **({"grace_s": 0} if verb is Verb.UNDEPLOY else {})})
    before = line.instance("web")["state"]
    again = "hypervisor.start" if verb is Verb.UNDEPLOY else "hypervisor.restore"
    world.hang("*", again)
    (op_id,) = line.submit(Verb.START, {"instances": ["web"]})
    await begun(line, pump, op_id, "start" if verb is Verb.UNDEPLOY else "restore")
    host = line.instance("web")["host"]
    await dies(line, pump, host, again)
    await until(line, pump, lambda: lasts(line) and op_id in ended(line))
    found = line.instance("web")
    if line.operations([op_id])[0].state is OperationState.DONE:
        assert running(web["id"]) == [found["host"]]
        assert found["host"] != host
    else:
        assert (found["state"], found["host"]) == (before, None)
    assert world.harm == []
    assert not any(i.power is PowerState.RUNNING for i in world.hosts[host].instances.values())


async def test_what_is_deleted_does_not_wait_for_a_fenced_host(line: Line, pump: Pump) -> None:
    """What lies there goes when the host is back."""
    host, web = await guest(line, "local")
    world.hang("*", "hypervisor.undefine")
    (op_id,) = line.submit(Verb.DELETE, {"instances": ["web"]})
    await begun(line, pump, op_id, "undefine")
    await dies(line, pump, host, "hypervisor.undefine")
    await until(line, pump, lambda: op_id in ended(line))
    assert line.operations([op_id])[0].state is OperationState.DONE
    assert on_host(web["id"]) in world.hosts[host].instances
    await is_clean_when_back(line, host, web["id"])


@pytest.mark.parametrize(("verb", "state"), [(Verb.UNDEPLOY, "undeployed"), (Verb.STOP, "stopped")])
async def test_what_left_its_host_does_not_wait_for_it_when_that_is_fenced(
    line: Line, pump: Pump, verb: Verb, state: str
) -> None:
    host, web = await guest(line, "local")
    world.hang("*", "hypervisor.undefine")
    (op_id,) = line.submit(verb, {"instances": ["web"], **({"grace_s": 0} if verb is Verb.UNDEPLOY else {})})
    await begun(line, pump, op_id, "clear")
    await dies(line, pump, host, "hypervisor.undefine")
    await until(line, pump, lambda: op_id in ended(line))
    assert line.operations([op_id])[0].state is OperationState.DONE
    assert (line.instance("web")["state"], line.instance("web")["host"]) == (state, None)
    await is_clean_when_back(line, host, web["id"])
    await line.run(Verb.START, {"instances": ["web"]})
    assert running(web["id"]) == [line.instance("web")["host"]]
    assert world.read_disk(web["id"], "root") == "web"
    assert world.harm == []


async def is_clean_when_back(line: Line, host: str, instance_id: str) -> None:
    world.revive(host)
    line.store.write_now(lambda c: hosts.enable(c, line.admin, host))
    await look(line, 2)
    assert on_host(instance_id) not in world.hosts[host].instances
    assert line.store.read_now(lambda c: drift.list_(c, line.admin)) == []


async def test_disks_that_are_half_restored_start_nowhere_else(line: Line, pump: Pump) -> None:
    host, web = await guest(line, "san")
    await line.run(Verb.BACKUP, {"instances": ["web"], "backup": "one"})
    world.write(web["id"], "root", "later")
    world.hang("*", "storage.restore_volume")
    (op_id,) = line.submit(Verb.REVERT_BACKUP, {"instances": ["web"], "backup": "one"})
    await begun(line, pump, op_id, "restore-volumes")
    await dies(line, pump, host, "storage.restore_volume")
    await until(line, pump, lambda: op_id in ended(line))
    await look(line, 3)
    assert line.operations([op_id])[0].state is OperationState.HELD
    assert (line.instance("web")["state"], running(web["id"])) == (InstanceState.HELD, [])
    await comes_back(line, pump, host, op_id)
    assert world.read_disk(web["id"], "root") == "web"
    assert running(web["id"]) == [host]
    assert world.harm == []


async def test_a_revert_that_died_with_its_host_waits_for_it(line: Line, pump: Pump) -> None:
    """It has no way back, and nobody knows what the disk is meanwhile."""
    host, web = await guest(line, "san")
    await line.run(Verb.SNAPSHOT, {"instances": ["web"], "snapshot": "one"})
    world.write(web["id"], "root", "later")
    world.hang("*", "hypervisor.revert")
    (op_id,) = line.submit(Verb.REVERT, {"instances": ["web"], "snapshot": "one"})
    await begun(line, pump, op_id, "revert")
    await dies(line, pump, host, "hypervisor.revert")
    await until(line, pump, lambda: op_id in ended(line))
    await look(line, 3)
    assert (line.instance("web")["state"], running(web["id"])) == (InstanceState.HELD, [])
    await comes_back(line, pump, host, op_id)
    assert world.read_disk(web["id"], "root") == "web"
    assert world.harm == []
