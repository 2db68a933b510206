"""Learned overcommit: what counts as taken, what counts in full, and that it is never more than was learned."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from blueprints.cluster import ClusterSpec
from control import clusters, decisions, growing, hosts, placing, tables
from core.clock import now
from core.errors import NoCapacityNow
from core.states import InstanceState, Verb
from tests.rig import Rig, in_memory


def learned(rig: Rig, *, most: float = 8.0, **cluster: Any) -> None:
    spec = ClusterSpec(name="default", cpu_learned_max=most, **cluster)
    rig.run(lambda c: clusters.ensure(c, rig.admin, spec))


def figures(uses: dict[str, list[float]], *, host: str = "h1", swing: float = 0.0, age_s: float = 60) -> dict[str, Any]:
    hosts_ = {host: {"uses": uses, "swing_cpus": swing, "samples": 10}}
    return {"version": 5, "use_at": now().timestamp() - age_s, "hosts": hosts_}


def put(rig: Rig, name: str, features: dict[str, Any] | None = None, **spec: Any) -> placing.Outcome:
    rig.ask(name, **{"memory": 64, **spec})
    ops = [op for op in rig.claim() if op.subject_name == name]
    outcome = rig.place(ops, features)[0]
    if outcome.error is None:
        rig.end(ops, InstanceState.RUNNING)
    return outcome


@pytest.fixture
def one(rig: Rig) -> Rig:
    """One host of 8 cores that gives away by what is used, with four instances of 2 cores."""
    rig.network()
    rig.image()
    learned(rig)
    rig.host("h1", cpus=8, memory_mib=64_000)
    rig.deploy("a", "b", "c", "d", cpu=2)
    return rig


def uses(rig: Rig, *names: str, p95: float = 0.5) -> dict[str, list[float]]:
    return {rig.show(name)["id"]: [p95, 2.0] for name in names}


def test_without_figures_nothing_is_given_away_twice(one: Rig) -> None:
    assert isinstance(put(one, "e", cpu=1).error, NoCapacityNow)


def test_what_is_not_used_is_given_away_and_the_explanation_says_so(one: Rig) -> None:
    known = figures(uses(one, "a", "b", "c", "d"))
    assert put(one, "e", known, cpu=6).host == "h1", "2 of 8 cores are demanded"
    newest = one.run(lambda c: decisions.newest(c, one.show("e")["id"]))
    assert newest["hosts"][0]["note"] == "learned: demand 2 of 8 cores"
    error = put(one, "f", known, cpu=1).error
    assert isinstance(error, NoCapacityNow), "e is there since the figures were worked out, and counts in full"
    assert "needs 1 cores; learned: demand 8 of 8 cores" in error.message


def test_each_one_of_a_batch_counts_in_full(one: Rig) -> None:
    known = figures(uses(one, "a", "b", "c", "d"))
    ops = one.ask("e-1", "e-2", "e-3", "e-4", cpu=2, memory=64)
    outcomes = one.place([op for op in one.claim() if op.id in {o.id for o in ops}], known)
    assert [outcome.host for outcome in outcomes] == ["h1", "h1", "h1", None]


@pytest.mark.parametrize(
    "known",
    [
        {"age_s": 3 * 3600}, {"age_s": -3 * 3600}, {"host": "h2"}, {"swing": 6.5},
    ],
    ids=["old", "of the future", "of another host", "they swing together"],
)  # fmt: skip
def test_figures_that_cannot_be_relied_on_leave_no_room(one: Rig, known: dict[str, Any]) -> None:
    assert put(one, "e", figures(uses(one, "a", "b", "c", "d"), **known), cpu=1).error is not None


@pytest.mark.parametrize("p95", [float("nan"), float("inf"), -3.0, 9.0], ids=str)
def test_a_figure_that_cannot_be_true_counts_for_nothing(one: Rig, p95: float) -> None:
    assert put(one, "e", figures(uses(one, "a", "b", "c", "d", p95=p95)), cpu=1).error is not None


def test_an_instance_of_another_size_than_it_was_watched_with_counts_in_full(one: Rig) -> None:
    seen = {key: [0.5, 1.0] for key in uses(one, "a", "b", "c", "d")}
    assert put(one, "e", figures(seen), cpu=1).error is not None


def test_one_that_is_on_its_way_elsewhere_counts_in_full_there(one: Rig) -> None:
    one.host("h2", cpus=8, memory_mib=64_000)
    known = figures(uses(one, "a", "b", "c", "d"))
    h2 = one.run(lambda c: hosts.get(c, "h2")).id
    t = tables.instance
    one.run(lambda c: c.execute(sa.update(t).where(t.c.name.in_(["a", "b", "c", "d"])).values(other_host_id=h2)))
    assert put(one, "e", known, cpu=1, requirements={"host": "h2"}).error is not None
    assert put(one, "f", known, cpu=1, requirements={"host": "h1"}).host == "h1"


def test_never_more_than_so_many_times_the_cores(one: Rig) -> None:
    learned(one, most=1.5)
    known = figures(uses(one, "a", "b", "c", "d", p95=0.0))
    assert put(one, "e", known, cpu=4).host == "h1"
    error = put(one, "f", known, cpu=1).error
    assert error is not None
    assert "0 of 12 are free" in error.message


def test_a_hosts_own_0_takes_it_out_of_the_rule(one: Rig) -> None:
    one.host("h2", cpus=8, memory_mib=64_000, cpu_learned_max=0, cpu_overcommit=2)
    assert [put(one, f"e-{n}", cpu=8).host for n in range(3)] == ["h2", "h2", None]


def test_growing_counts_what_is_used(one: Rig) -> None:
    known = figures(uses(one, "a", "b", "c", "d"))
    one.submit(Verb.RESIZE, {"instances": ["a"], "cpu": 5})
    (op,) = one.claim()
    with pytest.raises(NoCapacityNow):
        one.run(lambda c: growing.reserve_more(c, op))
    one.run(lambda c: growing.reserve_more(c, op, known))
    assert one.show("a")["cpu"] == 5


USE = st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 0.1, 0.9, 1.7, 4.0, None]), st.integers(0, 1))


@settings(deadline=None, max_examples=40)
@given(
    before=st.lists(USE, max_size=8), swings=st.tuples(*[st.sampled_from([0.0, 0.4, 3.0])] * 2),
    most=st.sampled_from([1.0, 2.0, 8.0]), wanted=st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=1, max_size=12),
    rounds=st.integers(1, 3),
)  # fmt: skip
def test_nothing_is_placed_beyond_what_was_learned(
    before: list[tuple[float, float | None, int]], swings: tuple[float, ...], most: float, wanted: list[float],
    rounds: int,
) -> None:  # fmt: skip
    """Reckoned here instance by instance; hosts may be over already, and then get nothing more."""
    rig = Rig(in_memory())
    rig.network()
    rig.image()
    names = ("h0", "h1")
    for name in names:
        rig.host(name, cpus=4, memory_mib=64_000, cpu_overcommit=64)
    seen: dict[str, Any] = {name: {"uses": {}, "swing_cpus": swing} for name, swing in zip(names, swings, strict=True)}
    for n, (cpu, p95, h) in enumerate(before):
        (one_id,) = rig.deploy(f"old-{n}", cpu=cpu, memory=16, requirements={"host": names[h]})
        if p95 is not None:
            seen[names[h]]["uses"][one_id] = [p95, cpu]
    learned(rig, most=most)
    known = {"version": 1, "use_at": now().timestamp(), "hosts": seen}
    start = {name: taken(rig, name, seen) for name in names}
    for turn in range(rounds):
        for n, cpu in enumerate(wanted):
            rig.ask(f"new-{turn}-{n}", cpu=cpu, memory=16)
        rig.place(rig.claim(), known)
    for name in names:
        demand, allocated = taken(rig, name, seen)
        assert demand <= max(4.0, start[name][0]) + 1e-6
        assert allocated <= max(4.0 * most, start[name][1]) + 1e-6


def taken(rig: Rig, host: str, seen: dict[str, Any]) -> tuple[float, float]:
    """Return the demand of a host and what is allocated there, in cores."""
    i, h = tables.instance, tables.host
    query = sa.select(i.c.id, i.c.cpu).join(h, h.c.id == i.c.host_id).where(h.c.name == host)
    rows = rig.run(lambda c: c.execute(query).all())
    allocated = sum(cpu for _, cpu in rows)
    used = [min(cpu, seen[host]["uses"].get(one, [cpu])[0]) for one, cpu in rows]
    return min(allocated, sum(used) + seen[host]["swing_cpus"]), allocated
