"""Copies of a usual shape go, in fewer steps, exactly where the engine's rounds would put them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from control.placement import engine
from control.placement.copies import place_many
from control.placement.model import Request, Rule, Shape
from control.placement.single import place_one
from control.placement.weights import POLICIES, opens_last
from control.placement.work import start
from tests.property.oracle import Machine, neighbours, view_of

X = (("app", "x"),)
LAST = sorted(name for name, policy in POLICIES.items() if opens_last(Shape("vm", 0, 0, 0), policy))
SHAPES = st.builds(
    Shape,
    kind=st.just("vm"),
    cpu_m=st.integers(1, 3000),
    memory_mib=st.integers(1, 3000),
    disk_mib=st.integers(0, 200),
    image=st.sampled_from(["", "a", "b", "c"]),
    image_mib=st.sampled_from([0, 50]),
    datastore=st.sampled_from([None, "local", "fast"]),
    labels=st.sampled_from([(), (), (("disk", "ssd"),)]),
    nics=st.sampled_from([(), (("lan", 1),), (("lan", 1), ("wan", 2))]),
    pci=st.sampled_from([(), (), (("gpu", 1),)]),
    one_cell=st.sampled_from([False, False, True]),
    own_labels=st.sampled_from([(), X]),
    rules=st.sampled_from([(), (), (Rule(False, X),), (Rule(False, X, "rack"),), (Rule(True, X),)]),
    lifetime_s=st.sampled_from([0, 0, 600, 90_000]),
)
KINDS = st.builds(
    dict,
    labels=st.sampled_from([{"rack": "r1"}, {"disk": "ssd", "rack": "r2"}]),
    cpus=st.sampled_from([2, 8]),
    cpu_used_m=st.sampled_from([0, 0, 700]),
    memory_mib=st.sampled_from([2048, 8192]),
    instances=st.sampled_from([0, 0, 0, 1, 2]),
    disk=st.sampled_from([{"local": (1000, 0)}, {"local": (600, 300), "fast": (400, 0)}]),
    networks=st.sampled_from([("lan",), ("lan", "wan")]),
    images=st.sampled_from([frozenset(), frozenset({"a"}), frozenset({"a", "b"})]),
    devices=st.sampled_from([{}, {"gpu": 2}]),
)


@st.composite
def clouds(draw: st.DrawFn) -> list[Machine]:
    """Some kinds of hosts, several of each, under mixed names."""
    kinds = draw(st.lists(KINDS, min_size=1, max_size=4))
    order = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=20))
    names = draw(st.permutations(range(len(order))))
    cells = [[[one["cpus"] * 500, one["memory_mib"] // 2] for _ in range(2)] for one in order]
    return neighbours([
        Machine(f"h{name:02}", **one, cells=cell) for name, one, cell in zip(names, order, cells, strict=True)
    ])  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(
    clouds(), st.lists(SHAPES, min_size=1, max_size=25), st.sampled_from(LAST), st.booleans(),
    st.sampled_from([1, 1, 2, 7]),
)  # fmt: skip
def test_answers_are_those_of_the_rounds(
    machines: list[Machine], shapes: list[Shape], policy: str, measured: bool, copies: int
) -> None:
    pools = {"lan": list(range(20)), "wan": list(range(9))}
    seen = {"exit_s": 700.0, "samples": 9, "cpu_used_ratio": 0.9, "memory_used_mib": 100.0, "failure_ratio": 0.1}
    features = {"hosts": {m.name: seen for m in machines[::2]}} if measured else None
    requests = [Request(f"r{n}", f"r{n}", shape) for n, shape in enumerate(shapes * copies)]
    # what is told is told of the rounds, so then nothing takes the short way
    rounds = engine.choose(view_of(machines, pools), requests, features, policy=policy, tell=True)
    short = engine.choose(view_of(machines, pools), requests, features, policy=policy, tell=False)
    assert [(c.host, c.datastore) for c in short] == [(c.host, c.datastore) for c in rounds]


APART = Rule(False, X)
BOUND: list[tuple[tuple[tuple[str, str], ...], tuple[Rule, ...]]] = [((), ()), (X, ()), ((), (APART,)), (X, (APART,))]


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.integers(1, 300), st.sampled_from(BOUND), min_size=2, max_size=60), st.booleans())
def test_rules_bind_shapes_that_are_placed_together(sizes: dict[int, tuple[Any, Any]], begun: bool) -> None:
    """All hosts are alike and have room for many, so nothing but a rule keeps one from where those before it went."""
    machines = neighbours([
        Machine(f"h{n}", cpus=9, memory_mib=16_384, disk={"local": (10_000, 0)}, instances=int(begun)) for n in range(9)
    ])  # fmt: skip
    shapes = [Shape("vm", n, n, 10, own_labels=labels, rules=rules) for n, (labels, rules) in sizes.items()]
    requests = [Request(f"r{n}", f"r{n}", shape) for n, shape in enumerate(shapes)]
    rounds, short = (engine.choose(view_of(machines, {}), requests, tell=tell) for tell in (True, False))
    assert [(c.host, c.datastore) for c in short] == [(c.host, c.datastore) for c in rounds]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 5)), min_size=1, max_size=6))
def test_many_copies_go_the_short_way_too(runs: list[tuple[int, int]]) -> None:
    view = view_of(neighbours([Machine(f"h{n}", cpus=1, disk={"local": (1000, 0)}) for n in (2, 0, 1)]), {})
    work = start(view)
    for size, wanted in runs:
        before = work.left[0].copy()
        found = place_many(view, work, Shape("vm", size, size, 10), wanted, POLICIES["balanced"])
        room = int((before // size).sum())
        assert (found is None) == (room == 0)
        if found is not None:
            assert int(found[1].sum()) == min(wanted, room)
            assert ((before - work.left[0])[found[0]] == size * found[1]).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 500), min_size=2, max_size=12, unique=True))
def test_usual_shapes_go_the_short_way_on_empty_hosts_and_on_preferred_ones(sizes: list[int]) -> None:
    machines = neighbours([Machine(f"h{n}", cpus=1, disk={"local": (1000, 0)}) for n in (2, 0, 1)])
    view = view_of(machines, {})
    work = start(view)
    for n, size in enumerate(sizes):
        before = work.left[0].copy()
        found = place_one(view, work, Shape("vm", size, size, 10), POLICIES["balanced"])
        fits = np.flatnonzero(before >= size)
        assert (found is None) == (not len(fits))
        if found is not None:
            assert n or view.names[found[0]] == "h0"  # the first of equal ones by name
            assert (before - work.left[0]).tolist() == [size if h == found[0] else 0 for h in range(3)]
