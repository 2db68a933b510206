"""Wishes, addresses that are asked for by name, and taking turns: held against the oracle, host by host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from control.placement import engine
from control.placement.batch import runs
from control.placement.model import Request, Rule, Shape
from tests.property.oracle import Machine, neighbours, view_of
from tests.property.test_placement_rules import DB, SHAPES, WEB, machines, requests

Drawn = tuple[tuple[str, int], ...]  # network, how many of its addresses, or which
WISHES = st.lists(
    st.builds(
        Rule,
        together=st.booleans(),
        labels=st.sampled_from([WEB, DB]),
        domain=st.sampled_from(["host", "rack"]),
        hard=st.just(False),
        weight=st.sampled_from([1.0, 2.0, 5.0]),
    ),
    min_size=1,
    max_size=3,
    unique=True,
)


@settings(deadline=None, max_examples=100)
@given(hosts=machines(), shape=SHAPES, wishes=WISHES)
def test_of_the_hosts_where_it_fits_one_that_breaks_least_is_taken(
    hosts: list[Machine], shape: Shape, wishes: list[Rule]
) -> None:
    pools = {"lan": list(range(4))}
    wishing = replace(shape, rules=(*(rule for rule in shape.rules if rule.hard), *wishes))
    (choice,) = engine.choose(view_of(hosts, pools), requests([wishing]))
    broken = {h: m.broken(wishing) for h, m in enumerate(hosts) if m.first_failing(wishing, pools, 0) is None}
    assert (choice.host is None) == (not broken)
    if choice.host is not None:
        assert broken[choice.host] == min(broken.values())


@settings(deadline=None, max_examples=150)
@given(
    hosts=st.lists(st.sampled_from([(), ("lan",), ("lan", "wan")]), min_size=1, max_size=4),
    asked=st.lists(
        st.tuples(
            st.sampled_from([(), (("lan", 1),), (("lan", 2),)]),
            st.sampled_from([(("lan", 1),), (("lan", 2),), (("lan", 99),), (("lan", 1), ("wan", 3)), ()]),
        ),
        min_size=1,
        max_size=6,
    ),
    free=st.integers(0, 5),
)
def test_an_address_is_given_once_and_counts_among_those_that_are_free(
    hosts: list[tuple[str, ...]], asked: list[tuple[Drawn, Drawn]], free: int
) -> None:
    known = neighbours([Machine(f"h{n}", networks=nets, disk={"d": (900, 0)}) for n, nets in enumerate(hosts)])
    pools = {"lan": list(range(free)), "wan": list(range(2))}
    wanted = requests([Shape("vm", 100, 10, 1, nics=nics, fixed=fixed) for nics, fixed in asked])
    choices = engine.choose(view_of(known, pools), wanted)
    for shape, members in runs(wanted, np.arange(len(wanted))):
        for place in members.tolist():
            fit = {h for h, m in enumerate(known) if m.first_failing(shape, pools, 0) is None}
            host = choices[place].host
            assert host in fit if fit else host is None
            if host is not None:
                known[host].take(shape, "d", pools)


@settings(deadline=None, max_examples=100)
@given(
    room=st.integers(0, 12),
    owners=st.lists(st.sampled_from("abc"), min_size=1, max_size=16),
    held=st.tuples(*[st.integers(0, 6)] * 3),
    urgent=st.sets(st.integers(0, 15)),
)
def test_owners_take_turns_after_priority_and_by_what_they_hold(
    room: int, owners: list[str], held: tuple[int, int, int], urgent: set[int]
) -> None:
    """All ask for one core each of a host that has so many free; who has least of those that still wait is next."""
    hosts = [Machine("h0", cpus=20, cpu_used_m=1000 * (20 - room), disk={"d": (900, 0)})]
    view = replace(view_of(neighbours(hosts), {}), held={o: n / 20 for o, n in zip("abc", held, strict=True)})
    wanted = [
        Request(f"r{n}", f"r{n}", Shape("vm", 1000, 1, 1), owner=owner, priority=int(n in urgent))
        for n, owner in enumerate(owners)
    ]
    got = [choice.request for choice in engine.choose(view, wanted) if choice.host is not None]
    assert len(got) == min(room, len(wanted))
    for priority in (1, 0):
        asked = {o: sum(one.owner == o and one.priority == priority for one in wanted) for o in "abc"}
        mine = {o: sum(one.owner == o and one.priority == priority for one in got) for o in "abc"}
        fair = _fair(asked, dict(zip("abc", held, strict=True)), room)
        assert all(abs(mine[o] - fair[o]) <= 1 for o in "abc")
        room -= sum(fair.values())


def _fair(asked: dict[str, int], held: dict[str, int], room: int) -> dict[str, int]:
    """Give one at a time to whom has least of those that still ask."""
    got = dict.fromkeys(asked, 0)
    for _ in range(min(room, sum(asked.values()))):
        owner = min((o for o in asked if got[o] < asked[o]), key=lambda o: held[o] + got[o])
        got[owner] += 1
    return got
