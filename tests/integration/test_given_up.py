"""What is left when an operation was given up: an unseen power is as it was, an undo that fails waits for a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from control import operations, recovery, tables
from core.errors import Conflict, HostFault
from core.states import InstanceState, OperationState, Verb
from drivers.fake_world import FOREVER, world
from tasks import settle
from tests.integration.line import Line, left_on_hosts
from tests.integration.pump import deploy, running

S = InstanceState


@pytest.fixture(autouse=True)
def claimed(line: Line) -> None:
    line.runtime.claim_until = float("inf")  # nobody renews it here


async def cancelled(line: Line, op_id: str) -> operations.Operation:
    """Cancel an operation that waits, and let its worker see it."""
    line.store.write_now(lambda c: operations.cancel(c, line.admin, op_id))
    await line.work()
    return line.operations([op_id])[0]


@pytest.mark.parametrize(("before", "verb"), [
    (S.OFF, Verb.SHUTDOWN), (S.OFF, Verb.POWEROFF), (S.RUNNING, Verb.SHUTDOWN), (S.RUNNING, Verb.START),
    (S.OFF, Verb.START), (S.SUSPENDED, Verb.POWEROFF),
])  # fmt: skip
async def test_what_nobody_saw_is_as_it_was(line: Line, before: InstanceState, verb: Verb) -> None:
    (web,) = await deploy(line, "web")
    for way, state in ((Verb.SUSPEND, S.SUSPENDED), (Verb.POWEROFF, S.OFF)):
        if before is state:
            await line.run(way, {"instances": ["web"]})
    assert line.instance("web")["state"] == before
    world.cut(web["host"])
    (op_id,) = line.submit(verb, {"instances": ["web"]})
    await line.work()
    assert (await cancelled(line, op_id)).state is OperationState.CANCELLED
    assert line.instance("web")["state"] == before
    assert world.harm == []


async def held(line: Line, error: Exception) -> tuple[str, str]:
    """Let a cold migration fail, and its undo as well, until it is held; return its id and the source."""
    (web,) = await deploy(line, "web")
    world.fail("*", "hypervisor.start", Conflict("no such machine type", "instance/web"), FOREVER)
    world.fail("*", "hypervisor.undefine", error, FOREVER)  # type: ignore[arg-type]
    (op_id,) = line.submit(Verb.MIGRATE, {"instances": ["web"], "live": False})
    await line.work()
    for _ in range(settle.SETTLE_RUNS):
        (op,) = line.operations([op_id])
        assert op.state is OperationState.COMPENSATING
        assert "settling failed" in op.reason
        line.store.write_now(lambda c: due(c, op_id))
        await line.work()
    return op_id, web["host"]


def due(c: Any, op_id: str) -> None:
    t = tables.operation
    c.execute(sa.update(t).where(t.c.id == op_id).values(not_before=None))


@pytest.mark.parametrize("error", [
    Conflict("it has a snapshot", "instance/web"), HostFault("libvirt is odd", "host/x"), ValueError("a defect"),
])  # fmt: skip
@pytest.mark.parametrize("way", [recovery.retry, recovery.abandon])
async def test_what_cannot_be_undone_is_held_and_undone_when_that_is_mended(
    line: Line, error: Exception, way: Callable[..., operations.Operation]
) -> None:
    op_id, source = await held(line, error)
    (op,) = line.operations([op_id])
    assert op.state is OperationState.HELD
    assert op.error is not None
    assert op.error["message"].startswith("it cannot be undone: ")
    assert str(getattr(error, "message", error)) in op.error["message"]
    assert line.instance("web")["state"] == S.HELD
    assert "cannot be undone" in line.instance("web")["reason"]
    world.faults.clear()
    again = line.store.write_now(lambda c: way(c, line.admin, op_id))
    assert again.state is OperationState.COMPENSATING
    await line.work()
    (op,) = line.operations([op_id])
    assert op.state is OperationState.COMPENSATED
    assert op.error is not None
    assert op.error["message"] == "no such machine type"
    found = line.instance("web")
    assert (found["state"], found["host"], running(found["id"])) == (S.RUNNING, source, [source])
    assert world.read_disk(found["id"], "root") == "web"
    assert len(left_on_hosts()) == 3  # the instance, its disk, its seed
    assert world.harm == []


async def test_an_undo_that_cannot_reach_its_host_waits_as_long_as_it_takes(line: Line) -> None:
    (web,) = await deploy(line, "web")
    world.fail("*", "hypervisor.suspend", HostFault("odd", "host/x"), FOREVER, after=True)
    (op_id,) = line.submit(Verb.SUSPEND, {"instances": ["web"]})
    await line.work()
    assert line.operations([op_id])[0].state is OperationState.HELD
    world.cut(web["host"])
    line.store.write_now(lambda c: recovery.abandon(c, line.admin, op_id))
    for _ in range(settle.SETTLE_RUNS + 2):
        line.store.write_now(lambda c: due(c, op_id))
        await line.work()
    assert line.operations([op_id])[0].state is OperationState.COMPENSATING
    world.revive(web["host"])
    line.store.write_now(lambda c: due(c, op_id))
    await line.work()
    assert line.operations([op_id])[0].state is OperationState.COMPENSATED
    assert (line.instance("web")["state"], running(web["id"])) == (S.RUNNING, [web["host"]])
