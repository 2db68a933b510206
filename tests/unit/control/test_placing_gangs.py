"""Gangs hold in the record: all of one are placed in one round or none; priorities decide who comes first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from blueprints.instance import InstanceSpec
from control import hosts, operations, placing, placing_preview, tables
from control.operations import Operation
from core.clock import now
from core.errors import Busy, Denied, NoCapacityNow, NoFit
from core.states import HostState, InstanceState, OperationState, Verb
from tests.rig import Rig


def ask(cloud: Rig, *specs: dict[str, Any]) -> list[Operation]:
    body = {"instances": [{"image": "tiny", "memory": 64, "cpu": 1, **spec} for spec in specs]}
    return cloud.submit(Verb.DEPLOY, body).operations


def put(cloud: Rig, **features: Any) -> dict[str, placing.Outcome]:
    """Claim what is due and place it; return the outcomes by name."""
    ops = [op for op in cloud.claim() if op.verb is Verb.DEPLOY]
    outcomes = dict(zip([op.subject_name for op in ops], cloud.place(ops, features), strict=True))
    later = now() + timedelta(hours=1)

    def wait(c: sa.Connection) -> None:
        for op in ops:
            error = outcomes[op.subject_name].error
            if isinstance(error, NoFit):
                operations.finish(c, op, OperationState.FAILED, error=error)
            elif error is not None:
                operations.postpone(c, op, str(error), later)

    cloud.run(wait)
    return outcomes


def hosts_of(outcomes: dict[str, placing.Outcome]) -> dict[str, str | None]:
    return {name: one.host for name, one in outcomes.items()}


def due(cloud: Rig, name: str) -> None:
    t = tables.operation
    cloud.run(lambda c: c.execute(sa.update(t).where(t.c.subject_name == name).values(not_before=None)))


def test_all_copies_of_a_count_are_placed_or_none(cloud: Rig) -> None:
    """There is room for 16 of 4 cores on hosts that answer, two of which are taken; a third host is down."""
    cloud.host("h0", cpus=4, memory_mib=4096)
    cloud.run(lambda c: hosts.set_state(c, hosts.get(c, "h0").id, HostState.UNREACHABLE))
    ask(cloud, {"name": "web", "cpu": 4, "count": 9, "gang": True}, {"name": "alone", "cpu": 4})
    outcomes = put(cloud)
    assert outcomes.pop("alone").host
    assert {one.host for one in outcomes.values()} == {None}
    error = outcomes["web-1"].error
    assert isinstance(error, NoCapacityNow)
    assert "so none is placed" in error.message
    cloud.host("h3", cpus=32, memory_mib=64_000)
    outcomes = put(cloud)
    assert len(outcomes) == 9
    assert all(one.host for one in outcomes.values())


def test_a_gang_that_could_never_fit_as_a_whole_fails_at_once(cloud: Rig) -> None:
    """Each of its nine would fit; there is room for eight on the two hosts, even with nothing else there."""
    ask(cloud, {"name": "web", "cpu": 4, "count": 9, "gang": True}, {"name": "alone", "cpu": 4})
    outcomes = put(cloud)
    assert outcomes.pop("alone").host
    assert {type(one.error) for one in outcomes.values()} == {NoFit}
    assert "all 9 of gang web" in str(outcomes["web-4"].error)
    assert "do not fit in this cloud together" in str(outcomes["web-4"].error)
    specs = [InstanceSpec.model_validate({"name": "new", "image": "tiny", "cpu": 4, "count": 9, "gang": True})]
    planned = cloud.run(lambda c: placing_preview.plan(c, cloud.admin, specs))
    assert {one["error"]["code"] for one in planned} == {NoFit.code}


def test_a_gang_that_would_fit_if_others_were_gone_waits(cloud: Rig) -> None:
    cloud.deploy("old", cpu=4)
    ask(cloud, {"name": "web", "cpu": 4, "count": 8, "gang": True})
    assert {type(one.error) for one in put(cloud).values()} == {NoCapacityNow}
    cloud.delete("old")
    assert all(one.host for one in put(cloud).values())


def test_a_gang_hopes_for_a_host_that_is_being_enrolled(cloud: Rig) -> None:
    cloud.submit(Verb.ENROLL, {"hosts": [{"name": "h3", "address": "10.1.7.7"}]})
    ask(cloud, {"name": "web", "cpu": 4, "count": 9, "gang": True})
    assert {type(one.error) for one in put(cloud).values()} == {NoCapacityNow}


def test_a_gang_across_specs_is_one_of_its_request_only(cloud: Rig) -> None:
    """There is room for 8 of 4 cores: for all of the first request, and not for both."""
    for number, count in ((1, 7), (2, 1)):
        specs = {"name": f"a{number}", "gang": "g"}, {"name": f"b{number}", "cpu": 4, "gang": "g", "count": count}
        ask(cloud, *specs)
    outcomes = hosts_of(put(cloud))
    assert {name for name, host in outcomes.items() if host} == {"a1", *(f"b1-{n}" for n in range(1, 8))}


def test_one_that_is_due_brings_its_gang_along(cloud: Rig) -> None:
    cloud.deploy("old", cpu=4)
    ops = ask(cloud, {"name": "web", "cpu": 4, "count": 8, "gang": True})
    assert not any(hosts_of(put(cloud)).values())
    assert put(cloud) == {}, "none is due"
    cloud.host("h3", cpus=32, memory_mib=64_000)
    t = tables.operation
    later = now() + timedelta(hours=1)
    cloud.run(lambda c: c.execute(sa.update(t).where(t.c.id.in_([op.id for op in ops])).values(not_before=later)))
    due(cloud, "web-3")
    assert len([host for host in hosts_of(put(cloud)).values() if host]) == 8


def test_a_gang_waits_for_one_that_is_held(cloud: Rig) -> None:
    ask(cloud, {"name": "web", "count": 3, "gang": True})
    ops = [op for op in cloud.claim() if op.subject_name != "web-2"]
    outcomes = cloud.place(ops)
    assert [type(one.error) for one in outcomes] == [Busy, Busy]
    assert str(outcomes[0].error) == "web-1 waits for web-2 of its gang web"
    assert all(cloud.show(f"web-{n}")["host"] is None for n in (1, 2, 3))


def test_where_one_can_never_be_placed_all_fail(cloud: Rig) -> None:
    ask(cloud, {"name": "a", "gang": "g"}, {"name": "b", "cpu": 400, "gang": "g"})
    outcomes = put(cloud)
    assert [type(outcomes[name].error) for name in "ab"] == [NoFit, NoFit]
    assert "of its gang: no host of this cloud can hold b" in str(outcomes["a"].error)


@pytest.mark.parametrize(("how", "placed"), [(OperationState.FAILED, False), (OperationState.CANCELLED, True)])
def test_what_failed_takes_its_gang_along_and_what_was_cancelled_counts_no_more(
    cloud: Rig, how: OperationState, placed: bool
) -> None:
    ask(cloud, {"name": "a", "gang": "g"}, {"name": "b", "gang": "g"})
    ops = {op.subject_name: op for op in cloud.claim()}
    cloud.end([ops["b"]], InstanceState.FAILED, how)
    (outcome,) = cloud.place([ops["a"]])
    assert bool(outcome.host) is placed
    assert placed or "b of its gang g failed" in str(outcome.error)


def test_one_that_is_sent_elsewhere_goes_alone(cloud: Rig) -> None:
    ask(cloud, {"name": "a", "gang": "g"}, {"name": "b", "gang": "g"})
    ops = {op.subject_name: op for op in cloud.claim()}
    assert all(one.host == "h1" for one in cloud.place(list(ops.values())))

    def elsewhere(c: sa.Connection) -> Operation:
        t = tables.instance
        c.execute(sa.update(t).where(t.c.name == "a").values(host_id=None, datastore_id=None))
        operations.set_parameters(c, ops["a"], {**ops["a"].parameters, "avoid": ["h1"]})
        return operations.get(c, [ops["a"].id])[0]

    assert cloud.place([cloud.run(elsewhere)])[0].host == "h2"


def test_a_gang_whose_host_another_process_took_is_placed_again_as_a_whole(
    cloud: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """h1 changes while the gang is looked at, and what is left there is too small for its half."""
    ask(cloud, {"name": "web", "cpu": 4, "count": 8, "gang": True})
    ops = cloud.claim()
    before, rounds = placing.changed, []

    def changed(c: sa.Connection, view: Any, host_ids: set[str]) -> set[str]:
        rounds.append(len(host_ids))
        if len(rounds) == 1:
            hosts.set_state(c, hosts.get(c, "h1").id, HostState.DISABLED)
        return before(c, view, host_ids)

    monkeypatch.setattr(placing, "changed", changed)
    outcomes = cloud.place(ops)
    assert rounds[0] == 2
    assert {one.host for one in outcomes} == {None}, "h2 alone has not room for all"
    assert all(cloud.show(f"web-{n}")["host"] is None for n in range(1, 9))


def test_a_gang_that_lacks_an_address_is_not_placed_at_all(cloud: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(cloud, {"name": "web", "count": 3, "gang": True}, {"name": "alone"})
    before, lacking = placing.leases.draw, cloud.show("web-2")["id"]

    def draw(view: Any, placed: Any) -> Any:
        given, short = before(view, placed)
        gone = {lacking}
        return [one for one in given if one.instance_id not in gone], short | gone

    monkeypatch.setattr(placing.leases, "draw", draw)
    outcomes = put(cloud)
    assert outcomes.pop("alone").host
    assert {(one.host, type(one.error)) for one in outcomes.values()} == {(None, Busy)}
    assert all(not cloud.show(f"web-{n}")["addresses"] for n in (1, 2, 3))


def test_higher_priorities_come_first_when_there_is_not_room_for_all(cloud: Rig) -> None:
    ask(cloud, {"name": "low", "cpu": 4, "count": 6, "priority": 10}, {"name": "usual", "cpu": 4, "count": 4},
        {"name": "high", "cpu": 4, "count": 2, "priority": 90})  # fmt: skip
    ask(cloud, {"name": "later", "cpu": 4, "count": 3, "priority": 60})
    placed = [name for name, host in hosts_of(put(cloud)).items() if host]
    assert sorted({name.split("-")[0] for name in placed}) == ["high", "later", "usual"] or len(placed) == 8
    assert sum(name.startswith("high") for name in placed) == 2
    assert sum(name.startswith("later") for name in placed) == 3
    assert sum(name.startswith("low") for name in placed) == 0


def test_more_than_the_usual_priority_is_not_everybodys_to_ask_for(cloud: Rig) -> None:
    ann = cloud.user("ann")
    cloud.ask("low", by=ann, priority=50)
    with pytest.raises(Denied, match="ann may not ask for priority 51"):
        cloud.ask("high", by=ann, priority=51)
    for wrong in (-1, 101, "much"):
        with pytest.raises(ValidationError):
            InstanceSpec.model_validate({"name": "x", "image": "y", "priority": wrong})


def test_what_a_driver_must_be_able_to_do(cloud: Rig) -> None:
    t = tables.host
    able = {"kinds": ["vm"], "migrate_live": True, "backup": False}
    cloud.run(lambda c: c.execute(sa.update(t).where(t.c.name == "h2").values(capabilities=able)))
    ask(cloud, {"name": "a", "requirements": {"capabilities": ["migrate_live"]}},
        {"name": "b", "requirements": {"capabilities": ["migrate_live", "backup"]}})  # fmt: skip
    outcomes = put(cloud)
    assert outcomes["a"].host == "h2"
    assert isinstance(outcomes["b"].error, NoFit)
    assert "capabilities on h1, h2" in str(outcomes["b"].error)


def test_true_is_the_name_of_the_spec() -> None:
    def names(**spec: Any) -> list[Any]:
        return [one.gang for one in InstanceSpec.model_validate({"name": "w", "image": "i", **spec}).expand()]

    assert names(gang=True, count=2) == ["w", "w"]
    assert names(gang=True) == ["w"]
    assert names(gang="g", count=1) == ["g"]
    assert names(count=1) == [False]
