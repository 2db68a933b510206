"""Room that is promised for later, and maintenances to come: what is not placed there, who may use it, and its end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from blueprints.cluster import ClusterSpec
from blueprints.reservation import ReservationSpec
from control import clusters, hosts, placing, reservations
from core.clock import now
from core.errors import Conflict, Denied, Invalid, NoCapacityNow, NotFound
from core.states import InstanceState
from tests.rig import Rig

HOUR = timedelta(hours=1)
BRIEF = {"version": 1, "used": ["lifetime"], "lifetimes": {
    "ages_s": [0], "all": [600], "flavours": {}, "templates": {}, "owners": {},
}}  # fmt: skip


def promise(cloud: Rig, name: str = "r", *, begins: timedelta = HOUR, ends: timedelta = 9 * HOUR, **more: Any) -> None:
    spec = ReservationSpec(name=name, begins_at=now() + begins, ends_at=now() + ends, **more)
    cloud.run(lambda c: reservations.create(c, cloud.admin, spec))


def put(cloud: Rig, name: str, features: dict[str, Any] | None = None, **spec: Any) -> placing.Outcome:
    cloud.ask(name, **{"memory": 64, **spec})
    ops = [op for op in cloud.claim() if op.subject_name == name]
    (outcome,) = cloud.place(ops, features)
    if outcome.error is None:
        cloud.end(ops, InstanceState.RUNNING)
    return outcome


def test_a_host_is_not_used_by_what_would_run_into_its_maintenance(cloud: Rig) -> None:
    promise(cloud, host="h1", kind="maintenance", begins=HOUR / 2)
    assert put(cloud, "a").host == "h2", "an hour is expected where nothing is known"
    assert put(cloud, "b", BRIEF, requirements={"host": "h1"}).host == "h1", "it is over in ten minutes"
    promise(cloud, "now", host="h2", kind="maintenance", begins=-HOUR)
    assert put(cloud, "c", BRIEF, requirements={"host": "h2"}).host is None


def test_a_maintenance_of_a_cluster_is_one_of_all_its_hosts(cloud: Rig) -> None:
    promise(cloud, cluster="default", kind="maintenance", begins=HOUR / 2)
    error = put(cloud, "a").error
    assert isinstance(error, NoCapacityNow)
    assert "maintenance on h1, h2 (has a maintenance in 1" in error.message
    assert "without the coming maintenance of h1" in error.fix


def test_a_hold_on_a_host_keeps_room_from_those_that_would_still_be_there(cloud: Rig) -> None:
    promise(cloud, host="h1", cpu=14)
    on_h1 = {"requirements": {"host": "h1"}}
    assert put(cloud, "a", cpu=2, **on_h1).host == "h1"
    error = put(cloud, "b", cpu=1, **on_h1).error
    assert isinstance(error, NoCapacityNow)
    assert "promised 14 cores and 0 MiB for r" in error.message
    assert put(cloud, "c", BRIEF, cpu=4, **on_h1).host == "h1", "it is gone before that"


def test_a_hold_on_a_cluster_is_kept_free_in_all(cloud: Rig) -> None:
    """32 cores may be given away: 12 are left, whatever is asked for one by one or at once."""
    promise(cloud, cluster="default", cpu=20, memory_mib=2048)
    assert [bool(put(cloud, f"a-{n}", cpu=2).host) for n in range(4)] == [True] * 4
    cloud.ask(*(f"b-{n}" for n in range(4)), cpu=2, memory=64)
    outcomes = cloud.place(cloud.claim())
    assert sum(one.host is not None for one in outcomes) == 2
    assert not put(cloud, "c", cpu=1).host


def test_a_hold_is_for_those_that_name_it_and_shrinks_by_them(cloud: Rig) -> None:
    promise(cloud, host="h1", cpu=14)
    mine = {"requirements": {"host": "h1", "reservation": "r"}}
    assert [put(cloud, f"a-{n}", cpu=4, **mine).host for n in range(3)] == ["h1"] * 3
    assert put(cloud, "b", cpu=2, requirements={"host": "h1"}).host == "h1", "2 of 14 are still held, 4 are left"
    assert put(cloud, "c", cpu=1, requirements={"host": "h1"}).host is None
    assert put(cloud, "d", cpu=2, **mine).host == "h1"


def test_a_hold_that_is_larger_than_what_is_left_holds_what_is_there(cloud: Rig) -> None:
    promise(cloud, cluster="default", cpu=1000, begins=-HOUR)
    assert put(cloud, "a").host is None
    promise(cloud, "more", cluster="default", cpu=1000)
    assert put(cloud, "b", requirements={"reservation": "r"}).host is not None


def test_what_is_over_is_forgotten_and_wakes_those_that_wait(cloud: Rig) -> None:
    promise(cloud, cluster="default", cpu=32)
    versions = {host.name: host.version for host in cloud.run(hosts.records)}
    assert not cloud.run(lambda c: reservations.over(c, now()))
    later = now() + 10 * HOUR
    assert cloud.run(lambda c: reservations.over(c, later))
    assert cloud.run(lambda c: reservations.expire(c, later)) == 1
    assert cloud.run(lambda c: reservations.list_(c, cloud.admin)) == []
    assert all(host.version > versions[host.name] for host in cloud.run(hosts.records))
    assert put(cloud, "a").host


def test_a_placement_that_has_not_seen_a_hold_is_made_again(cloud: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rounds = placing.changed, []

    def changed(c: Any, view: Any, host_ids: set[str]) -> set[str]:
        if not rounds:
            spec = ReservationSpec(name="r", cluster="default", begins_at=now(), ends_at=now() + HOUR, cpu=32)
            reservations.create(c, cloud.admin, spec)
        rounds.append(host_ids)
        return before(c, view, host_ids)

    monkeypatch.setattr(placing, "changed", changed)
    assert isinstance(put(cloud, "a").error, NoCapacityNow)


def test_who_may_make_and_use_them(cloud: Rig) -> None:
    ann = cloud.user("ann")
    promise(cloud, cluster="default", cpu=1)
    with pytest.raises(Denied, match="reservation r is admin's"):
        cloud.ask("a", by=ann, requirements={"reservation": "r"})
    with pytest.raises(NotFound, match="no reservation q"):
        cloud.ask("a", requirements={"reservation": "q"})
    with pytest.raises(Denied):
        cloud.run(lambda c: reservations.delete(c, ann, "r"))
    with pytest.raises(Conflict, match="exists already"):
        promise(cloud, cluster="default", cpu=1)
    cloud.run(lambda c: clusters.ensure(c, cloud.admin, ClusterSpec(name="east")))
    promise(cloud, "e", cluster="east", cpu=1)
    with pytest.raises(Conflict, match="it holds reservation/e"):
        cloud.run(lambda c: clusters.delete(c, cloud.admin, "east"))
    cloud.run(lambda c: reservations.delete(c, cloud.admin, "e"))
    cloud.run(lambda c: clusters.delete(c, cloud.admin, "east"))


@pytest.mark.parametrize("wrong", [
    {"cpu": 1}, {"host": "h1", "cluster": "default", "cpu": 1}, {"host": "h1"},
    {"host": "h1", "kind": "maintenance", "cpu": 1}, {"host": "h1", "cpu": 1, "ends": HOUR / 2},
], ids=str)  # fmt: skip
def test_what_says_nothing_is_refused(cloud: Rig, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        promise(cloud, **wrong)
    with pytest.raises(Invalid, match="is over"):
        promise(cloud, host="h1", cpu=1, begins=-9 * HOUR, ends=-HOUR)
