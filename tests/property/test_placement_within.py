"""Clusters with policies of their own: held against a search of all hosts, one copy after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.placement import engine
from control.placement.model import Choice, Request, Shape, View
from tests.property.oracle import Machine, view_of
from tests.property.test_placement_single import SHAPES, clouds

CLUSTERS = ("core", "edge", "far")


def _left(m: Machine, shape: Shape) -> float:
    """Return the sum of the shares of a host that are left after one more copy."""
    total, used = m.disk["local"]
    return (
        (m.cpus * 1000 - m.cpu_used_m - shape.cpu_m) / (m.cpus * 1000)
        + (m.memory_mib - m.memory_used_mib - shape.memory_mib) / m.memory_mib
        + (total - used - shape.disk_mib) / total
    )


# Of a host, its place by name, and a shape.
SCORES: dict[str, Callable[[Machine, int, Shape], float]] = {
    "best-fit": lambda m, n, shape: _left(m, shape),
    "pack": lambda m, n, shape: _left(m, shape) + 1e5 * (not m.instances),
    "first-fit": lambda m, n, shape: n / 100,
    "spread": lambda m, n, shape: -_left(m, shape),
    "striping": lambda m, n, shape: m.instances,
}
PACKS = ("best-fit", "pack", "first-fit")  # what they place makes a host no worse for the next one
NAMED = st.dictionaries(st.sampled_from(CLUSTERS), st.sampled_from(sorted(SCORES)))


@st.composite
def hosts(draw: st.DrawFn) -> list[Machine]:
    """Some hosts in up to three clusters; all sizes are powers of two, so that shares are exact."""
    return [
        Machine(
            f"h{n}", cluster=draw(st.sampled_from(CLUSTERS)), cpus=draw(st.sampled_from([1, 2, 4, 8])),
            cpu_used_m=draw(st.sampled_from([0, 0, 500])), memory_mib=draw(st.sampled_from([1024, 4096])),
            memory_used_mib=draw(st.sampled_from([0, 0, 512])), instances=draw(st.integers(0, 2)),
            disk={"local": (1024, draw(st.sampled_from([0, 128])))},
        )
        for n in draw(st.permutations(range(draw(st.integers(1, 7)))))
    ]  # fmt: skip


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    size = draw(st.sampled_from([500, 1000])), draw(st.sampled_from([128, 512])), draw(st.sampled_from([0, 64]))
    return Shape("vm", *size, cluster=draw(st.sampled_from([None, None, None, *CLUSTERS])))


def best(machines: list[Machine], shape: Shape, across: str, named: Mapping[str, str]) -> Machine | None:
    """Return the host that one copy goes to: that of the best cluster, which is best there."""
    by_name = {name: n for n, name in enumerate(sorted(m.name for m in machines))}

    def first(some: list[Machine], policy: str) -> Machine:
        return min(some, key=lambda m: (round(1e6 * SCORES[policy](m, by_name[m.name], shape)), m.name))

    fit = [m for m in machines if m.first_failing(shape, {}, 0) is None]
    if not fit:
        return None
    home = first(fit, across).cluster
    return first([m for m in fit if m.cluster == home], named.get(home, across))


def seen(machines: list[Machine], named: Mapping[str, str]) -> View:
    return replace(view_of(machines, {}), policies=dict(named))


def asked(shape: Shape, count: int = 1) -> list[Request]:
    return [Request(f"r{n}", f"r{n}", shape) for n in range(count)]


@settings(deadline=None, max_examples=400)
@given(hosts(), shapes(), st.sampled_from(sorted(SCORES)), NAMED, st.booleans())
def test_one_goes_to_the_best_host_of_the_best_cluster(
    machines: list[Machine], shape: Shape, across: str, named: dict[str, str], tell: bool
) -> None:
    (choice,) = engine.choose(seen(machines, named), asked(shape), policy=across, tell=tell)
    expected = best(machines, shape, across, named)
    assert choice.host == (None if expected is None else machines.index(expected))
    if not tell or expected is None:
        return
    if named:
        _tells(choice, machines, across, named, expected)
    else:
        assert not {"policy", "across"} & set(choice.record)


def _tells(choice: Choice, machines: list[Machine], across: str, named: Mapping[str, str], host: Machine) -> None:
    """Check that the explanation says who compared what."""
    by_name = {m.name: m for m in machines}
    told = [entry for entry in choice.record["hosts"] if "constraint" not in entry]
    assert told[0]["host"] == host.name
    scored_by = choice.record["policy"]
    assert scored_by == named.get(host.cluster, across)
    if "across" not in choice.record:
        return
    assert {by_name[entry["host"]].cluster for entry in told} == {host.cluster}
    compared = choice.record["across"]
    assert compared["policy"] == across
    assert compared["clusters"][0]["cluster"] == host.cluster
    assert all(by_name[one["host"]].cluster == one["cluster"] for one in compared["clusters"])
    scores = [one["score"] for one in compared["clusters"]]
    assert scores == sorted(scores)


@settings(deadline=None, max_examples=400)
@given(
    hosts(), shapes(), st.sampled_from(PACKS), st.dictionaries(st.sampled_from(CLUSTERS), st.sampled_from(PACKS)),
    st.integers(1, 30), st.booleans(),
)  # fmt: skip
def test_many_copies_go_where_they_would_go_one_by_one(
    machines: list[Machine], shape: Shape, across: str, named: dict[str, str], count: int, tell: bool
) -> None:
    choices = engine.choose(seen(machines, named), asked(shape, count), policy=across, tell=tell)
    after = copy.deepcopy(machines)
    for _ in choices:
        expected = best(after, shape, across, named)
        if expected is not None:
            expected.take(shape, "local", {})
    taken = [0] * len(machines)
    for choice in choices:
        if choice.host is not None:
            taken[choice.host] += 1
    assert taken == [m.instances - before.instances for m, before in zip(after, machines, strict=True)]


@settings(deadline=None, max_examples=200)
@given(hosts(), st.lists(shapes(), min_size=1, max_size=6), st.sampled_from(sorted(SCORES)), NAMED, st.integers(1, 9))
def test_nothing_is_taken_twice_and_nobody_left_out(
    machines: list[Machine], some: list[Shape], across: str, named: dict[str, str], copies: int
) -> None:
    requests = [Request(f"r{n}", f"r{n}", shape) for n, shape in enumerate(some * copies)]
    choices = engine.choose(seen(machines, named), requests, policy=across)
    after = copy.deepcopy(machines)
    for choice in choices:
        if choice.host is not None:
            assert after[choice.host].first_failing(choice.request.shape, {}, 0) is None
            after[choice.host].take(choice.request.shape, "local", {})
    for choice in choices:
        assert choice.host is not None or all(m.first_failing(choice.request.shape, {}, 0) for m in after)


POLICY = st.sampled_from(["balanced", "pack", "fragmentation-aware", "lifetime-aware", "spread", "best-fit"])


@pytest.mark.parametrize("copies", [1, 3])
@settings(deadline=None, max_examples=120)
@given(
    clouds(), st.lists(SHAPES, min_size=1, max_size=20), POLICY, st.dictionaries(st.sampled_from(CLUSTERS), POLICY),
    st.lists(st.sampled_from(CLUSTERS), min_size=20, max_size=20), st.randoms(use_true_random=False),
)  # fmt: skip
def test_short_ways_and_the_order_of_hosts_make_no_difference(
    copies: int, machines: list[Machine], some: list[Shape], across: str, named: dict[str, str], homes: list[str],
    dice: object,
) -> None:  # fmt: skip
    for m, home in zip(machines, homes, strict=False):
        m.cluster = home
    bound = [replace(shape, cluster=homes[n] if n % 3 else None) for n, shape in enumerate(some)]
    requests = [Request(f"r{n}", f"r{n}", shape) for n, shape in enumerate(bound * copies)]
    mixed = list(machines)
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    answers = []
    for order, tell in ((machines, True), (machines, False), (mixed, True)):
        view = replace(view_of(order, {"lan": list(range(20)), "wan": list(range(9))}), policies=named)
        found = engine.choose(view, requests, policy=across, tell=tell)
        answers.append([(None if c.host is None else view.names[c.host], c.datastore) for c in found])
    assert answers[0] == answers[1] == answers[2]
