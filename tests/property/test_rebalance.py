"""Plans of moves: never over a limit, no rule broken, as good as brute force, whatever the order of hosts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from control.placement.model import Guests, Net, Rule, Shape, Store, View
from control.rebalance.model import Goal, Item, Kind, Move, Outcome, Scene, shares
from control.rebalance.order import first_refused
from control.rebalance.planner import plan

CPU, MIB = 8000, 8192
WEB = (("role", "web"),)
APART = Rule(together=False, labels=WEB)
Sized = tuple[int, int, int, bool, bool]  # cores, GiB, host, may it move, is it apart from its like


def scene(count: int, sized: Sequence[Sized], order: Sequence[int] | None = None) -> Scene:
    """Return hosts, some of them in another order, with instances on them."""
    order = order or range(count)
    items = []
    for n, (cpu, gib, host, goes, apart) in enumerate(sized):
        shape = Shape("vm", cpu * 1000, gib * 1024, 10, driver="kvm")
        if apart:
            shape = replace(shape, own_labels=WEB, rules=(APART,))
        items.append(Item(
            f"i{n}", f"i{n}", order.index(host), shape, "local", gib * 1024, 1 + gib, cpu * 1000, gib * 1024,
            stays="" if goes else "it is pinned",
        ))  # fmt: skip
    return Scene(view(order, items), tuple(range(count)), tuple(items), np.full(count, CPU))


def view(order: Sequence[int], items: Sequence[Item]) -> View:
    count = len(order)
    cpu, memory, none = np.full(count, CPU), np.full(count, MIB), np.zeros(count, np.bool_)
    disk = np.full(count, 1000)
    for item in items:
        cpu[item.host] -= item.shape.cpu_m
        memory[item.host] -= item.shape.memory_mib
        disk[item.host] -= 10
    return View(
        names=tuple(f"h{n}" for n in order), states=("ready",) * count, unknown=none, clusters=("c",) * count,
        labels=({},) * count, kinds=(("vm",),) * count, drivers=("kvm",) * count, cpus_m=np.full(count, CPU),
        cpu_limit_m=np.full(count, CPU), cpu_left_m=cpu, memory_limit_mib=np.full(count, MIB), memory_left_mib=memory,
        physical_mib=np.full(count, MIB), instances=np.bincount([i.host for i in items], minlength=count),
        stores={"local": Store(np.arange(count), np.full(count, 1000), disk, np.full(count, 1000), none)}, images={},
        nets={"lan": Net(~none, True, np.zeros(count, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))},
        guests=Guests(
            np.array([i.host for i in items], np.int64), tuple(i.shape.own_labels for i in items),
            tuple(i.shape.rules for i in items),
        ),
    )  # fmt: skip


def good(one: Scene, hosts: Sequence[int]) -> bool:
    """Say whether an arrangement keeps every limit and rule. By hand."""
    for h in range(len(one.view)):
        here = [item for item, at in zip(one.items, hosts, strict=True) if at == h]
        if sum(i.shape.cpu_m for i in here) > CPU or sum(i.shape.memory_mib for i in here) > MIB:
            return False
        if sum(bool(i.shape.rules) for i in here) > 1:
            return False
    return True


def arrangements(one: Scene) -> Iterator[tuple[int, ...]]:
    """Yield all that keep every limit and rule."""
    places = [(item.host,) if item.stays else one.hosts for item in one.items]
    yield from (hosts for hosts in product(*places) if good(one, hosts))


def end(one: Scene, moves: Sequence[Move]) -> list[int]:
    at = {item.id: item.host for item in one.items} | {move.item.id: move.target for move in moves}
    return [at[item.id] for item in one.items]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[int, list[Sized]]:
    """Return hosts and instances that fit where they are."""
    count = draw(st.integers(2, 4))
    wanted = draw(st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, count - 1),
                  st.sampled_from([True, True, True, False]), st.booleans()),
        min_size=1, max_size=6,
    ))  # fmt: skip
    kept: list[Sized] = []
    for one in wanted:
        trial = scene(count, [*kept, one])
        if good(trial, [item.host for item in trial.items]):
            kept.append(one)
    return count, kept


GOALS = (Goal(Kind.REBALANCE), Goal(Kind.REBALANCE, threshold=0.0), Goal(Kind.CONSOLIDATE), Goal(Kind.EVACUATE, "h0"))


def within_limits(one: Scene, outcome: Outcome) -> None:
    """See that every moment is within the limits: a move holds room on both hosts until one waits for it."""
    assert first_refused(one.view, outcome.moves) is None
    at = {item.id: item.host for item in one.items}
    for n, move in enumerate(outcome.moves):
        assert at[move.item.id] == move.source != move.target
        over = _over(outcome.moves, move.after)
        cpu = sum(i.shape.cpu_m for i in _held(one, outcome.moves[:n], over, move.target))
        memory = sum(i.shape.memory_mib for i in _held(one, outcome.moves[:n], over, move.target))
        assert cpu + move.item.shape.cpu_m <= CPU
        assert memory + move.item.shape.memory_mib <= MIB
        at[move.item.id] = move.target
        assert good(one, [at[item.id] for item in one.items])
    assert not any(move.item.stays for move in outcome.moves)


def _over(moves: Sequence[Move], after: Sequence[int]) -> set[int]:
    found: set[int] = set()
    for n in after:
        found |= {n} | _over(moves, moves[n].after)
    return found


def _held(one: Scene, begun: Sequence[Move], over: set[int], h: int) -> list[Item]:
    """Return what a host holds when all of these moves have begun, and only some are over."""
    on = {item.id for item in one.items if item.host == h}
    for n, move in enumerate(begun):
        if move.target == h:
            on.add(move.item.id)
        if move.source == h and n in over:
            on.discard(move.item.id)
    return [item for item in one.items if item.id in on]


@settings(max_examples=120, deadline=None)
@given(scenes(), st.sampled_from(GOALS), st.booleans())
def test_every_moment_is_within_the_limits_and_no_rule_is_broken(
    made: tuple[int, list[Sized]], goal: Goal, exact: bool
) -> None:
    one = scene(*made)
    outcome = plan(one, goal, exact=exact)
    within_limits(one, outcome)
    if goal.kind is Kind.REBALANCE:
        assert outcome.after.greatest <= outcome.before.greatest
    if goal.kind is Kind.CONSOLIDATE:
        assert outcome.after.used <= outcome.before.used


@settings(max_examples=80, deadline=None)
@given(scenes())
def test_no_arrangement_needs_fewer_hosts_or_carries_less(made: tuple[int, list[Sized]]) -> None:
    one = scene(*made)
    outcome = plan(one, Goal(Kind.CONSOLIDATE))
    fewest = min(len(set(hosts)) for hosts in arrangements(one))
    if outcome.notes or len({m.item.id for m in outcome.moves}) < len(outcome.moves):
        assert outcome.after.used >= fewest
        return
    assert outcome.after.used == fewest
    carried = min(_carried(one, hosts) for hosts in arrangements(one) if len(set(hosts)) == fewest)
    assert sum(move.item.carried_mib for move in outcome.moves) == carried or fewest == outcome.before.used
    assert outcome.optimal


def _carried(one: Scene, hosts: Sequence[int]) -> int:
    return sum(i.carried_mib for i, h in zip(one.items, hosts, strict=True) if i.host != h)


@settings(max_examples=80, deadline=None)
@given(scenes(), st.sampled_from([0.0, 0.05, 0.2]))
def test_no_arrangement_as_even_costs_less(made: tuple[int, list[Sized]], threshold: float) -> None:
    one = scene(*made)
    outcome = plan(one, Goal(Kind.REBALANCE, threshold=threshold))
    known = [(float(shares(one, hosts).max()), hosts) for hosts in arrangements(one)]
    lowest = min(greatest for greatest, _ in known)
    if outcome.notes or not outcome.optimal or len({m.item.id for m in outcome.moves}) < len(outcome.moves):
        return
    assert outcome.after.greatest <= lowest + threshold + 2e-3
    cost = sum(move.item.cost_s for move in outcome.moves)
    as_even = [hosts for greatest, hosts in known if greatest <= outcome.after.greatest - 1e-4]
    assert all(_cost(one, hosts) >= cost - 1e-6 for hosts in as_even)


def _cost(one: Scene, hosts: Sequence[int]) -> float:
    return sum(i.cost_s for i, h in zip(one.items, hosts, strict=True) if i.host != h)


@settings(max_examples=80, deadline=None)
@given(scenes())
def test_a_host_is_emptied_if_any_arrangement_empties_it(made: tuple[int, list[Sized]]) -> None:
    one = scene(*made)
    outcome = plan(one, Goal(Kind.EVACUATE, "h0"))
    go = {item.id for item in one.items if item.host == 0 and not item.stays}
    left = {i.id for i, h in zip(one.items, end(one, outcome.moves), strict=True) if h == 0 and not i.stays}
    possible = any(
        all(h != 0 for i, h in zip(one.items, hosts, strict=True) if not i.stays) for hosts in arrangements(one)
    )
    assert left == set() or not possible or outcome.notes
    places = [tuple(h for h in one.hosts if h) if item.id in go else (item.host,) for item in one.items]
    alone = any(good(one, hosts) for hosts in product(*places))
    assert {move.item.id for move in outcome.moves} <= go or not alone, "others move only to make room"


@settings(max_examples=60, deadline=None)
@given(scenes(), st.sampled_from(GOALS), st.booleans(), st.randoms(use_true_random=False))
def test_the_answer_is_the_same_whatever_the_order_of_hosts(
    made: tuple[int, list[Sized]], goal: Goal, exact: bool, random: object
) -> None:
    count, sized = made
    order = list(range(count))
    random.shuffle(order)  # type: ignore[attr-defined]
    one, other = scene(count, sized), scene(count, sized, order)
    other = replace(other, items=tuple(reversed(other.items)), hosts=tuple(reversed(other.hosts)))
    assert _named(one, plan(one, goal, exact=exact)) == _named(other, plan(other, goal, exact=exact))


def _named(one: Scene, outcome: Outcome) -> list[tuple[str, str, str]]:
    names = one.view.names
    return [(move.item.name, names[move.source], names[move.target]) for move in outcome.moves]
