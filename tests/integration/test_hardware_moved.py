"""An instance with something for itself leaves its host while it is off: granted there, freed here, whoever dies."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

import tasks.evacuate
from control import hosts, tables
from core.errors import Invalid
from core.states import HostState, OperationState, Verb
from drivers.fake_world import FOREVER, world
from tests.integration.line import Line
from tests.integration.pump import Pump, running
from tests.integration.test_hardware_granted import ASKED, DONE, deploy, equip, told


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.evacuate, "LOOK_S", 0.05)


def grants(line: Line, name: str) -> list[Any]:
    """Return what it was granted on its host and on the other one, by the record."""
    t = tables.instance
    row = line.store.read_now(
        lambda c: c.execute(sa.select(t.c.granted, t.c.other_granted).where(t.c.name == name)).one()
    )
    return list(row)


async def both(line: Line) -> tuple[str, str]:
    """Deploy `a` to one of two hosts that have a card each; return that host, and the other one."""
    await equip(line, "f0", "f1")
    assert await deploy(line, "a", **ASKED) is DONE
    first = line.instance("a")["host"]
    return first, {"f0": "f1", "f1": "f0"}[first]


async def ended_there(line: Line, first: str, second: str) -> None:
    """See that it runs on the other host with what that has, and that the first one has everything back."""
    found = line.instance("a")
    assert (found["host"], found["state"], running(found["id"])) == (second, "running", [second])
    card = [f"0000:0{second[1:]}:00.0"]
    assert told(line, "a").pci == tuple(card)
    granted, other = grants(line, "a")
    assert (granted["pci"], other) == (card, None)
    line.store.write_now(lambda c: hosts.set_state(c, hosts.get(c, first).id, HostState.READY))
    assert await deploy(line, "c", **ASKED) is DONE
    assert (line.instance("c")["host"], grants(line, "c")[0]["cpus"]) == (first, [4, 5])
    assert world.harm == []


async def test_it_leaves_a_host_that_is_evacuated(line: Line, pump: Pump) -> None:
    first, second = await both(line)
    (one,) = line.submit(Verb.EVACUATE, {"hosts": [first]})
    (op,) = await pump.until([one])
    assert op.state is DONE, (op.error, line.steps(one))
    await ended_there(line, first, second)


@pytest.mark.parametrize("verb", [Verb.MIGRATE, Verb.EVACUATE])
@pytest.mark.parametrize("at", ["hypervisor.define", "hypervisor.start", "hypervisor.undefine"])
async def test_a_worker_that_dies_on_the_way_leaves_nothing_granted_twice_or_lost(
    line: Line, pump: Pump, verb: Verb, at: str
) -> None:
    first, second = await both(line)
    world.hang("*", at)
    asked = {"hosts": [first]} if verb is Verb.EVACUATE else {"instances": ["a"]}
    (one,) = line.submit(verb, asked)
    for _ in range(30):
        await pump.round()
    assert None not in grants(line, "a"), "it has what it needs on both hosts until one is left"
    await pump.kill()
    world.release("*", at)
    (op,) = await pump.until([one])
    assert op.state is DONE, (op.error, line.steps(one))
    await pump.rest()
    await ended_there(line, first, second)


async def test_a_move_that_fails_gives_back_what_was_granted_there(line: Line) -> None:
    first, second = await both(line)
    before = grants(line, "a")
    world.fail(second, "hypervisor.define", Invalid("no such machine type"), FOREVER)
    (op,) = await line.run(Verb.MIGRATE, {"instances": ["a"]})
    assert op.state is OperationState.COMPENSATED, op.error
    assert grants(line, "a") == before
    assert line.instance("a")["host"] == first
    world.faults.clear()
    assert await deploy(line, "c", **ASKED) is DONE
    assert (line.instance("c")["host"], grants(line, "c")[0]["cpus"]) == (second, [4, 5])
