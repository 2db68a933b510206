"""Requirements, ranks and rules between instances, from the spec to the chosen host."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from control import moving, tables
from core.errors import Invalid, NoCapacityNow, NoFit
from core.states import Verb
from tests.rig import Rig
from tests.unit.control.test_placing import decision, refusal, try_to_place

WEB = {"role": "web"}


def test_instances_that_are_to_be_apart_are(cloud: Rig) -> None:
    apart = {"labels": WEB, "anti_affinity": [{"labels": WEB}]}
    assert {try_to_place(cloud, name, **apart).host for name in ("web-1", "web-2")} == {"h1", "h2"}
    error = refusal(cloud, name="web-3", **apart)
    assert isinstance(error, NoCapacityNow)
    assert "1 with role=web on its host" in error.message


def test_a_rule_of_what_runs_binds_what_comes(cloud: Rig) -> None:
    lonely = try_to_place(cloud, "lonely", anti_affinity=[{"labels": WEB}]).host
    assert try_to_place(cloud, "other").host == lonely
    assert try_to_place(cloud, "web", labels=WEB).host != lonely


def test_a_rule_of_another_may_be_all_that_would_have_to_change(cloud: Rig) -> None:
    for n in (1, 2):
        try_to_place(cloud, f"lonely-{n}", anti_affinity=[{"labels": WEB}], requirements={"host": f"h{n}"})
    assert "must be apart from role=web" in refusal(cloud, name="web", labels=WEB).message
    change = decision(cloud, "web")["change"]
    assert change["text"] == 'with "apart from role=web by host" of lonely-1 only as a wish, it would fit on h1'
    assert change["changes"] == [{"field": "rules of others", "from": "apart from role=web by host", "to": "wish"}]


def test_instances_that_are_to_be_together_are(cloud: Rig) -> None:
    there = try_to_place(cloud, "db", labels={"role": "db"}, requirements={"host": "h2"}).host
    assert try_to_place(cloud, "app", affinity=[{"labels": {"role": "db"}}]).host == there == "h2"
    error = refusal(cloud, name="lost", affinity=[{"labels": {"role": "cache"}}])
    assert "there is no instance with role=cache" in error.message


@pytest.mark.parametrize("gang", [{}, {"gang": True, "count": 2}], ids=["alone", "a gang"])
def test_what_is_to_be_beside_another_one_waits_for_room_or_for_that_one(cloud: Rig, gang: dict[str, Any]) -> None:
    """What could fit if others were not there, or when the one comes that it is to be with, does not fail at once."""
    cloud.deploy("db", labels={"role": "db"}, cpu=4)
    full = cloud.show("db")["host"]
    cloud.deploy("a", "b", "c", cpu=4, requirements={"host": full})
    for role in ("db", "cache"):
        cloud.ask(f"by-{role}", affinity=[{"labels": {"role": role}}], **gang)
        outcomes = cloud.place(cloud.claim())
        assert {type(one.error) for one in outcomes} == {NoCapacityNow}, outcomes


def test_a_wish_is_kept_where_it_can_be(cloud: Rig) -> None:
    wish = {"labels": WEB, "anti_affinity": [{"labels": WEB, "hard": False}]}
    placed = [try_to_place(cloud, f"web-{n}", **wish).host for n in range(3)]
    assert set(placed) == {"h1", "h2"}
    assert None not in placed


def test_what_moves_away_is_not_in_its_own_way(cloud: Rig) -> None:
    """It is apart from others of its role by rack; both hosts are in one, and it is the only one."""
    cloud.run(lambda c: c.execute(sa.update(tables.host).values(labels={"rack": "r1"})))
    rule = {"labels": WEB, "domain": "rack"}
    cloud.deploy("web", labels=WEB, anti_affinity=[rule])
    cloud.submit(Verb.MIGRATE, {"instances": ["web"], "live": False})
    (op,) = cloud.claim()
    assert cloud.run(lambda c: moving.reserve(c, op)) != cloud.show("web")["host"]
    assert isinstance(refusal(cloud, name="web-2", labels=WEB, anti_affinity=[rule]), NoCapacityNow)


def test_two_that_are_to_be_apart_do_not_move_to_the_same_host(cloud: Rig) -> None:
    apart = {"labels": WEB, "anti_affinity": [{"labels": WEB}]}
    cloud.deploy("web-1", "web-2", **apart)
    cloud.host("h3")
    cloud.submit(Verb.MIGRATE, {"instances": ["web-1", "web-2"]})
    first, second = cloud.claim()
    assert cloud.run(lambda c: moving.reserve(c, first)) == "h3"
    with pytest.raises(NoCapacityNow, match="with role=web on its host"):
        cloud.run(lambda c: moving.reserve(c, second))


def test_a_requirement_is_kept_and_explained(cloud: Rig) -> None:
    assert try_to_place(cloud, "second", requirements={"where": 'name == "h2" and cpus >= 1'}).host == "h2"
    error = refusal(cloud, name="huge", requirements={"where": "cpus >= 1000"})
    assert isinstance(error, NoFit)
    assert "cpus >= 1000" in error.message
    assert {entry["constraint"] for entry in decision(cloud, "huge")["hosts"]} == {"requires"}


def test_a_rank_decides(cloud: Rig) -> None:
    try_to_place(cloud, "first", requirements={"host": "h1"})
    assert try_to_place(cloud, "packed").host == "h1"
    assert try_to_place(cloud, "ranked", requirements={"rank": "-1 * instances"}).host == "h2"


@pytest.mark.parametrize(
    ("requirements", "said"),
    [
        ({"where": "cpus >="}, "requirements.where: expression, column 8"),
        ({"where": "cpus + 1"}, "must come to true or false"),
        ({"rank": "cpus > 1"}, "must come to a number"),
        ({"where": "rack == 'r1'"}, "rack"),
    ],
)
def test_what_cannot_be_understood_is_said_at_once(cloud: Rig, requirements: dict[str, str], said: str) -> None:
    with pytest.raises(Invalid) as caught:
        cloud.ask("web", requirements=requirements)
    assert said in caught.value.message


def test_an_architecture_that_no_host_has(cloud: Rig) -> None:
    assert "riscv64" in refusal(cloud, name="odd", requirements={"architecture": "riscv64"}).message
