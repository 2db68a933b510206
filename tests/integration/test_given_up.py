"""What is left when an operation was given up: an unseen power is as it was, an undo that fails waits for a person."""

from __future__ import annotations

import pytest

from control import operations, recovery
from core.errors import Conflict, HostFault
from core.ids import on_host
from core.states import InstanceState, OperationState, Verb
from drivers.fake_world import FOREVER, world
from tasks import settle
from tests.integration.line import Line, left_on_hosts
from tests.integration.pump import deploy, look, running

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
