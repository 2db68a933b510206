"""One copy of a usual shape on its best host: the answer of the engine's rounds, with fewer steps.

Where all shapes differ, this is what placing costs.
"""

from __future__ import annotations

import numpy as np

from control.placement import affinity
from control.placement.model import Ints, Mask, Shape, View
from control.placement.usual import Kind, Spots, kind_for, left_at, need_of, openings, preferred, score_at
from control.placement.weights import Policy, best_first
from control.placement.work import CPU, MEASURED, MEMORY, Stay, Work, missing

_ONE, _NONE = np.ones(1, np.int64), np.zeros(1, np.int64)  # of a count by host


def place_one(view: View, work: Work, shape: Shape, policy: Policy) -> tuple[int, int] | None:
    """Take one copy where it is best; return the host and the datastore's number. None: nothing is done.

    Only if preferred hosts come before the others with this policy.
    """
    kind = kind_for(view, work, shape)
    if kind is None or shape.cpu_m > view.fewest_cpus_m:
        return None
    need = need_of(shape, kind)
    h = _best(view, work, shape, policy, kind, need, preferred(work, kind))
    if h is None:
        h = _best_empty(view, work, shape, policy, kind, need)
    if h is None:
        return None
    take_one(view, work, shape, kind, h)
    return h, kind.code


def _best(
    view: View, work: Work, shape: Shape, policy: Policy, kind: Kind, need: Ints, spots: Spots
) -> int | None:  # fmt: skip
    """Return the best of some hosts on which a shape fits, None: there is no such host."""
    left, lacks = left_at(view, work, shape, spots)
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
    score = score_at(view, work, shape, policy, need, spots, places, left, lacks)
    return int(hosts[best_first(view, score, hosts, 1)[0]])


def _best_empty(view: View, work: Work, shape: Shape, policy: Policy, kind: Kind, need: Ints) -> int | None:
    found = openings(view, work, shape, policy, kind, need)
    first = [(one.score, int(view.rank[one.alike.hosts[-1]]), one.alike.hosts[-1]) for one in found or ()]
    return min(first)[2] if first else None


def _in_one_cell(view: View, work: Work, shape: Shape, kind: Kind, at: Ints) -> Mask:
    size = np.array([[max(shape.cpu_m, 1)], [max(shape.memory_mib, 1)]])
    found = work.left.take(kind.cells[:, :, None] * len(view) + at) >= size
    fits: Mask = np.logical_or.reduce(np.logical_and.reduce(found, axis=1))
    return fits


def take_one(view: View, work: Work, shape: Shape, kind: Kind, h: int, *, shared: bool = True) -> None:
    """Do as `work.take`, for one copy on one host, and count it among those that rules are about.

    shared: what hosts share is taken as well.
    """
    left, copies, (alloc, free) = work.left, missing(view, work, shape.image), kind.disk
    memory_mib, disk_mib = shape.memory_mib, shape.disk_mib
    left[CPU, h] -= shape.cpu_m
    left[MEMORY, h] -= memory_mib
    left[MEASURED, h] -= memory_mib
    left[alloc, h] -= disk_mib
    left[free, h] -= disk_mib + shape.image_mib if copies[h] else disk_mib
    for row, amount in kind.extra:
        left[row, h] -= amount
    if shared:
        for row, amount, members, _ in kind.shared:
            left[row] -= amount * members
    if shape.image:  # else what image it is, is not known
        copies[h] = 0
    cells = _take_cell(work, shape, kind, h) if shape.one_cell else []
    until_s = work.now_s + shape.lifetime_s
    if shape.lifetime_s:
        work.exit_s[h] = max(work.exit_s[h], until_s)
    if shape.lifetime_s or cells:
        work.stays.append(Stay(shape, np.array([h]), _ONE, until_s, cells))
    work.instances[h] += 1
    good = left[CPU, h] >= work.smallest[0] and left[MEMORY, h] >= work.smallest[1] and not work.hot[h]
    if good and not work.preferred[h]:
        work.opened += 1
    work.preferred[h] = good
    work.changes += 1
    if shape.own_labels or shape.rules:
        affinity.joined(view, work, shape, np.array([h]), _ONE)


def _take_cell(work: Work, shape: Shape, kind: Kind, h: int) -> list[Ints]:
    """Take out of the first cell that has room; return how many of each."""
    left, taken = work.left, [_NONE] * len(kind.pairs)
    for n, (c, m) in enumerate(kind.pairs):
        if left[c, h] >= shape.cpu_m and left[m, h] >= shape.memory_mib:
            left[c, h] -= shape.cpu_m
            left[m, h] -= shape.memory_mib
            taken[n] = _ONE
            break
    return taken
