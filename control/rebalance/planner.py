"""A plan for one pool of hosts: by the exact model where it is small enough, else roughly; then the order of moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from control.placement.work import start
from control.rebalance import greedy
from control.rebalance.floor import Floor
from control.rebalance.model import Effect, Goal, Item, Kind, Outcome, Scene, effect, shares
from control.rebalance.order import Wanted, ordered
from control.rebalance.rules import caps_of
from control.rebalance.wishes import WORTH_MIB, WORTH_S, broken, wishes_of

if TYPE_CHECKING:
    from control.rebalance.flavours import Table

_HAIR = 1e-9


def plan(scene: Scene, goal: Goal, features: Mapping[str, Any] | None = None, *, exact: bool = True) -> Outcome:
    """Return what is to be moved to reach a goal. exact: False uses the heuristic, however small it is.

    The answer is the same whatever the order of hosts and instances.
    """
    scene = _sorted(scene)
    if goal.kind is Kind.EVACUATE:
        return _best(scene, goal, [_evacuate(scene, goal, features, exact)], features)
    found = []
    if exact and (wanted := _exactly(scene, goal, features)) is not None:
        found.append(wanted)
        best = _best(scene, goal, found, features)
        if not best.notes:
            return best
    found.append((_roughly(scene, goal, features), False, "heuristic"))
    return _best(scene, goal, found, features)


def _sorted(scene: Scene) -> Scene:
    names = scene.view.names
    items = sorted(scene.items, key=lambda item: (names[item.host], item.name, item.id))
    hosts = sorted(scene.hosts, key=lambda h: names[h])
    return Scene(scene.view, tuple(hosts), tuple(items), scene.cpu_m)


Way = tuple[list[Wanted], bool, str]  # where to, whether that is proven to be the best, by which method


def _best(scene: Scene, goal: Goal, ways: Sequence[Way], features: Mapping[str, Any] | None) -> Outcome:
    """Return the outcome of the best of several ways, once their moves are in order."""
    outcomes = [_outcome(scene, way, features) for way in ways]
    outcomes = [one for one in outcomes if _is_better(goal, one)] or [_nothing(scene, outcomes)]
    return min(outcomes, key=lambda one: _rank(goal, one))


def _is_better(goal: Goal, one: Outcome) -> bool:
    """Say whether a plan is worth making: it reaches more of its goal, or mends wishes, and breaks none."""
    if goal.kind is Kind.EVACUATE:
        return True
    mended = one.before.weight - one.after.weight
    if goal.kind is Kind.CONSOLIDATE:
        more = one.before.used - one.after.used
        return more >= 0 and mended > -_HAIR and (more > 0 or mended > _HAIR)
    return mended > _HAIR or (mended > -_HAIR and one.after.greatest < one.before.greatest - _HAIR)


def _rank(goal: Goal, one: Outcome) -> tuple[float, float]:
    cost = sum(move.item.cost_s for move in one.moves)
    if goal.kind is Kind.CONSOLIDATE:
        return one.after.used, sum(m.item.carried_mib for m in one.moves) + WORTH_MIB * one.after.weight
    if goal.kind is Kind.EVACUATE:
        return len(one.notes), cost
    return one.after.greatest, cost + WORTH_S * one.after.weight


def _nothing(scene: Scene, outcomes: Sequence[Outcome]) -> Outcome:
    now = standing(scene, [item.host for item in scene.items])
    proven = any(one.optimal and not one.notes for one in outcomes)
    return Outcome((), now, now, proven, outcomes[0].method if outcomes else "none")


def _outcome(scene: Scene, way: Way, features: Mapping[str, Any] | None) -> Outcome:
    wanted, optimal, method = way
    moves, left_out = ordered(scene, wanted, features)
    at = {item.id: item.host for item in scene.items} | {move.item.id: move.target for move in moves}
    notes = tuple(f"{item.name}: no order of moves leaves room for it on its way" for item in left_out)
    before, after = (standing(scene, hosts) for hosts in (
        [item.host for item in scene.items], [at[item.id] for item in scene.items],
    ))  # fmt: skip
    return Outcome(tuple(moves), before, after, optimal and not notes, method, notes)


def standing(scene: Scene, hosts: Sequence[int]) -> Effect:
    """Return what comes of it when item n is on hosts[n], wishes too."""
    weight, found = broken(scene, wishes_of(scene), hosts)
    return replace(effect(scene, hosts), broken=found, weight=round(weight, 6))


def _roughly(scene: Scene, goal: Goal, features: Mapping[str, Any] | None) -> list[Wanted]:
    _, bound = caps_of(scene)
    if goal.kind is Kind.CONSOLIDATE:
        return greedy.consolidate(bound, features)
    return greedy.balance(bound, goal.threshold, features)


def _exactly(scene: Scene, goal: Goal, features: Mapping[str, Any] | None) -> Way | None:
    """Return the proven best, None where the model is too large or finds nothing."""
    from control.rebalance import exact, flavours  # scipy takes 0.3 s to import, and few processes ever plan

    caps, bound = caps_of(scene)
    table = flavours.table_of(bound, caps, start(scene.view, features), wishes=wishes_of(bound))
    if not len(table.host):
        return [], True, "exact"
    size = len(table.host) + sum(len(np.unique(wish.domain[list(scene.hosts)])) for wish in table.wishes)
    if size > exact.LARGEST:
        return _in_parts(scene, goal, features, -(-2 * size // exact.LARGEST))
    found = exact.consolidate(table) if goal.kind is Kind.CONSOLIDATE else exact.balance(table, goal.threshold)
    return None if found is None else (_wanted(table, found.count), found.optimal, "exact")


def _in_parts(scene: Scene, goal: Goal, features: Mapping[str, Any] | None, count: int) -> Way | None:
    """Return what is best in each of so many parts of the pool, loaded alike; None: they are too large still."""
    if count > len(scene.hosts) // 2:
        return None
    share = shares(scene, [item.host for item in scene.items])
    order = sorted(scene.hosts, key=lambda h: (-share[h], scene.view.names[h]))
    found: list[Wanted] = []
    for n in range(count):
        hosts = frozenset(order[n::count])
        part = Scene(scene.view, tuple(h for h in scene.hosts if h in hosts),
                     tuple(item for item in scene.items if item.host in hosts), scene.cpu_m)  # fmt: skip
        way = _exactly(part, goal, features)
        if way is None:
            return None
        found += way[0]
    return found, False, "in parts"


def _wanted(table: Table, count: Any) -> list[Wanted]:
    """Return which instances go where, so that there are as many in each column as there are to be."""
    hosts = table.scene.hosts
    surplus: dict[int, list[Item]] = defaultdict(list)
    missing: dict[int, list[int]] = defaultdict(list)
    columns = (table.flavour.tolist(), table.host.tolist(), table.now.tolist(), count.tolist())
    for f, h, now, then in zip(*columns, strict=True):
        here = [item for item in table.flavours[f].items if item.host == hosts[h]]
        surplus[f] += here[: max(now - then, 0)]
        missing[f] += [hosts[h]] * max(then - now, 0)
    return [pair for f in sorted(surplus) for pair in zip(surplus[f], missing[f], strict=True)]


def _evacuate(scene: Scene, goal: Goal, features: Mapping[str, Any] | None, exactly: bool) -> Way:
    """Return where what a host holds goes, as placement would choose; others move only where that makes room for it."""
    host = scene.view.names.index(goal.host)
    items = [item for item in scene.items if item.host == host and not item.stays]
    among = scene.inside.copy()
    among[host] = False
    wanted, stuck = greedy.emptied(scene, Floor(scene.view, features, policy=goal.policy), host, among, items)
    if not stuck or not exactly:
        return wanted, not stuck, "placement"
    from control.rebalance import exact, flavours

    caps, bound = caps_of(scene)
    banned = np.zeros(len(scene.view), np.bool_)
    banned[host] = True
    table = flavours.table_of(bound, caps, start(scene.view, features), banned, wishes_of(bound))
    if not 0 < len(table.host) <= exact.LARGEST:
        return wanted, False, "placement"
    found = exact.evacuate(table, scene.hosts.index(host))
    better = [] if found is None else _wanted(table, found.count)
    if found is None or sum(item.host == host for item, _ in better) <= len(wanted):
        return wanted, False, "placement"
    return better, found.optimal, "exact"


