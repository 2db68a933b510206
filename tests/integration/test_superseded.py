"""A move that is held, and its instance is told something else: the target is cleared, and no last copy with it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from control import drift, recovery
from core.errors import HostFault
from core.ids import on_host
from core.states import InstanceState, OperationState, Verb
from drivers.fake_world import FOREVER, world
from tests.integration.line import Line
from tests.integration.pump import deploy, look, running

DONE, HELD = OperationState.DONE, OperationState.HELD
OFF, FAILED = InstanceState.OFF, InstanceState.FAILED


async def held_move(line: Line, host: str, verb: str, *, live: bool = False) -> dict[str, Any]:
    """Let a migration from f0 to f1 be held by a fault of one of them; return the instance."""
    (found,) = await deploy(line, "web", requirements={"datastore": "local"})
    if found["host"] != "f0":
        (op,) = await line.run(Verb.MIGRATE, {"instances": ["web"], "host": "f0"})
        assert op.state is DONE, op.error
    world.write(found["id"], "root", "precious")
    world.fail(host, verb, HostFault("the disk is odd", f"host/{host}"), FOREVER)
    (op,) = await line.run(Verb.MIGRATE, {"instances": ["web"], "host": "f1", "live": live})
    assert op.state is HELD, (op.state, op.error, line.steps(op.id))
    world.faults.clear()
    return line.instance("web")


def there(instance_id: str) -> list[str]:
    """Return the hosts that have anything of an instance."""
    return [
        host.name for host in world.hosts.values()
        if on_host(instance_id) in host.instances or any(instance_id in store.volumes for store in host.stores.values())
    ]  # fmt: skip


def left(line: Line) -> list[tuple[str, str, str]]:
    rows = line.store.read_now(lambda c: drift.list_(c, line.admin))
    return [(row["kind"], row["host"], row["policy"]) for row in rows]


async def test_what_was_carried_to_the_target_goes_and_the_source_keeps_all(line: Line) -> None:
    found = await held_move(line, "f1", "hypervisor.define")
    assert sorted(there(found["id"])) == ["f0", "f1"]
    (op,) = await line.run(Verb.START, {"instances": ["web"]})
    assert op.state is DONE, op.error
    assert left(line) == [(drift.RESIDUE, "f1", drift.REPAIR)]
    (op,) = await line.run(Verb.MIGRATE, {"instances": ["web"], "live": False})
    assert (op.state, line.instance("web")["host"]) == (DONE, "f2"), "not where something of it is left"
    await look(line)
    assert (there(found["id"]), running(found["id"]), left(line)) == (["f2"], ["f2"], [])
    assert world.read_disk(found["id"], "root") == "precious"
    assert world.harm == []


async def test_the_last_copy_stays_on_the_source_when_the_target_has_lost_its_own(line: Line) -> None:
    found = await held_move(line, "f1", "hypervisor.start")
    assert found["host"] == "f1"
    for store in world.hosts["f1"].stores.values():
        store.volumes.pop(found["id"], None)
    await line.run(Verb.START, {"instances": ["web"]})
    await look(line, 2)
    assert left(line) == [(drift.RESIDUE, "f0", drift.ALERT)]
    kept = [store.volumes.get(found["id"], {}) for store in world.hosts["f0"].stores.values()]
    assert [disks["root"].content for disks in kept if disks] == ["precious"]


@pytest.mark.parametrize("state", [OFF, FAILED])
async def test_a_guest_that_went_over_all_the_same_is_left_alone(line: Line, state: InstanceState) -> None:
    found = await held_move(line, "f0", "hypervisor.migrate.leave", live=True)
    assert running(found["id"]) == ["f1"]
    line.store.write_now(partial(recovery.mark, principal=line.admin, name="web", state=state))
    await look(line, 2)
    assert (drift.RESIDUE, "f1", drift.ALERT) in left(line)
    assert running(found["id"]) == ["f1"]
    (op,) = await line.run(Verb.DELETE, {"instances": ["web"]})
    assert op.state is DONE, op.error
    await look(line)
    assert (there(found["id"]), left(line)) == ([], [])
