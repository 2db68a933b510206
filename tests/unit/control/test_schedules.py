"""Schedules: checked when made, due once whatever was missed, counted from each start."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from control import access, schedules
from core.clock import now
from core.errors import Conflict, Invalid, NotFound, RackflowError
from core.states import Verb
from tests.rig import Rig

HOUR = timedelta(hours=1)


@pytest.fixture
def web(cloud: Rig) -> Rig:
    cloud.deploy("web")
    return cloud


def add(cloud: Rig, verb: Verb = Verb.SHUTDOWN, parameters: dict[str, Any] | None = None, **when: Any) -> Any:
    return cloud.run(lambda c: schedules.create(c, cloud.admin, "web", verb, parameters or {}, **when))


def due(cloud: Rig, at: datetime) -> list[schedules.Due]:
    return cloud.run(lambda c: schedules.due(c, at))


def shown(cloud: Rig, row_id: str) -> dict[str, Any]:
    return cloud.run(lambda c: schedules.get(c, cloud.admin, row_id))


def ran(cloud: Rig, row_id: str) -> None:
    cloud.run(lambda c: schedules.ran(c, row_id, {"request": "r"}))


def test_once(web: Rig) -> None:
    made = add(web, parameters={"grace_s": 5}, at=now() + HOUR)
    assert due(web, now()) == []
    (one,) = due(web, now() + 2 * HOUR)
    assert (one.id, one.verb, one.parameters, one.asked_by) == (made["id"], Verb.SHUTDOWN, {"grace_s": 5.0}, "admin")
    ran(web, one.id)
    assert due(web, now() + 9 * HOUR) == []
    assert (shown(web, one.id)["next_at"], shown(web, one.id)["last"]) == (None, {"request": "r"})


def test_what_is_due_can_be_submitted(web: Rig) -> None:
    add(web, Verb.RESIZE, {"memory": "512MiB"}, at=now() + HOUR)
    (one,) = due(web, now() + 2 * HOUR)
    who = web.run(lambda c: access.find(c, one.asked_by))
    made = web.submit(one.verb, {"instances": [one.instance_id], **one.parameters}, by=who, key=one.key)
    assert made.operations[0].parameters["memory_mib"] == 512


def test_missed_repeats_run_once_and_keep_their_rhythm(web: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = now() + HOUR
    made = add(web, at=first, every_s=86400)
    late = first + timedelta(days=3, minutes=5)
    monkeypatch.setattr("control.schedules.now", lambda: late)
    (one,) = due(web, late)
    ran(web, one.id)
    assert due(web, late) == []
    (again,) = due(web, first + timedelta(days=4))
    assert again.key != one.key
    assert due(web, first + timedelta(days=4) - timedelta(seconds=1)) == []
    assert made["next_at"] != shown(web, one.id)["next_at"]


def test_the_first_repeat_comes_after_one_period(web: Rig) -> None:
    add(web, every_s=3600)
    assert due(web, now()) == []
    assert len(due(web, now() + HOUR)) == 1


def test_after_each_start(web: Rig) -> None:
    made = add(web, after_start_s=600)
    assert due(web, now() + 99 * HOUR) == []
    for _ in range(2):
        web.run(lambda c: schedules.started(c, [made["instance_id"]]))
        assert due(web, now()) == []
        (one,) = due(web, now() + timedelta(seconds=601))
        ran(web, one.id)
        assert due(web, now() + 99 * HOUR) == []


def test_at_rest_nothing_is_due_and_nothing_is_made_up_for(web: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    repeated, once = add(web, every_s=3600), add(web, at=now() + HOUR)

    def enable(row_id: str, enabled: bool) -> bool:
        return web.run(lambda c: schedules.set_enabled(c, web.admin, row_id, enabled))

    assert enable(repeated["id"], False)
    assert not enable(repeated["id"], False)
    assert enable(once["id"], False)
    later = now() + timedelta(hours=5, minutes=30)
    assert due(web, later) == []
    monkeypatch.setattr("control.schedules.now", lambda: later)
    assert enable(repeated["id"], True)
    assert due(web, later) == []
    assert len(due(web, later + HOUR)) == 1
    with pytest.raises(Conflict, match="its time is over"):
        enable(once["id"], True)


@pytest.mark.parametrize(("verb", "parameters", "when"), [
    (Verb.SHUTDOWN, {}, {}), (Verb.SHUTDOWN, {}, {"at": now() - HOUR}), (Verb.SHUTDOWN, {}, {"every_s": 5}),
    (Verb.SHUTDOWN, {}, {"every_s": 3600, "after_start_s": 5}), (Verb.SHUTDOWN, {}, {"after_start_s": -1}),
    (Verb.SHUTDOWN, {"grace": 5}, {"every_s": 3600}), (Verb.SNAPSHOT, {}, {"every_s": 3600}),
    (Verb.DEPLOY, {}, {"every_s": 3600}), (Verb.ENROLL, {}, {"every_s": 3600}),
])  # fmt: skip
def test_wrong_ones_are_refused(web: Rig, verb: Verb, parameters: dict[str, Any], when: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        add(web, verb, parameters, **when)
    assert web.run(lambda c: schedules.list_(c, web.admin)) == []


def test_whose_it_is(web: Rig) -> None:
    ann, bob = web.user("ann"), web.user("bob")
    web.deploy("hers", by=ann)
    made = web.run(lambda c: schedules.create(c, ann, "hers", Verb.STOP, {}, every_s=3600))
    add(web, every_s=3600)
    for who, names in ((ann, ["hers"]), (bob, []), (web.admin, ["hers", "web"])):
        rows = web.run(partial(schedules.list_, principal=who))
        assert [row["instance"] for row in rows] == names
    assert len(web.run(lambda c: schedules.list_(c, web.admin, instance="web"))) == 1
    with pytest.raises(NotFound):
        web.run(lambda c: schedules.delete(c, bob, made["id"]))
    with pytest.raises(RackflowError):
        web.run(lambda c: schedules.create(c, ann, "hers", Verb.MIGRATE, {}, every_s=3600))
    web.run(lambda c: schedules.delete(c, ann, made["id"]))
    assert web.run(lambda c: schedules.list_(c, ann)) == []


def test_it_goes_with_its_instance(web: Rig) -> None:
    add(web, at=now() + HOUR)
    web.delete("web")
    assert due(web, now() + 2 * HOUR) == []
    assert web.run(lambda c: schedules.list_(c, web.admin)) == []
