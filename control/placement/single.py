"""One copy of a usual shape on the hosts that are preferred: the answer of the engine's rounds, with fewer steps.

Where all shapes differ, this is what placing costs. What a kind of shapes looks at is gathered once for as long as the
same hosts are preferred. What is not usual (several datastores, pinned cores, promises …) goes the engine's way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from control.placement import affinity
from control.placement.expressions import parse
from control.placement.look import eligible, kind_of
from control.placement.model import Ints, Shape, View
from control.placement.weights import Policy, best_first, scores
from control.placement.work import CPU, MEASURED, MEMORY, Stay, Work, missing, rows_of


@dataclass
class Kind:
    """Shapes that are on the same hosts and draw from the same rows; flat: where these stand for the hosts at `at`."""

    code: int  # of the datastore
    rows: Ints  # cores, memory, what was measured, then those of drawn, those of the datastore
    drawn: tuple[int, ...]  # how much of the rows in the middle
    own: Ints  # places in rows of those that hosts do not share
    own_rows: Ints
    shared: list[tuple[int, Ints]]  # the others, and how much of them for each host
    cells: list[list[int]]  # cores and memory of each
    opened: int = -1
    at: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    flat: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


def place_one(view: View, work: Work, shape: Shape, policy: Policy) -> tuple[int, int] | None:
    """Take one copy where it is best; return the host and the datastore's number. None: nothing is done.

    Only if preferred hosts come before the others with this policy.
    """
    kind = _kind(view, work, shape)
    if kind is None or shape.cpu_m > view.fewest_cpus_m:
        return None
    if kind.opened != work.opened:
        _look(view, work, shape, kind)
    need = _need(shape, kind)
    hosts = _fitting(view, work, shape, kind, need)
    if not len(hosts):
        return None
    if len(hosts) > 1:
        score, _ = scores(view, work, shape, policy, hosts)
        hosts = hosts[best_first(view, score, hosts, 1)]
    _take(view, work, shape, kind, need, int(hosts[0]))
    if shape.own_labels or shape.rules:
        affinity.joined(view, work, shape, hosts, np.ones(1, np.int64))
    return int(hosts[0]), kind.code


def _kind(view: View, work: Work, shape: Shape) -> Kind | None:
    if shape.pinned or shape.fixed or view.holds or shape.hugepage_kib:
        return None
    key = ("kind", kind_of(view, work, shape), shape.nics, shape.pci)
    if key not in work.kept:
        work.kept[key] = _new_kind(view, work, shape)
    found: Kind | None = work.kept[key]
    return found


def _new_kind(view: View, work: Work, shape: Shape) -> Kind | None:
    rows, stores = rows_of(view), view.stores_of(shape)
    nets = [(rows.nets[name], n) for name, n in shape.nics if name in view.nets and not view.nets[name].dhcp]
    drawn = nets + [(rows.pci[name], n) for name, n in shape.pci if name in view.pci]
    unusual = (
        len(stores) != 1 or rows.alloc[stores[0]] in rows.groups or any(name not in view.pci for name, _ in shape.pci)
        or any(row in rows.groups and row not in rows.members for row, _ in drawn) or any(n <= 0 for _, n in drawn)
        or len({row for row, _ in drawn}) < len(drawn) or bool(shape.where and parse(shape.where).changing)
    )  # fmt: skip
    if unusual:
        return None
    all_rows = [CPU, MEMORY, MEASURED, *(row for row, _ in drawn), rows.alloc[stores[0]], rows.free[stores[0]]]
    own = np.array([n for n, row in enumerate(all_rows) if row not in rows.groups])
    return Kind(
        list(view.stores).index(stores[0]), np.array(all_rows), tuple(n for _, n in drawn), own,
        np.array(all_rows)[own], [(row, n * rows.members[row]) for row, n in drawn if row in rows.groups],
        [list(cell) for cell in rows.cells],
    )  # fmt: skip


def _look(view: View, work: Work, shape: Shape, kind: Kind) -> None:
    kind.at = np.flatnonzero(eligible(view, work, shape).mask & work.preferred)
    kind.flat = kind.rows[:, None] * len(view) + kind.at
    kind.opened = work.opened


def _need(shape: Shape, kind: Kind) -> Ints:
    return np.array(
        (shape.cpu_m, shape.memory_mib, shape.memory_mib, *kind.drawn, shape.disk_mib, shape.disk_mib), np.int64
    )


def _fitting(view: View, work: Work, shape: Shape, kind: Kind, need: Ints) -> Ints:
    """Return the preferred hosts where a shape fits."""
    left = work.left.take(kind.flat)
    if shape.image_mib:
        left[-1] -= shape.image_mib * missing(view, work, shape.image).take(kind.at)
    hosts = kind.at[np.logical_and.reduce(left >= need[:, None])]
    if shape.one_cell and len(hosts):
        size = np.array([[max(shape.cpu_m, 1)], [max(shape.memory_mib, 1)]])
        found = [np.logical_and.reduce(work.left[cell][:, hosts] >= size) for cell in kind.cells]
        hosts = hosts[np.logical_or.reduce(found)] if found else hosts[:0]
    room = affinity.room(view, work, shape, hosts) if len(hosts) else None
    return hosts if room is None else hosts[room > 0]


def _take(view: View, work: Work, shape: Shape, kind: Kind, need: Ints, h: int) -> None:
    """Do as `work.take`, for one copy on one host."""
    left, copies = work.left, missing(view, work, shape.image)
    left[kind.own_rows, h] -= need[kind.own]
    for row, amount in kind.shared:
        left[row] -= amount
    if copies[h] and shape.image:
        left[kind.rows[-1], h] -= shape.image_mib
        copies[h] = 0
    cells = _take_cell(work, shape, kind, h) if shape.one_cell else []
    until_s = work.now_s + shape.lifetime_s
    if shape.lifetime_s:
        work.exit_s[h] = max(work.exit_s[h], until_s)
    if shape.lifetime_s or cells:
        work.stays.append(Stay(shape, np.array([h]), np.ones(1, np.int64), until_s, cells))
    work.instances[h] += 1
    if left[CPU, h] < work.smallest[0] or left[MEMORY, h] < work.smallest[1]:
        work.preferred[h] = False
    work.changes += 1


def _take_cell(work: Work, shape: Shape, kind: Kind, h: int) -> list[Ints]:
    """Take out of the first cell that has room; return how many of each."""
    taken = [np.zeros(1, np.int64) for _ in kind.cells]
    for n, (c, m) in enumerate(kind.cells):
        if work.left[c, h] >= shape.cpu_m and work.left[m, h] >= shape.memory_mib:
            work.left[c, h] -= shape.cpu_m
            work.left[m, h] -= shape.memory_mib
            taken[n][0] = 1
            break
    return taken
