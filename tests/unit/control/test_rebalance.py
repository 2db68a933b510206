"""Plans for larger pools, in parts and roughly; how long moves take, and which may go at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from bench.rebalance import scene
from control.placement.weights import DEFAULT
from control.rebalance import exact
from control.rebalance.model import Goal, Kind
from control.rebalance.order import first_refused
from control.rebalance.planner import plan
from control.rebalance.timing import Limits, eta_s, expected_s, may_begin, usual_of
from core.states import Verb


@pytest.mark.parametrize("kind", [Kind.REBALANCE, Kind.CONSOLIDATE])
def test_a_large_pool_is_planned_in_parts_almost_as_well(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plan(scene(300, 30), Goal(kind))
    monkeypatch.setattr(exact, "LARGEST", 150)
    one = scene(300, 30)
    parts = plan(one, Goal(kind))
    rough = plan(scene(300, 30), Goal(kind), exact=False)
    assert (whole.method, whole.optimal) == ("exact", True)
    assert (parts.method, parts.optimal) == ("in parts", False)
    assert (rough.method, rough.optimal) == ("heuristic", False)
    for outcome in (parts, rough):
        assert first_refused(one.view, outcome.moves) is None
    if kind is Kind.CONSOLIDATE:
        assert whole.after.used <= parts.after.used <= whole.after.used + 3
        assert max(parts.after.used, rough.after.used) < rough.before.used
    else:
        assert max(parts.after.greatest, rough.after.greatest) <= whole.after.greatest + 0.1
        assert min(parts.before.greatest, rough.before.greatest) > 0.9


def test_instances_that_are_alike_are_one_flavour_and_stay_as_many() -> None:
    one = scene(200, 20)
    outcome = plan(one, Goal(Kind.CONSOLIDATE))
    at = {item.id: item.host for item in one.items} | {move.item.id: move.target for move in outcome.moves}
    assert len(set(at.values())) == outcome.after.used
    assert Counter(move.item.id for move in outcome.moves).most_common(1)[0][1] <= 2


@pytest.mark.parametrize("whose", ["cluster", "front-end"])
def test_a_host_is_emptied_by_the_policy_that_places_there(whose: str) -> None:
    one = scene(40, 8)
    host = one.view.names[one.items[0].host]
    homes = {}
    for policy in ("pack", "striping"):
        view = replace(one.view, policies={one.view.clusters[0]: policy}) if whose == "cluster" else one.view
        goal = Goal(Kind.EVACUATE, host, policy=DEFAULT if whose == "cluster" else policy)
        outcome = plan(replace(one, view=view), goal)
        assert outcome.method == "placement"
        homes[policy] = len({move.target for move in outcome.moves})
    assert homes["pack"] < homes["striping"]


def test_what_is_copied_takes_longer_in_proportion() -> None:
    steps = [{"verb": "migrate-live", "step": name, "driver": "kvm", "p50_s": p50}
             for name, p50 in (("reserve", 0.5), ("transfer", 4.0))]  # fmt: skip
    usual = usual_of(steps, "kvm")
    names = ["reserve", "transfer"]
    assert expected_s(Verb.MIGRATE_LIVE, names, 2048, 2048, usual) == 4.5
    assert expected_s(Verb.MIGRATE_LIVE, names, 8192, 2048, usual) == 16.5
    assert expected_s(Verb.MIGRATE_LIVE, names, 6000, 2048, usual_of(steps, "lxd")) == 13.0


def test_so_many_go_at_a_time_in_all_and_by_host() -> None:
    ways = [("a", "x", ()), ("a", "y", ()), ("a", "z", ()), ("b", "y", ()), ("c", "z", (0,)), ("d", "w", ())]
    limits = Limits(parallel=3, per_host=2)
    assert may_begin(ways, range(6), [], (), limits) == [0, 1, 3]
    assert may_begin(ways, [2, 4, 5], [1, 3], {0}, limits) == [2]
    assert may_begin(ways, [4, 5], [], {0, 1, 2, 3}, limits) == [4, 5]
    assert eta_s(ways[:3], [5.0, 5.0, 5.0], Limits(4, 2)) == 10.0
    assert eta_s([], [], Limits()) == 0.0
