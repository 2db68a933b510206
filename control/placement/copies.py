"""Many copies of a usual shape on their best hosts: the answer of the engine's rounds, with fewer steps.

Empty hosts that are alike are as good as one another, so only as many of them are looked at as are needed.
"""

from __future__ import annotations

import numpy as np

from control.placement import affinity
from control.placement.cells import cell_rooms, subtract_cells
from control.placement.model import Ints, Shape, View
from control.placement.usual import (
    Kind,
    Opening,
    Spots,
    kind_for,
    left_at,
    need_of,
    openings,
    preferred,
    score_at,
)
from control.placement.weights import Policy, best_first
from control.placement.work import Stay, Work, missing, prefer_used, rows_of


def place_many(
    view: View, work: Work, shape: Shape, wanted: int, policy: Policy
) -> tuple[Ints, Ints, int] | None:  # fmt: skip
    """Take up to wanted copies, best hosts first; return hosts, counts and the datastore's number.

    None: nothing is done. Only if preferred hosts come before the others with this policy.
    """
    kind = kind_for(view, work, shape)
    if kind is None or policy.spreads or not affinity.by_host(view, work, shape):
        return None
    if not (shape.cpu_m and shape.memory_mib and shape.disk_mib) or shape.cpu_m > view.fewest_cpus_m:
        return None
    if any(work.left[row, one] < wanted * n for row, n, _, one in kind.shared):
        return None
    need = need_of(shape, kind)
    hosts, room = _fitting(view, work, shape, policy, need, preferred(work, kind), wanted)
    up_to = room.cumsum()
    missed = wanted - int(up_to[-1]) if len(room) else wanted
    if missed > 0:
        empty = openings(view, work, shape, policy, kind, need)
        if empty is None:
            return None
        more_hosts, more_room = _opened(view, work, shape, empty, missed)
        hosts, room = np.concatenate((hosts, more_hosts)), np.concatenate((room, more_room))
        up_to = room.cumsum()
        if not len(hosts):
            return None
    counts = np.minimum(wanted - up_to + room, room)
    if counts[-1] <= 0:
        hosts, counts = hosts[counts > 0], counts[counts > 0]
    _take(view, work, shape, kind, need, hosts, counts)
    if shape.own_labels or shape.rules:
        affinity.joined(view, work, shape, hosts, counts)
    return hosts, counts, kind.code


def _room(view: View, work: Work, shape: Shape, need: Ints, spots: Spots, left: Ints) -> Ints:
    """Return how often a shape fits on some hosts, rules apart. left: as `left_at` says."""
    room: Ints = np.minimum.reduce(left // need[:, None])
    if shape.one_cell:
        np.minimum(room, np.add.reduce(cell_rooms(work, rows_of(view), shape, spots.at)), out=room)
    return room


def _fitting(
    view: View, work: Work, shape: Shape, policy: Policy, need: Ints, spots: Spots, wanted: int
) -> tuple[Ints, Ints]:  # fmt: skip
    """Return those of some hosts where a shape fits, the best ones first, no more than are wanted, and how often."""
    left, lacks = left_at(view, work, shape, spots)
    room = _room(view, work, shape, need, spots, left)
    by_rules = affinity.room(view, work, shape, spots.at)
    if by_rules is not None:
        np.minimum(room, by_rules, out=room)
    places = (room > 0).nonzero()[0]
    hosts = spots.at.take(places)
    if len(hosts) > 1:
        score = score_at(view, work, shape, policy, need, spots, places, left, lacks)
        order = best_first(view, score, hosts, min(wanted, len(hosts)))
        hosts, places = hosts.take(order), places.take(order)
    return hosts, room.take(places)


def _opened(view: View, work: Work, shape: Shape, empty: list[Opening], wanted: int) -> tuple[Ints, Ints]:
    """Return as many empty hosts as are needed for so many copies, and how often the shape fits on each."""
    rank, found = view.rank, []
    for one in empty:
        room = 1 if shape.rules else one.room  # with rules copies are apart
        those = _still_empty(work, one.alike.hosts, -(-wanted // room))
        found += [(one.score, rank[h], h, room) for h in those]
    found.sort()
    hosts, rooms = (np.array([one[n] for one in found[:wanted]], np.int64) for n in (2, 3))
    return hosts, rooms


def _still_empty(work: Work, hosts: list[int], count: int) -> list[int]:
    """Return the first of some hosts that are empty, up to a number; those before them that are not are left out."""
    found: list[int] = []
    while hosts and len(found) < count:
        h = hosts.pop()
        if not work.instances[h]:
            found.append(h)
    hosts.extend(reversed(found))
    return found


def _take(view: View, work: Work, shape: Shape, kind: Kind, need: Ints, hosts: Ints, counts: Ints) -> None:
    """Do as `work.take`."""
    left, copies = work.left, missing(view, work, shape.image)
    flat = kind.own_base + hosts
    after = left.take(flat) - need.take(kind.own)[:, None] * counts
    if shape.image_mib:
        after[-1] -= shape.image_mib * copies.take(hosts)
    left.put(flat, after)
    total = int(np.add.reduce(counts))
    for row, amount, members, _ in kind.shared:
        left[row] -= amount * total * members
    if shape.image:
        copies[hosts] = 0
    cells = subtract_cells(work, rows_of(view), shape, hosts, counts) if shape.one_cell else []
    until_s = work.now_s + shape.lifetime_s
    if shape.lifetime_s:
        work.exit_s[hosts] = np.maximum(work.exit_s[hosts], until_s)
    if shape.lifetime_s or cells:
        work.stays.append(Stay(shape, hosts, counts, until_s, cells))
    work.instances[hosts] += counts
    prefer_used(work, hosts, after[0], after[1])
    work.changes += 1
