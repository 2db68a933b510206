"""Which plans of an evacuation are made again, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from control.evacuation import Guest, Plan, Progress, still_good
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
