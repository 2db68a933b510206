"""Hold and release: what waits is not placed, and nothing but its owner wakes it."""

from __future__ import annotations

import pytest

from control import holding, operations, waiting
from core.errors import Conflict, Denied, NotFound
from core.states import InstanceState, OperationState, Verb
from tests.rig import Rig


def hold(cloud: Rig, name: str) -> bool:
    return cloud.run(lambda c: holding.hold(c, cloud.admin, name))


def release(cloud: Rig, name: str) -> bool:
    return cloud.run(lambda c: holding.release(c, cloud.admin, name))


def test_held_is_not_claimed_until_it_is_released(cloud: Rig) -> None:
    cloud.ask("web", "db")
    assert hold(cloud, "web")
    assert not hold(cloud, "web")
    assert cloud.show("web")["state"] == InstanceState.ON_HOLD
    cloud.run(waiting.wake)
    assert [op.subject_name for op in cloud.claim()] == ["db"]
    assert release(cloud, "web")
    assert not release(cloud, "web")
    assert (cloud.show("web")["state"], cloud.show("web")["reason"]) == (InstanceState.PENDING, None)
    assert [op.subject_name for op in cloud.claim()] == ["web"]


def test_made_on_hold(cloud: Rig) -> None:
    cloud.submit(Verb.DEPLOY, {"instances": [{"name": "web", "image": "tiny", "count": 2}], "hold": True})
    assert cloud.claim() == []
    assert cloud.show("web-1")["reason"] == "held by admin"
    assert [e["to"] for e in cloud.events("lifecycle")] == ["on-hold", "on-hold"]
    release(cloud, "web-2")
    assert [op.subject_name for op in cloud.claim()] == ["web-2"]


def test_what_waits_for_room_can_be_held(cloud: Rig) -> None:
    cloud.ask("web")
    (op,) = cloud.claim()
    cloud.run(lambda c: operations.postpone(c, op, "no room", None))
    assert hold(cloud, "web")
    assert cloud.claim() == []


def test_what_was_begun_cannot_be_held(cloud: Rig) -> None:
    cloud.ask("web")
    cloud.claim()
    with pytest.raises(Conflict, match="is busy"):
        hold(cloud, "web")
    cloud.deploy("db")
    with pytest.raises(Conflict, match="db is running"):
        hold(cloud, "db")
    assert not release(cloud, "db")


def test_held_can_be_deleted(cloud: Rig) -> None:
    (op,) = cloud.ask("web")
    hold(cloud, "web")
    cloud.delete("web")
    assert cloud.get(op).state is OperationState.CANCELLED


def test_whose_it_is(cloud: Rig) -> None:
    ann, bob = cloud.user("ann"), cloud.user("bob")
    cloud.ask("web", by=ann)
    with pytest.raises(NotFound):
        cloud.run(lambda c: holding.hold(c, bob, "web"))
    assert cloud.run(lambda c: holding.hold(c, ann, "web"))
    with pytest.raises((NotFound, Denied)):
        cloud.run(lambda c: holding.release(c, bob, "web"))
