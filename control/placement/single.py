"""One copy of a usual shape on its best host: the answer of the engine's rounds, with fewer steps.

Where all shapes differ, this is what placing costs. What a kind of shapes looks at is gathered once for as long as the
same hosts are preferred. What is not usual (several datastores, pinned cores, promises …) goes the engine's way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from control.placement import affinity
from control.placement.expressions import parse
from control.placement.look import eligible, kind_of
from control.placement.model import Column, Ints, Mask, Shape, View
from control.placement.weights import Policy, best_first, per_core, scale_of, scores, usual_scores
from control.placement.work import CPU, MEASURED, MEMORY, Stay, Work, missing, rows_of


@dataclass
class Spots:
    """Hosts, and where a kind's rows stand in `left` for each."""

    at: Ints
    flat: Ints
    empty: bool


@dataclass
class Kind:
    """Shapes that are on the same hosts and draw from the same rows."""

    code: int  # of the datastore
    base: Ints  # where each of rows begins in `left`
    rows: Ints  # cores, memory, the datastore's, what was measured, those of drawn, what is free of the datastore
    drawn: tuple[int, ...]  # how much of the rows in the middle
    own: Ints  # places in rows of those that hosts do not share
    own_rows: Ints
    shared: list[tuple[int, Ints]]  # the others, and how much of them for each host
    cells: Ints  # rows of the cores and memory of each, for those that must be in one
    preferred: Spots | None = None
    opened: int = -1  # when these were preferred
    empty: dict[str, list[list[int]]] = field(default_factory=dict)  # by image: empty hosts that are alike, by name


def place_one(view: View, work: Work, shape: Shape, policy: Policy) -> tuple[int, int] | None:
    """Take one copy where it is best; return the host and the datastore's number. None: nothing is done.

    Only if preferred hosts come before the others with this policy.
    """
    kind = _kind(view, work, shape)
    if kind is None or shape.cpu_m > view.fewest_cpus_m:
        return None
    need = _need(shape, kind)
    h = _best(view, work, shape, policy, kind, need, _preferred(view, work, shape, kind))
    if h is None and not (work.measured or work.returned):
        empty = _empty(view, work, shape, kind)
        h = None if empty is None else _best(view, work, shape, policy, kind, need, empty)
    if h is None:
        return None
    _take(view, work, shape, kind, need, h)
    if shape.own_labels or shape.rules:
        affinity.joined(view, work, shape, np.array([h]), np.ones(1, np.int64))
    return h, kind.code


def _kind(view: View, work: Work, shape: Shape) -> Kind | None:
    if shape.pinned or shape.fixed or view.holds or shape.hugepage_kib:
        return None
    key = ("kind", kind_of(view, work, shape), shape.nics, shape.pci, shape.one_cell)
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
    all_rows = [CPU, MEMORY, rows.alloc[stores[0]], MEASURED, *(row for row, _ in drawn), rows.free[stores[0]]]
    own = np.array([n for n, row in enumerate(all_rows) if row not in rows.groups])
    at, shared = np.array(all_rows), [(row, n * rows.members[row]) for row, n in drawn if row in rows.groups]
    cells = np.array(rows.cells if shape.one_cell else [], np.int64).reshape(-1, 2)
    return Kind(
        list(view.stores).index(stores[0]), at[:, None] * len(view), at, tuple(n for _, n in drawn), own, at[own],
        shared, cells,
    )  # fmt: skip


def _preferred(view: View, work: Work, shape: Shape, kind: Kind) -> Spots:
    """Return the preferred hosts where a kind may be; no harm is done by some that are none any more."""
    if kind.preferred is None or kind.opened != work.opened:
        known = work.kept.get("preferred")
        if known is None or known[0] != work.opened:
            known = work.kept["preferred"] = work.opened, work.preferred.nonzero()[0]
        at = known[1][eligible(view, work, shape).mask.take(known[1])]
        kind.preferred, kind.opened = Spots(at, kind.base + at, empty=False), work.opened
    return kind.preferred


def _empty(view: View, work: Work, shape: Shape, kind: Kind) -> Spots | None:
    """Return of each kind of empty hosts the first one by name: it is as good as the others. None: there are none.

    Hosts that are neither empty nor preferred have no room for any shape, unless they are hot.
    """
    image = shape.image if shape.image in view.images else ""
    groups = kind.empty.get(image)
    if groups is None:
        groups = kind.empty[image] = _alike(view, work, shape, kind)
    for group in groups:
        while group and work.instances[group[-1]]:
            group.pop()
    at = np.array([group[-1] for group in groups if group], np.int64)
    return Spots(at, kind.base + at, empty=True) if len(at) else None


def _alike(view: View, work: Work, shape: Shape, kind: Kind) -> list[list[int]]:
    """Group the empty hosts where a kind may be by all that it looks at; the first by name stands last."""
    at = np.flatnonzero(eligible(view, work, shape).mask & (work.instances == 0))
    at = at[np.argsort(-view.rank[at])]
    seen = np.vstack([
        work.left[kind.rows][:, at], work.left[kind.cells.ravel()][:, at], view.cpu_limit_m[at],
        view.memory_limit_mib[at], scale_of(view, shape).inverse[2, at].view(np.int64),
        missing(view, work, shape.image)[at], *(amount[at] for _, amount in kind.shared),
    ])  # fmt: skip
    columns = np.ascontiguousarray(seen.T).view(f"V{8 * len(seen)}").ravel().tolist()
    codes = Column(columns).codes
    return [at[codes == code].tolist() for code in range(int(codes.max(initial=-1)) + 1)]


def _need(shape: Shape, kind: Kind) -> Ints:
    return np.array(
        (shape.cpu_m, shape.memory_mib, shape.disk_mib, shape.memory_mib, *kind.drawn, shape.disk_mib), np.int64
    )


def _best(
    view: View, work: Work, shape: Shape, policy: Policy, kind: Kind, need: Ints, spots: Spots
) -> int | None:  # fmt: skip
    """Return the best of some hosts on which a shape fits, None: there is no such host."""
    left = work.left.take(spots.flat)
    lacks = missing(view, work, shape.image).take(spots.at)
    if shape.image_mib:
        left[-1] -= shape.image_mib * lacks
    good = np.logical_and.reduce(left >= need[:, None])
    if shape.one_cell:
        good &= _in_one_cell(view, work, shape, kind, spots.at)
    places = good.nonzero()[0]
    hosts = spots.at.take(places)
    room = affinity.room(view, work, shape, hosts) if len(hosts) else None
    if room is not None:
        places = places[room > 0]
        hosts = spots.at.take(places)
    if len(hosts) < 2:
        return int(hosts[0]) if len(hosts) else None
    if work.measured or work.returned or shape.lifetime_s or policy.usual is None:
        score, _ = scores(view, work, shape, policy, hosts)
    else:
        score = usual_scores(
            policy.usual, need[:3], left[:3].take(places, axis=1), scale_of(view, shape).inverse.take(hosts, axis=1),
            work.instances.take(hosts) * per_core(view).take(hosts), lacks.take(places), empty=spots.empty,
        )  # fmt: skip
    return int(hosts[best_first(view, score, hosts, 1)[0]])


def _in_one_cell(view: View, work: Work, shape: Shape, kind: Kind, at: Ints) -> Mask:
    size = np.array([[max(shape.cpu_m, 1)], [max(shape.memory_mib, 1)]])
    found = work.left.take(kind.cells[:, :, None] * len(view) + at) >= size
    fits: Mask = np.logical_or.reduce(np.logical_and.reduce(found, axis=1))
    return fits


def _take(view: View, work: Work, shape: Shape, kind: Kind, need: Ints, h: int) -> None:
    """Do as `work.take`, for one copy on one host."""
    left, copies = work.left, missing(view, work, shape.image)
    left[kind.own_rows, h] -= need[kind.own]
    for row, amount in kind.shared:
        left[row] -= amount
    if copies[h]:
        left[kind.rows[-1], h] -= shape.image_mib
        copies[h] = 0 if shape.image else 1  # what image it is, is not known
    cells = _take_cell(work, shape, kind, h) if shape.one_cell else []
    until_s = work.now_s + shape.lifetime_s
    if shape.lifetime_s:
        work.exit_s[h] = max(work.exit_s[h], until_s)
    if shape.lifetime_s or cells:
        work.stays.append(Stay(shape, np.array([h]), np.ones(1, np.int64), until_s, cells))
    work.instances[h] += 1
    good = left[CPU, h] >= work.smallest[0] and left[MEMORY, h] >= work.smallest[1] and not work.hot[h]
    if good and not work.preferred[h]:
        work.opened += 1
    work.preferred[h] = good
    work.changes += 1


def _take_cell(work: Work, shape: Shape, kind: Kind, h: int) -> list[Ints]:
    """Take out of the first cell that has room; return how many of each."""
    taken = [np.zeros(1, np.int64) for _ in kind.cells]
    for n, (c, m) in enumerate(kind.cells.tolist()):
        if work.left[c, h] >= shape.cpu_m and work.left[m, h] >= shape.memory_mib:
            work.left[c, h] -= shape.cpu_m
            work.left[m, h] -= shape.memory_mib
            taken[n][0] = 1
            break
    return taken
