"""What is done to machines by their BMCs when somebody asks, and what BMCs tell over time."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from control import machines, tables
from control.operations import Operation
from core.errors import Conflict, HostFault, Invalid, NotFound, Unsupported
from core.states import MachineState, OperationState, Verb
from drivers.baremetal.base import BareMetal
from drivers.fake_world import world
from tasks import machine_health
from tests.integration.line import Line

VERB = Verb.CHANGE_MACHINE


@pytest.fixture
async def known(line: Line) -> Line:
    """A line whose hosts f0 to f2 have BMCs, and two machines more that are no hosts."""
    bodies = [{"name": name, "bmc": f"fake://{name}"} for name in ("f0", "m1", "m2")]
    ended = await line.run(Verb.ENROLL_MACHINE, {"machines": bodies})
    assert {op.state for op in ended} == {OperationState.DONE}
    return line


async def change(line: Line, action: str, *names: str, **more: Any) -> list[Operation]:
    return await line.run(VERB, {"machines": list(names), "action": action, **more})


async def test_power_goes_off_and_on(known: Line) -> None:
    for action, power in (("power-off", False), ("power-on", True), ("power-cut", False), ("reset", True)):
        ended = await change(known, action, "m1", "m2")
        assert [op.state for op in ended] == [OperationState.DONE] * 2, [op.error for op in ended]
        assert [world.hosts[name].powered for name in ("m1", "m2")] == [power] * 2
    (op,) = await change(known, "power-on", "m1")
    assert known.steps(op.id) == [("power-on", "done")]


async def test_the_led_blinks_until_it_is_told_not_to(known: Line) -> None:
    await change(known, "led-on", "m1")
    assert (world.hosts["m1"].led, world.hosts["m2"].led) == (True, False)
    await change(known, "led-off", "m1")
    assert world.hosts["m1"].led is False


async def test_a_rescue_starts_it_from_the_network_once(known: Line) -> None:
    before = world.hosts["m1"].boots
    (op,) = await change(known, "rescue", "m1")
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert world.hosts["m1"].boots == before + 1
    assert world.calls["baremetal.boot_once"] == 1


async def test_power_that_will_not_go_off_is_told_and_the_machine_stays_what_it_is(known: Line) -> None:
    error = HostFault("took the order off, and after 60 s the machine is on", "host/m1", {"seen": "on"}, "look at it")
    world.fail("m1", "baremetal.set_power", error)
    (op,) = await change(known, "power-cut", "m1")
    assert op.state is OperationState.FAILED
    assert (op.error or {})["evidence"] == {"seen": "on"}
    assert (op.error or {})["fix"] == "look at it"
    assert known.store.read_now(lambda c: machines.get(c, "m1")).state is MachineState.READY


async def test_disks_of_a_machine_that_is_no_host_are_wiped(known: Line) -> None:
    (op,) = await change(known, "erase", "m1")
    assert (op.state, world.hosts["m1"].erased) == (OperationState.DONE, 1)
    with pytest.raises(Conflict, match="is a host") as caught:
        known.submit(VERB, {"machines": ["f0"], "action": "erase", "force": True})
    assert caught.value.fix == "rackflow host retire f0"


async def test_a_host_with_instances_keeps_its_power_unless_forced(known: Line) -> None:
    made = {"name": "a", "image": "box", "kind": "container", "cpu": 1, "memory": 128, "requirements": {"host": "f0"}}
    ended = await known.run(Verb.DEPLOY, {"instances": [made]})
    assert ended[0].state is OperationState.DONE, ended[0].error
    with pytest.raises(Conflict, match="holds 1 instances"):
        known.submit(VERB, {"machines": ["f0"], "action": "power-off"})
    assert world.hosts["f0"].powered
    (op,) = await change(known, "power-cut", "f0", force=True)
    assert (op.state, world.hosts["f0"].powered) == (OperationState.DONE, False)


async def test_what_a_bmc_cannot_do_is_told(known: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(BareMetal):
        """One that knows power only."""

        async def close(self) -> None:
            return None

    async def plain(*_: object) -> BareMetal:
        return Plain()

    monkeypatch.setattr("tasks.machine_actions.bmc_of", plain)
    (op,) = await change(known, "erase", "m1")
    assert (op.error or {})["code"] == Unsupported.code
    assert "cannot do that: erase" in (op.error or {})["message"]


async def test_what_makes_no_sense_is_refused_at_once(known: Line) -> None:
    with pytest.raises(Invalid, match="no action"):
        known.submit(VERB, {"machines": ["m1"], "action": "explode"})
    with pytest.raises(NotFound):
        known.submit(VERB, {"machines": ["m9"], "action": "reset"})
    known.store.write_now(lambda c: machines.retire(c, known.admin, "m1"))
    with pytest.raises(NotFound):
        known.submit(VERB, {"machines": ["m1"], "action": "reset"})


def looks(line: Line) -> list[dict[str, Any]]:
    t = tables.outbox
    rows = line.store.read_now(
        lambda c: c.execute(sa.select(t.c.payload).where(t.c.kind == machine_health.KIND).order_by(t.c.id)).all()
    )
    return [row.payload for row in rows]


async def test_bmcs_are_looked_at_now_and_then(known: Line) -> None:
    world.hosts["m1"].bmc_log = ["fan 2 failed"]
    world.hosts["m2"].bmc_answers = False
    assert await machine_health.keep_watching() == 3
    assert await machine_health.keep_watching() == 0  # not yet again
    found = {one["machine"]: one for one in looks(known)}
    assert found["f0"]["sensors"][0]["name"] == "Intake"
    assert [one["message"] for one in found["m1"]["events"]] == ["fan 2 failed"]
    assert (found["m1"]["error"], found["m2"]["error"]["code"]) == (None, "unreachable")
    world.hosts["m1"].bmc_log.append("fan 2 is back")
    known.runtime.watched.clear()
    await machine_health.keep_watching()
    assert [one["message"] for one in looks(known)[-2]["events"]] == ["fan 2 is back"]
