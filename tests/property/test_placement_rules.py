"""Everything a shape can ask for at once, held against the oracle; the same answer whatever the order of the hosts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.placement import engine
from control.placement.batch import runs
from control.placement.model import Choice, Request, Rule, Shape
from control.placement.weights import POLICIES
from tests.property.oracle import WHERE, Machine, neighbours, view_of

WEB, DB = (("role", "web"),), (("role", "db"),)
RULES = (
    Rule(together=False, labels=WEB),
    Rule(together=False, labels=WEB, domain="rack"),
    Rule(together=True, labels=WEB),
    Rule(together=True, labels=DB, domain="rack"),
    Rule(together=False, labels=DB),
    Rule(together=False, labels=WEB, hard=False),
    Rule(together=True, labels=(("disk", "ssd"),), on_hosts=True),
)
SHAPES = st.builds(
    Shape,
    kind=st.just("vm"),
    cpu_m=st.sampled_from([500, 1000, 2000]),
    memory_mib=st.sampled_from([128, 512, 1024]),
    disk_mib=st.sampled_from([0, 50]),
    nics=st.sampled_from([(), (("lan", 1),)]),
    arch=st.sampled_from(["", "", "x86_64", "arm64"]),
    kernel=st.sampled_from(["", "", "six"]),
    capabilities=st.sampled_from([frozenset(), frozenset({"tpm"})]),
    own_labels=st.sampled_from([(), WEB, DB]),
    rules=st.lists(st.sampled_from(RULES), max_size=2, unique=True).map(tuple),
    pci=st.sampled_from([(), (), (("gpu", 1),), (("gpu", 2), ("nic", 1))]),
    pinned=st.booleans(),
    one_cell=st.booleans(),
    hugepage_kib=st.sampled_from([0, 0, 2048, 1048576]),
    lifetime_s=st.sampled_from([0, 600, 86400]),
    where=st.sampled_from(["", "", "", *WHERE]),
    leaves=st.sampled_from(["", "", "h0"]),
    driver=st.sampled_from(["", "", "kvm"]),
)


@st.composite
def machines(draw: st.DrawFn) -> list[Machine]:
    """Up to five hosts in two racks, or none, with what a rack server has."""
    found = [
        Machine(
            f"h{n}",
            labels=draw(st.sampled_from([{}, {"rack": "r1"}, {"rack": "r1", "disk": "ssd"}, {"rack": "r2"}])),
            cpus=draw(st.sampled_from([2, 4, 8])),
            cpu_overcommit=draw(st.sampled_from([1, 3])),
            memory_mib=draw(st.sampled_from([1024, 4096])),
            disk=draw(st.sampled_from([{"local": (1000, 0)}, {"san": (160, 0)}, {"local": (60, 0), "san": (160, 0)}])),
            shared=frozenset({"san"}),
            driver=draw(st.sampled_from(["kvm", "kvm", "lxd"])),
            promised=draw(st.sampled_from([[], [], [(7200.0, 1500, 512)], [(60.0, 1000, 0), (7200.0, 0, 512)]])),
            networks=("lan",),
            arch=draw(st.sampled_from(["x86_64", "x86_64", "arm64"])),
            kernels=draw(st.sampled_from([None, None, ("six",), ()])),
            capabilities=draw(st.sampled_from([frozenset({"tpm"}), frozenset()])),
            window_s=draw(st.sampled_from([float("inf"), float("inf"), 1200.0])),
            devices=draw(st.sampled_from([{}, {"gpu": 2}, {"gpu": 3, "nic": 1}])),
            pins_m=draw(st.sampled_from([0, 2000, 8000])),
            pages=draw(st.sampled_from([{}, {2048: 1024}, {2048: 2048, 1048576: 1024}])),
            cells=draw(st.sampled_from([[[1000, 512], [1000, 512]], [[2000, 1024], [2000, 2048]]])),
            guests=draw(st.lists(st.sampled_from([(dict(WEB), ()), (dict(DB), (RULES[0],)), ({}, ())]), max_size=1)),
        )
        for n in range(draw(st.integers(0, 5)))
    ]
    return neighbours(copy.deepcopy(found))


def requests(shapes: Sequence[Shape]) -> list[Request]:
    return [Request(f"r{n}", f"r{n}", shape) for n, shape in enumerate(shapes)]


def replay(hosts: list[Machine], pools: dict[str, list[int]], shapes: list[Shape], choices: list[Choice]) -> None:
    """Take one by one what was chosen; every one must be allowed at its turn."""
    for shape, places in runs(requests(shapes), np.arange(len(shapes))):
        for place in places:
            choice = choices[place]
            if choice.host is not None:
                assert hosts[choice.host].first_failing(shape, pools, 0) is None
                hosts[choice.host].take(shape, str(choice.datastore), pools)
            else:
                assert all(m.first_failing(shape, pools, 0) for m in hosts), "left out, although it fits"


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, max_examples=60)
@given(hosts=machines(), shapes=st.lists(SHAPES, min_size=1, max_size=8), copies=st.integers(1, 4))
def test_no_rule_is_broken_nothing_overcommitted_and_nobody_left_out(
    policy: str, hosts: list[Machine], shapes: list[Shape], copies: int
) -> None:
    pools = {"lan": list(range(10))}
    many = shapes * copies
    choices = engine.choose(view_of(hosts, pools), requests(many), policy=policy)
    replay(neighbours(copy.deepcopy(hosts)), copy.deepcopy(pools), many, choices)


@settings(deadline=None, max_examples=300)
@given(hosts=machines(), shape=SHAPES)
def test_every_hosts_first_failing_constraint_is_told(hosts: list[Machine], shape: Shape) -> None:
    pools = {"lan": list(range(2))}
    (choice,) = engine.choose(view_of(hosts, pools), requests([shape]))
    told = {entry["host"]: entry.get("constraint") for entry in choice.record["hosts"]}
    assert told == {m.name: m.first_failing(shape, pools, 0) for m in hosts}
    for entry in choice.record["hosts"]:
        if "need" in entry and "free" in entry:
            assert entry["need"] > entry["free"]


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, max_examples=40)
@given(hosts=machines(), shapes=st.lists(SHAPES, min_size=1, max_size=8), order=st.randoms(use_true_random=False))
def test_the_answer_is_the_same_whatever_the_order_of_the_hosts(
    policy: str, hosts: list[Machine], shapes: list[Shape], order: object
) -> None:
    pools = {"lan": list(range(10))}
    mixed = list(hosts)
    order.shuffle(mixed)  # type: ignore[attr-defined]
    answers = []
    for some in (hosts, mixed):
        view = view_of(some, pools)
        choices = engine.choose(view, requests(shapes * 2), policy=policy)
        answers.append([(None if c.host is None else view.names[c.host], c.datastore, c.record) for c in choices])
    assert answers[0] == answers[1]


@settings(deadline=None, max_examples=100)
@given(hosts=machines(), shapes=st.lists(SHAPES, min_size=1, max_size=6))
def test_telling_why_changes_nothing(hosts: list[Machine], shapes: list[Shape]) -> None:
    view = view_of(hosts, {"lan": list(range(10))})
    told = engine.choose(view, requests(shapes))
    quiet = engine.choose(view_of(hosts, {"lan": list(range(10))}), requests(shapes), tell=False)
    assert [choice[1:4] for choice in told] == [choice[1:4] for choice in quiet]


@settings(deadline=None, max_examples=100)
@given(hosts=machines(), first=SHAPES, second=SHAPES)
def test_what_was_worked_out_for_one_does_not_leak_into_the_next_ones_check(
    hosts: list[Machine], first: Shape, second: Shape
) -> None:
    used = view_of(hosts, {"lan": [1]})
    engine.choose(used, requests([first]))
    after = engine.choose(used, requests([second]))
    fresh = engine.choose(view_of(hosts, {"lan": [1]}), requests([second]))
    assert after == fresh


@settings(deadline=None, max_examples=150)
@given(hosts=machines(), shapes=st.lists(SHAPES, min_size=2, max_size=4))
def test_of_a_gang_all_are_placed_or_none_and_nothing_of_it_stays_taken(
    hosts: list[Machine], shapes: list[Shape]
) -> None:
    view = view_of(hosts, {"lan": list(range(10))})
    gang = [Request(f"g{n}", f"g{n}", shape, gang="g") for n, shape in enumerate(shapes)]
    after = Request("after", "after", shapes[0])
    *answers, last = engine.choose(view, [*gang, after])
    placed = [choice.host is not None for choice in answers]
    assert all(placed) or not any(placed)
    if not any(placed):
        (alone,) = engine.choose(view, [after])
        assert (last.host, last.datastore) == (alone.host, alone.datastore)
        assert "so none is placed" in answers[0].record["summary"]


@settings(deadline=None, max_examples=200)
@given(hosts=machines(), shape=SHAPES)
def test_the_smallest_change_makes_room_for_it(hosts: list[Machine], shape: Shape) -> None:
    """Verified with the oracle: what is said is changed, and nothing else."""
    pools = {"lan": list(range(3))}
    (choice,) = engine.choose(view_of(hosts, pools), requests([shape]))
    change = None if choice.host is not None else choice.record["change"]
    if change is None:
        return
    changed = neighbours(copy.deepcopy(hosts))
    host = next(m for m in changed if m.name == change["host"])
    for one in change["changes"]:
        field, to = one["field"], one["to"]
        if field == "holds":
            host.promised = []
        elif field == "maintenance":
            host.window_s = float("inf")
        elif field == "hosts":
            new = Machine(to, labels=host.labels, cpus=host.cpus, cpu_overcommit=host.cpu_overcommit,
                          memory_mib=host.memory_mib, disk=host.disk, networks=host.networks, arch=host.arch,
                          kernels=host.kernels, capabilities=host.capabilities, devices=host.devices,
                          pins_m=host.pins_m, pages=host.pages,
                          cells=host.cells, shared=host.shared, driver=host.driver)  # fmt: skip
            neighbours([*changed, new])
            changed.append(new)
            host = new
        elif field == "rules of others":
            for m in changed:
                m.guests = [(has, tuple(r for r in rules if str(r) != one["from"])) for has, rules in m.guests]
        elif to == "wish":
            rules = tuple(replace(r, hard=False) if str(r) == one["from"] else r for r in shape.rules)
            shape = replace(shape, rules=rules)
        else:
            shape = replace(shape, **_FIELDS[field](to))
    assert host.first_failing(shape, pools, 0) is None


_FIELDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "cpu": lambda to: {"cpu_m": round(1000 * to)},
    "memory_mib": lambda to: {"memory_mib": to},
    "disk_mib": lambda to: {"disk_mib": to},
    "arch": lambda to: {"arch": ""},
    "capabilities": lambda to: {"capabilities": frozenset()},
    "rules": lambda to: {"rules": ()},
    "pci": lambda to: {"pci": ()},
    "pinned": lambda to: {"pinned": False},
    "one_cell": lambda to: {"one_cell": False},
    "hugepage_kib": lambda to: {"hugepage_kib": 0},
    "nics": lambda to: {"nics": ()},
    "where": lambda to: {"where": ""},
}


@settings(deadline=None, max_examples=100)
@given(hosts=machines(), shape=SHAPES)
def test_of_the_hosts_where_it_fits_one_of_the_highest_rank_is_taken(hosts: list[Machine], shape: Shape) -> None:
    pools = {"lan": [1]}
    (choice,) = engine.choose(view_of(hosts, pools), requests([replace(shape, rank="cpu_free", rules=())]))
    free = {
        h: m.cpus * m.cpu_overcommit * 1000 - m.cpu_used_m for h, m in enumerate(hosts)
        if m.first_failing(replace(shape, rules=()), pools, 0) is None
    }  # fmt: skip
    assert free.get(choice.host or 0) == max(free.values()) if free else choice.host is None


@settings(deadline=None, max_examples=50)
@given(hosts=machines(), high=SHAPES, low=SHAPES, counts=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_a_lower_priority_takes_nothing_from_a_higher_one(
    hosts: list[Machine], high: Shape, low: Shape, counts: tuple[int, int]
) -> None:
    pools = {"lan": list(range(6))}
    first = [Request(f"h{n}", f"h{n}", high, priority=1) for n in range(counts[0])]
    second = [Request(f"l{n}", f"l{n}", low) for n in range(counts[1])]
    alone = engine.choose(view_of(hosts, pools), first)
    both = engine.choose(view_of(hosts, pools), [*second, *first])
    if any(choice.host is None for choice in both):
        placed = [choice.host is not None for choice in both[len(second) :]]
        assert sum(placed) == sum(choice.host is not None for choice in alone)


@settings(deadline=None, max_examples=100)
@given(hosts=machines(), a=SHAPES, b=SHAPES)
def test_instances_of_unrelated_clusters_are_placed_as_if_each_were_alone(
    hosts: list[Machine], a: Shape, b: Shape
) -> None:
    for n, m in enumerate(hosts):
        m.cluster, m.shared = ("left" if n % 2 else "right"), frozenset()
    one, other = (
        Request(c, c, replace(shape, cluster=c, rules=(), nics=())) for c, shape in (("left", a), ("right", b))
    )
    together = engine.choose(view_of(hosts, {}), [one, other])
    apart = [*engine.choose(view_of(hosts, {}), [one]), *engine.choose(view_of(hosts, {}), [other])]
    for here, there in zip(together, apart, strict=True):
        for choice in (here, there):
            choice.record.pop("change", None)  # it may be to leave the cluster
        assert here == there
