"""Which plans of an evacuation are made again, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from control import hosts
from control.evacuation import Guest, Plan, Progress, plan, still_good
from control.hosts import HostRecord
from control.operations import Operation
from core.states import HostState, InstanceState, Verb
from tests.rig import Rig

WEB = Guest("w", "web", InstanceState.RUNNING, "rf-w", 512, None)
GOES, FULL, PINNED = Plan(WEB, target="h2"), Plan(WEB, "no room now", passing=True), Plan(WEB, "only on h1")


@pytest.mark.parametrize(("one", "when", "good"), [
    (GOES, {}, True), (GOES, {"room_came_free": True}, True), (GOES, {"last_time": True}, True),
    (FULL, {}, True), (FULL, {"room_came_free": True}, False), (FULL, {"last_time": True}, False),
    (PINNED, {}, True), (PINNED, {"room_came_free": True}, True), (PINNED, {"last_time": True}, False),
])  # fmt: skip
def test_a_plan_holds_until_its_reason_may_have_passed(one: Plan, when: dict[str, Any], good: bool) -> None:
    look = Progress(HostState.DRAINING, [WEB])
    assert still_good({"w": one}, look, **when) == ({"w": one} if good else {})


def busy(cloud: Rig) -> Operation:
    cloud.deploy("web")
    return cloud.submit(Verb.SHUTDOWN, {"instances": ["web"]}).operations[0]


def test_a_plan_for_what_was_changed_since_does_not_hold(cloud: Rig) -> None:
    for changed in (replace(WEB, state=InstanceState.OFF), replace(WEB, busy=busy(cloud))):
        assert still_good({"w": PINNED}, Progress(HostState.DRAINING, [changed])) == {}


def test_what_goes_already_and_what_is_gone_is_not_planned_for_again(cloud: Rig) -> None:
    op = busy(cloud)
    going = Progress(HostState.DRAINING, [replace(WEB, state=InstanceState.MIGRATING, busy=op)], {"w": op})
    for look in (going, Progress(HostState.DRAINING, [])):
        assert still_good({"w": GOES}, look, last_time=True) == {"w": GOES}


def test_a_plan_takes_as_many_queries_for_many_guests_as_for_few(cloud: Rig) -> None:
    names = [f"web-{n}" for n in range(6)]
    cloud.deploy(*names, cpu=0.5, memory=128)
    host = cloud.run(lambda c: hosts.get(c, cloud.show("web-0")["host"]))
    (op,) = cloud.submit(Verb.EVACUATE, {"hosts": [host.name]}).operations
    guests = [
        Guest(one["id"], one["name"], InstanceState.RUNNING, one["id"], 128, None)
        for one in map(cloud.show, names) if one["host"] == host.name
    ]  # fmt: skip
    assert len(guests) >= 4
    counts = []
    for some in (guests[:1], guests[:1], guests):  # the first time, hosts that have changed are read
        asked: list[str] = []
        found = cloud.run(lambda c, some=some, asked=asked: _counted(c, op, host, some, asked))  # type: ignore[misc]
        assert [one.guest.name for one in found] == [one.name for one in some]
        counts.append(len(asked))
    assert counts[1] == counts[2]


def _counted(c: sa.Connection, op: Operation, host: HostRecord, guests: list[Guest], asked: list[str]) -> list[Plan]:
    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    sa.event.listen(c, "before_cursor_execute", note)
    try:
        return plan(c, op, host, guests, {})
    finally:
        sa.event.remove(c, "before_cursor_execute", note)
