"""Instances that are interchangeable for a model, counted by host; and what limits how many may be where, as rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from control.placement.filters import needs_of
from control.placement.look import eligible, room_of
from control.placement.model import Floats, Ints, Mask, Shape, View
from control.placement.work import Work, empty, rows_of
from control.rebalance.model import Item, Scene
from control.rebalance.rules import Cap
from control.rebalance.wishes import Wish


@dataclass(frozen=True)
class Flavour:
    """needs: row -> how much of it one takes on each host of the pool. allowed: on which of these it may be."""

    items: list[Item]
    needs: dict[int, Ints]
    allowed: Mask
    caps: tuple[int, ...]
    wished: Mask  # of each wish: whether it is about them, and whether they have it


@dataclass(frozen=True)
class Limit:
    """A row of a model: the sum of weights of columns is at most most. row, place: what is limited, and where."""

    weights: Any  # sparse, of as many rows as most
    most: Floats
    row: int = -1


@dataclass
class Table:
    """Flavours by hosts. A column is a flavour on a host where it may be, or is: flavour[n], host[n] (of the pool)."""

    scene: Scene
    flavours: list[Flavour]
    count: Ints  # flavours, hosts: how many there are now
    flavour: Ints
    host: Ints
    work: Work
    fixed: Mask  # hosts of the pool that hold something that stays
    limits: list[Limit] = field(default_factory=list)
    wishes: Sequence[Wish] = ()

    @property
    def now(self) -> Ints:
        """Return how many there are in each column now."""
        return self.count[self.flavour, self.host]

    @property
    def most(self) -> Ints:
        """Return how many may come to each column: to where a flavour may not be, none."""
        allowed = np.array([one.allowed for one in self.flavours])[self.flavour, self.host]
        return np.where(allowed, self.count.sum(axis=1)[self.flavour], 0)

    def by_host(self, weights: Ints | Floats) -> Any:
        """Return a sparse matrix: hosts of the pool by columns."""
        return sp.csr_matrix((weights, (self.host, np.arange(len(self.host)))), (len(self.scene.hosts), len(self.host)))

    def by_flavour(self) -> Any:
        """Return a sparse matrix of ones: flavours by columns."""
        ones = np.ones(len(self.flavour))
        return sp.csr_matrix((ones, (self.flavour, np.arange(len(self.flavour)))), (len(self.flavours), len(self.host)))

    def per_column(self, values: Sequence[float]) -> Floats:
        """Return a value of flavours for each column."""
        return np.array(values, np.float64)[self.flavour]


def table_of(
    scene: Scene, caps: Sequence[Cap], work: Work, banned: Mask | None = None, wishes: Sequence[Wish] = ()
) -> Table:
    """Return the table of what may move. banned: hosts of the view to which nothing may go."""
    hosts = np.array(scene.hosts, np.int64)
    goes = [n for n, item in enumerate(scene.items) if not item.stays]
    flavours = _flavours(scene, goes, caps, work, banned, wishes)
    place = {int(h): n for n, h in enumerate(hosts)}
    count = np.zeros((len(flavours), len(hosts)), np.int64)
    for f, one in enumerate(flavours):
        np.add.at(count[f], [place[item.host] for item in one.items], 1)
    allowed = np.array([one.allowed for one in flavours], np.bool_).reshape(len(flavours), len(hosts))
    flavour, host = np.nonzero(allowed | (count > 0))
    fixed = np.zeros(len(hosts), np.bool_)
    fixed[[place[item.host] for item in scene.items if item.stays]] = True
    table = Table(scene, flavours, count, flavour, host, work, fixed | scene.base[:, hosts].any(axis=0),
                  wishes=wishes)  # fmt: skip
    table.limits = [*_rows(table), *_caps(table, caps)]
    return table


def _flavours(
    scene: Scene, goes: Sequence[int], caps: Sequence[Cap], work: Work, banned: Mask | None, wishes: Sequence[Wish]
) -> list[Flavour]:
    shapes: dict[Hashable, tuple[dict[int, Ints], Mask]] = {}
    found: dict[Hashable, Flavour] = {}
    nothing, wished = empty(scene.view), np.zeros((len(scene.items), len(wishes), 2), np.bool_)
    for k, wish in enumerate(wishes):
        wished[:, k, 0], wished[:, k, 1] = wish.members, wish.carriers
    for n in goes:
        item = scene.items[n]
        mine = tuple(k for k, cap in enumerate(caps) if cap.members[n])
        asked = (item.shape, item.store)
        if asked not in shapes:
            shapes[asked] = _asked(scene, item, work, nothing, banned)
        needs, allowed = shapes[asked]
        load = (item.load_m, item.load_mib, item.carried_mib)
        had = tuple((row, need.tobytes()) for row, need in needs.items())
        key = (had, allowed.tobytes(), mine, load, wished[n].tobytes())
        found.setdefault(key, Flavour([], needs, allowed, mine, wished[n])).items.append(item)
    for one in found.values():
        one.items.sort(key=lambda item: (item.cost_s, item.name, item.id))
    order = sorted(found.items(), key=lambda pair: (pair[1].items[0].shape.cpu_m, repr(pair[0])))
    return [one for _, one in order]


def _asked(
    scene: Scene, item: Item, work: Work, nothing: Work, banned: Mask | None
) -> tuple[dict[int, Ints], Mask]:
    """Return what one copy takes on each host of the pool, and on which of them it may be."""
    view, shape, hosts = scene.view, item.shape, np.array(scene.hosts)
    needs = needs_of(view, shape)
    allowed = eligible(view, work, shape).mask & (room_of(view, nothing, shape, needs, np.arange(len(view))) > 0)
    if banned is not None:
        allowed &= ~banned
    found = {row: np.broadcast_to(np.asarray(need), len(view))[hosts] for row, need in needs}
    found |= _disks(view, shape, item.store, work, hosts)
    return {row: need for row, need in sorted(found.items()) if need.any()}, allowed[hosts]


def _disks(view: View, shape: Shape, own: str, work: Work, hosts: Ints) -> dict[int, Ints]:
    """Return what its disks take: of the datastore of the same name where there is one, else of that with most room."""
    rows, found = rows_of(view), {}
    left = np.full(len(hosts), -1, np.int64)
    chosen = np.full(len(hosts), -1, np.int64)
    for name in sorted(view.stores_of(shape), key=lambda name: (name != own, name)):
        room = np.where(view.stores[name].group[hosts] >= 0, work.left[rows.alloc[name], hosts], -1)
        better = (room > left) & ((chosen < 0) | (chosen != rows.alloc.get(own, -2)))
        chosen, left = np.where(better, rows.alloc[name], chosen), np.where(better, room, left)
    for row in set(chosen[chosen >= 0].tolist()):
        found[row] = np.where(chosen == row, shape.disk_mib, 0)
    return found


def _rows(table: Table) -> list[Limit]:
    """Return the limits of resources: what is left, and what those that may move have by now."""
    groups, hosts = rows_of(table.scene.view).groups, np.array(table.scene.hosts)
    found = []
    for row in sorted({row for one in table.flavours for row in one.needs}):
        none = np.zeros(len(hosts), np.int64)
        needs = np.array([one.needs.get(row, none) for one in table.flavours])
        left, used = np.maximum(table.work.left[row, hosts], 0), (needs * table.count).sum(axis=0)
        weights, most, group = table.by_host(needs[table.flavour, table.host]), left + used, groups.get(row)
        if group is not None:
            weights, most = _shared(weights, group[hosts], left, used)
        found.append(Limit(weights, most.astype(np.float64), row))
    return found


def _shared(weights: Any, group: Ints, left: Ints, used: Ints) -> tuple[Any, Ints]:
    """Return one row for all hosts that share; those without are shut by eligibility already."""
    known = np.unique(group[group >= 0])
    member = sp.csr_matrix((group[None, :] == known[:, None]).astype(np.float64))
    first = [int(np.flatnonzero(group == one)[0]) for one in known]
    return member @ weights, left[first] + member @ used


def _caps(table: Table, caps: Sequence[Cap]) -> list[Limit]:
    """Return the limits of rules, in each domain of the pool's hosts."""
    found, hosts = [], np.array(table.scene.hosts)
    for k, cap in enumerate(caps):
        mine = np.array([k in one.caps for one in table.flavours], np.bool_)
        domain = cap.domain[hosts]
        known = np.unique(domain[domain >= 0])
        if not mine.any() or not len(known):
            continue
        most = cap.most[known].astype(np.float64)
        for item, member in zip(table.scene.items, cap.members.tolist(), strict=True):
            if member and item.stays:
                most -= known == cap.domain[item.host]
        member = sp.csr_matrix((domain[None, :] == known[:, None]).astype(np.float64))
        found.append(Limit(member @ table.by_host(mine[table.flavour].astype(np.float64)), most))
    return found
