"""A good arrangement where an exact model would be too large: one instance after the other, as placement does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from control.placement.model import Mask
from control.rebalance.floor import Floor
from control.rebalance.model import Item, Scene, loads, shares
from control.rebalance.wishes import WORTH_S, Tally

Wanted = tuple[Item, int]
HAIR = 1e-9
PASSES = 3  # over those that have wishes: what moved may let others mend more
GIVE_UP = 50  # hosts in a row that could not be emptied: the others are fuller still


def emptied(
    scene: Scene, floor: Floor, host: int, among: Mask, items: Sequence[Item], tally: Tally | None = None
) -> tuple[list[Wanted], list[Item]]:
    """Return where instances of a host go, largest first, and those that fit nowhere; the floor has them there.

    tally: of wishes, more of which must not be broken.
    """
    found: list[Wanted] = []
    stuck: list[Item] = []
    for item in sorted(items, key=lambda one: (-one.shape.memory_mib, -one.shape.cpu_m, one.name)):
        target = floor.best(item, among if tally is None else _no_worse(tally, item, host, among))
        if target is None:
            stuck.append(item)
        else:
            floor.move(item, target)
            found.append((item, target))
            if tally is not None:
                tally.move(item, host, target)
    return found, stuck


def _no_worse(tally: Tally, item: Item, here: int, among: Mask) -> Mask:
    """Return the hosts among these where it breaks no more wishes."""
    change = tally.change(item, here)
    return among if change is None else among & (change < HAIR)


def mend(
    scene: Scene, floor: Floor, tally: Tally, among: Mask, level: float, moved: Collection[str]
) -> list[Wanted]:
    """Move what mends wishes, once each, to hosts among these that have a share of no more than level then.

    moved: instances that have gone already.
    """
    load = loads(scene, [floor.host_of(item) for item in scene.items])
    found: dict[str, Wanted] = {}
    left = [one for one in scene.items if not one.stays and one.id not in moved and tally.about(one)]
    for _ in range(PASSES):
        before = len(found)
        for item in left:
            if item.id in found or (step := _mending(scene, floor, tally, item, among, load, level)) is None:
                continue
            here, size = floor.host_of(item), (item.load_m, item.load_mib)
            load[:, here] -= size
            load[:, step] += size
            tally.move(item, here, step)
            floor.move(item, step)
            found[item.id] = item, step
        if len(found) == before:
            break
    return list(found.values())


def _mending(
    scene: Scene, floor: Floor, tally: Tally, item: Item, among: Mask, load: Any, level: float
) -> int | None:
    """Return the host where most is mended, if that is worth the move; None: there is none."""
    change = tally.change(item, floor.host_of(item))
    if change is None or not (worth := among & (change * WORTH_S + item.cost_s < -HAIR)).any():
        return None
    then = ((load + np.array([[item.load_m], [item.load_mib]])) / scene.full).max(axis=0)
    at = floor.targets(item, worth & (then <= level + HAIR)).tolist()
    return min(at, key=lambda t: (change[t], then[t], scene.view.names[t]), default=None)


def _by_host(scene: Scene) -> dict[int, list[Item]]:
    found: dict[int, list[Item]] = {h: [] for h in scene.hosts}
    for item in scene.items:
        found[item.host].append(item)
    return found


def consolidate(scene: Scene, features: Mapping[str, Any] | None = None) -> list[Wanted]:
    """Empty one host after the other, the one with least to carry first, into those in use."""
    on, floor, among, tally = _by_host(scene), Floor(scene.view, features), scene.inside.copy(), Tally(scene)
    for h in scene.hosts:
        among[h] = bool(on[h]) or bool(scene.base[:, h].any())
    order = [h for h in scene.hosts if on[h] and not scene.base[:, h].any() and not any(i.stays for i in on[h])]
    order.sort(key=lambda h: (sum(i.carried_mib for i in on[h]), scene.view.names[h]))
    found: list[Wanted] = []
    kept: set[int] = set()
    missed = 0
    for h in order:
        if h in kept or missed >= GIVE_UP:
            continue
        before = floor.work.saved(), dict(floor.at), tally.saved()
        among[h] = False
        moves, stuck = emptied(scene, floor, h, among, on[h], tally)
        if stuck:
            floor.work, floor.at, tally = before
            among[h], missed = True, missed + 1
        else:
            found, missed = [*found, *moves], 0
            kept |= {target for _, target in moves}
    return found + mend(scene, floor, tally, among, np.inf, {item.id for item, _ in found})


def balance(scene: Scene, threshold: float, features: Mapping[str, Any] | None = None) -> list[Wanted]:
    """Take from the host with the greatest share what can go where it is lowest, until none is above the mean by more.

    Each instance goes once.
    """
    floor, on, inside, tally = Floor(scene.view, features), _by_host(scene), list(scene.hosts), Tally(scene)
    share = shares(scene, [item.host for item in scene.items])
    goal = float(share[inside].mean()) + threshold
    found: list[Wanted] = []
    open_ = {h: scene.view.names[h] for h in inside if share[h] > goal}
    while open_:
        h = max(open_, key=lambda one: (share[one], open_[one]))
        step = _relief(scene, floor, tally, [item for item in on[h] if not item.stays], share, h)
        if step is None:
            del open_[h]
            continue
        item, target = step
        floor.move(item, target)
        tally.move(item, h, target)
        on[h].remove(item)
        found.append(step)
        share[h] -= _least(scene, item, h)
        share[target] = _after(scene, item, share, target)
        if share[h] <= goal:
            del open_[h]
    level = max(goal, float(shares(scene, [floor.host_of(item) for item in scene.items]).max()))
    return found + mend(scene, floor, tally, scene.inside, level, {item.id for item, _ in found})


def _relief(
    scene: Scene, floor: Floor, tally: Tally, items: Sequence[Item], share: Any, h: int
) -> Wanted | None:
    """Return the move off a host that lowers its share most for its cost, and leaves the target below it."""

    def gain(item: Item) -> float:
        return float(_shares_of(scene, item, h).max()) / max(item.cost_s, 1e-3)

    for item in sorted(items, key=lambda one: (-gain(one), one.name)):
        among = _no_worse(tally, item, h, scene.inside & (share < share[h]))
        at = [t for t in floor.targets(item, among).tolist() if _after(scene, item, share, t) < share[h]]
        if at:
            return item, min(at, key=lambda t: (_after(scene, item, share, t), scene.view.names[t]))
    return None


def _shares_of(scene: Scene, item: Item, h: int) -> Any:
    return np.array([item.load_m, item.load_mib]) / scene.full[:, h]


def _least(scene: Scene, item: Item, h: int) -> float:
    """Return at least how much the share of a host falls when an instance leaves."""
    return float(_shares_of(scene, item, h).min())


def _after(scene: Scene, item: Item, share: Any, t: int) -> float:
    """Return at most what the share of a target is with one instance more."""
    return float(share[t] + _shares_of(scene, item, t).max())
