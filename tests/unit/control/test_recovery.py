"""The operator's ways out: retry, abandon, mark."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from control import instances, operations, recovery, tables
from control.lifecycle import rule
from control.operations import Operation
from core.errors import Conflict, Denied, HostFault, Invalid, RackflowError, Unreachable
from core.states import InstanceState, OperationState, StepState, Verb
from tests.rig import Rig


def stop(cloud: Rig, op: Operation, state: OperationState, error: RackflowError, then: InstanceState) -> None:
    """End an operation badly after its first step, as `settle` does."""

    def end(c: sa.Connection) -> None:
        operations.begin_step(c, op, 1, "one")
        operations.end_step(c, op, 1, changed=True)
        operations.begin_step(c, op, 2, "two")
        operations.fail_step(c, op, 2, error)
        instances.set_state(c, op.subject_id, then, epoch=op.epoch, reason=str(error))
        operations.finish(c, op, state, error=error)

    cloud.run(end)


def held(cloud: Rig, verb: Verb = Verb.SHUTDOWN) -> Operation:
    cloud.deploy("web")
    cloud.submit(verb, {"instances": ["web"]})
    (op,) = cloud.claim()
    stop(cloud, op, OperationState.HELD, HostFault("h1 is full", "host/h1"), InstanceState.HELD)
    return op


def retry(cloud: Rig, op: Operation) -> Operation:
    return cloud.run(lambda c: recovery.retry(c, cloud.admin, op.id))


def test_held_goes_on_where_it_stopped(cloud: Rig) -> None:
    op = held(cloud)
    again = retry(cloud, op)
    assert (again.state, again.attempts, again.error, again.finished_at) == (OperationState.PENDING, 0, None, None)
    assert again.reason == "tried again by admin"
    (claimed,) = cloud.claim()
    assert claimed.id == op.id
    assert claimed.epoch > op.epoch
    steps = cloud.run(lambda c: operations.steps_of(c, [op.id]))[op.id]
    assert [step.state for step in steps] == [StepState.DONE, StepState.FAILED]
    with pytest.raises(Conflict, match="this is possible when it is"):
        retry(cloud, op)


def test_the_old_holder_is_stale(cloud: Rig) -> None:
    op = held(cloud)
    retry(cloud, op)
    with pytest.raises(operations.Stale):
        cloud.run(lambda c: operations.begin_step(c, op, 3, "three"))


@pytest.mark.parametrize(("error", "possible"), [(Unreachable("away"), True), (Invalid("wrong"), False)])
def test_failed_goes_on_when_the_reason_may_pass(cloud: Rig, error: RackflowError, possible: bool) -> None:
    cloud.deploy("web")
    cloud.submit(Verb.SHUTDOWN, {"instances": ["web"]})
    (op,) = cloud.claim()
    stop(cloud, op, OperationState.FAILED, error, InstanceState.RUNNING)
    if possible:
        assert retry(cloud, op).state is OperationState.PENDING
        return
    with pytest.raises(Conflict, match="failed for good: wrong"):
        retry(cloud, op)


def test_an_undone_deploy_begins_again_on_any_host(cloud: Rig) -> None:
    (op,) = cloud.ask("web")
    (op,) = cloud.claim()
    cloud.run(lambda c: operations.set_parameters(c, op, {"avoid": ["h1"], "avoid_error": {}, "kept": 1}))
    stop(cloud, op, OperationState.COMPENSATED, Unreachable("away"), InstanceState.FAILED)
    assert retry(cloud, op).parameters == {"kept": 1}
    assert cloud.show("web")["state"] == InstanceState.PENDING
    ops = cloud.claim()
    assert [outcome.error for outcome in cloud.place(ops)] == [None]


def test_a_saved_image_is_awaited_again(cloud: Rig) -> None:
    cloud.deploy("web")
    cloud.submit(Verb.SAVE_IMAGE, {"instances": ["web"], "image": "web-image"})
    (op,) = cloud.claim()
    stop(cloud, op, OperationState.FAILED, Unreachable("away"), InstanceState.RUNNING)
    t = tables.image
    state = sa.select(t.c.state).where(t.c.name == "web-image")
    assert cloud.run(lambda c: c.scalar(state)) == "failed"
    retry(cloud, op)
    assert cloud.run(lambda c: c.scalar(state)) == "pending"


def test_what_was_changed_since_is_asked_for_anew(cloud: Rig) -> None:
    op = held(cloud)
    cloud.submit(Verb.START, {"instances": ["web"]})
    with pytest.raises(Conflict, match="is busy"):
        retry(cloud, op)
    cloud.end(cloud.claim(), InstanceState.RUNNING)
    for way in (recovery.retry, recovery.abandon):
        with pytest.raises(Conflict, match="was changed since"):
            cloud.run(partial(way, principal=cloud.admin, operation_id=op.id))


def test_abandoned_is_undone_by_a_worker(cloud: Rig) -> None:
    op = held(cloud)
    given_up = cloud.run(lambda c: recovery.abandon(c, cloud.admin, op.id))
    assert given_up.state is OperationState.COMPENSATING
    (claimed,) = cloud.claim()
    assert (claimed.id, claimed.state) == (op.id, OperationState.COMPENSATING)
    assert claimed.error
    assert claimed.error["message"] == "h1 is full"
    with pytest.raises(Conflict):
        cloud.run(lambda c: recovery.abandon(c, cloud.admin, op.id))


def test_beyond_the_point_of_no_return_nothing_is_undone(cloud: Rig) -> None:
    cloud.deploy("web")
    cloud.submit(Verb.STOP, {"instances": ["web"]})
    (op,) = cloud.claim()

    def end(c: sa.Connection) -> None:
        for sequence, step in enumerate(rule(Verb.STOP).steps[:3], 1):
            operations.begin_step(c, op, sequence, step.name, "h1", step.compensation)
            if step.name != "clear":
                operations.end_step(c, op, sequence, changed=True)
        operations.fail_step(c, op, 3, HostFault("the disk is gone", "host/h1"))
        operations.finish(c, op, OperationState.HELD, error=HostFault("the disk is gone", "host/h1"))

    cloud.run(end)
    with pytest.raises(Conflict, match="step clear has begun"):  # or `drop-parked` would take the only copy away
        cloud.run(lambda c: recovery.abandon(c, cloud.admin, op.id))
    assert retry(cloud, op).state is OperationState.PENDING


def mark(cloud: Rig, state: InstanceState, by: Any = None) -> bool:
    return cloud.run(lambda c: recovery.mark(c, by or cloud.admin, "web", state, "I looked"))


def test_marked_as_it_was_found(cloud: Rig) -> None:
    op = held(cloud)
    before = cloud.show("web")["epoch"]
    assert mark(cloud, InstanceState.OFF)
    shown = cloud.show("web")
    assert (shown["state"], shown["reason"], shown["epoch"]) == ("off", "marked by admin: I looked", before + 1)
    assert not mark(cloud, InstanceState.OFF)
    with pytest.raises(Conflict, match="was changed since"):
        retry(cloud, op)
    with pytest.raises(Conflict, match="only one that is held"):
        mark(cloud, InstanceState.RUNNING)


def test_what_cannot_be_marked(cloud: Rig) -> None:
    held(cloud)
    with pytest.raises(Conflict):
        mark(cloud, InstanceState.STOPPED)
    with pytest.raises(Denied):
        mark(cloud, InstanceState.OFF, cloud.user("ann"))
    cloud.submit(Verb.START, {"instances": ["web"]})
    with pytest.raises(Conflict, match="is busy"):
        mark(cloud, InstanceState.OFF)
