"""Usual shapes: what they look at is gathered once for all that are on the same hosts and draw from the same rows.

Of empty hosts that are alike only the first ones by name are looked at. What is not usual (several datastores, pinned
cores, promises …) goes the engine's way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from control.placement import affinity
from control.placement.expressions import parse
from control.placement.look import eligible, kind_of
from control.placement.model import MANY, Floats, Ints, Mask, Shape, View
from control.placement.weights import Policy, key_of, per_core, scale_of, scores, usual_score, usual_scores
from control.placement.work import CPU, MEASURED, MEMORY, Work, missing, rows_of

MOST_GROUPS = 64  # of empty hosts that are alike; where there are more, single steps take longer than arrays

_UNSEEN: Any = object()


@dataclass
class Spots:
    """Hosts, and where a kind's rows stand in `left` for each."""

    at: Ints
    flat: Ints


@dataclass
class Alike:
    """Empty hosts that are the same to all of a kind that need one image."""

    hosts: list[int]  # the first by name last; some of them are used now
    left: list[int]  # of the kind's rows, but for shared ones
    cells: list[tuple[int, int]]  # cores and memory
    inverse: list[float]  # as of weights.Scale
    lacks: int  # 1: they have no copy of the image


@dataclass
class Kind:
    """Shapes that are on the same hosts and draw from the same rows."""

    mask: Mask  # where they may be, whatever is left there
    code: int  # of the datastore
    base: Ints  # where each of rows begins in `left`
    rows: Ints  # cores, memory, the datastore's, what was measured, those of drawn, what is free of the datastore
    drawn: tuple[int, ...]  # how much of the rows in the middle
    own: Ints  # places in rows of those that hosts do not share
    own_rows: Ints
    own_base: Ints  # as base
    shared: list[tuple[int, int, Ints, int]]  # the others, how much, 1 for each host that shares it, one that does
    disk: tuple[int, int]  # rows of the datastore: what may be allocated of it, what was measured
    extra: list[tuple[int, int]]  # the rows of drawn that hosts do not share, and how much of them
    cells: Ints  # rows of the cores and memory of each, for those that must be in one
    pairs: list[list[int]]  # the same, for single steps
    preferred: Spots | None = None
    opened: int = -1  # when these were preferred
    empty: dict[str, list[Alike] | None] = field(default_factory=dict)  # by image


def kind_for(view: View, work: Work, shape: Shape) -> Kind | None:
    """Return what a shape has in common with others; None: it is not usual."""
    if shape.pinned or shape.fixed or view.holds or shape.hugepage_kib:
        return None
    key = ("kind", kind_of(view, work, shape), shape.nics, shape.pci, shape.one_cell)
    found: Kind | None = work.kept.get(key, _UNSEEN)
    if found is _UNSEEN:
        found = work.kept[key] = _new_kind(view, work, shape)
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
    at, shared = np.array(all_rows), [(row, n, rows.members[row]) for row, n in drawn if row in rows.groups]
    cells = rows.cells if shape.one_cell else rows.cells[:0]
    mask = eligible(view, work, shape).mask.copy()
    for _, _, members in shared:
        mask &= members > 0
    return Kind(
        mask, list(view.stores).index(stores[0]), at[:, None] * len(view), at,
        tuple(n for _, n in drawn), own, at[own], at[own, None] * len(view),
        [(*one, int(one[-1].argmax())) for one in shared], (all_rows[2], all_rows[-1]),
        [(row, n) for row, n in drawn if row not in rows.groups], cells, cells.tolist(),
    )  # fmt: skip


def preferred(work: Work, kind: Kind) -> Spots:
    """Return the preferred hosts where a kind may be; no harm is done by some that are none any more."""
    if kind.preferred is None or kind.opened != work.opened:
        known = work.kept.get("preferred")
        if known is None or known[0] != work.opened:
            known = work.kept["preferred"] = work.opened, work.preferred.nonzero()[0]
        at = known[1][kind.mask.take(known[1])]
        kind.preferred, kind.opened = Spots(at, kind.base + at), work.opened
    return kind.preferred


def _empty(view: View, work: Work, shape: Shape, kind: Kind) -> list[Alike] | None:
    image = shape.image if shape.image in view.images else ""
    if image not in kind.empty:
        kind.empty[image] = _alike(view, work, shape, kind)
    return kind.empty[image]


def _alike(view: View, work: Work, shape: Shape, kind: Kind) -> list[Alike] | None:
    """Group the empty hosts where a kind may be by all that it looks at; None: there are too many groups."""
    at = view.last_first[(kind.mask & (work.instances == 0)).take(view.last_first)]
    left, inverse = work.left[kind.own_rows].take(at, axis=1), scale_of(view, shape).inverse.take(at, axis=1)
    cells, lacks = work.left[kind.cells.ravel()].take(at, axis=1), missing(view, work, shape.image).take(at)
    shared = [members.take(at) for _, _, members, _ in kind.shared]
    seen, found = np.vstack([at, left, cells, *inverse.view(np.int64), lacks, *shared]), []
    while seen.shape[1]:
        same = np.logical_and.reduce(seen[1:] == seen[1:, :1])
        hosts = seen[0, same].tolist()
        one = hosts[-1]
        c, m = work.left[kind.cells, one].T.tolist() if len(kind.cells) else ((), ())
        found.append(
            Alike(
                hosts, work.left[kind.own_rows, one].tolist(), list(zip(c, m, strict=True)),
                scale_of(view, shape).inverse[:, one].tolist(), int(missing(view, work, shape.image)[one]),
            )
        )  # fmt: skip
        seen = seen[:, ~same]
        if len(found) == MOST_GROUPS and seen.shape[1]:
            return None
    return found


@dataclass
class Opening:
    """Empty hosts that are alike and where a shape fits: its score there as an order of them has it, and how often."""

    score: int
    room: int
    alike: Alike


def openings(
    view: View, work: Work, shape: Shape, policy: Policy, kind: Kind, need: Ints
) -> list[Opening] | None:  # fmt: skip
    """Return all empty hosts where a shape fits, by those that are alike; None: the engine is to look at each one.

    Beside these and the preferred ones no host has room, unless something was measured or given back.
    """
    groups = None if work.measured or work.returned else _empty(view, work, shape, kind)
    if groups is None or not affinity.by_host(view, work, shape):
        return None
    sizes, own, found = need[:3].tolist(), need.take(kind.own).tolist(), []
    for alike in groups:
        hosts = alike.hosts
        while hosts and work.instances[hosts[-1]]:
            hosts.pop()
        if not hosts or any(work.left[row, hosts[-1]] < n for row, n, _, _ in kind.shared):
            continue
        copy = shape.image_mib * alike.lacks
        room = min(map(_times, (*alike.left[:-1], alike.left[-1] - copy), own))
        if shape.one_cell:
            room = min(room, _in_cells(shape, alike.cells))
        if room > 0:
            found.append(Opening(key_of(_opened(view, work, shape, policy, sizes, alike, copy)), room, alike))
    return found


def _times(left: int, need: int) -> int:
    """Return as `resources.times` does."""
    return left // need if need > 0 else MANY if left >= 0 else 0


def _in_cells(shape: Shape, cells: list[tuple[int, int]]) -> int:
    return sum(max(0, min(cpu // max(shape.cpu_m, 1), memory // max(shape.memory_mib, 1))) for cpu, memory in cells)


def _opened(
    view: View, work: Work, shape: Shape, policy: Policy, sizes: list[int], alike: Alike, copy: int
) -> float:  # fmt: skip
    """Return the score of empty hosts."""
    if shape.lifetime_s or policy.usual is None:
        return float(scores(view, work, shape, policy, np.array(alike.hosts[-1:]))[0][0])
    return usual_score(policy.usual, sizes, alike.left, alike.inverse, 0.0, alike.lacks, empty=True)


def need_of(shape: Shape, kind: Kind) -> Ints:
    """Return what one copy needs of each of the rows."""
    return np.array(
        (shape.cpu_m, shape.memory_mib, shape.disk_mib, shape.memory_mib, *kind.drawn, shape.disk_mib), np.int64
    )


def left_at(view: View, work: Work, shape: Shape, spots: Spots) -> tuple[Ints, Ints]:
    """Return what is left of the rows on some hosts after a copy of the image, and 1 where there is none of it yet."""
    left = work.left.take(spots.flat)
    lacks = missing(view, work, shape.image).take(spots.at)
    if shape.image_mib:
        left[-1] -= shape.image_mib * lacks
    return left, lacks


def score_at(
    view: View, work: Work, shape: Shape, policy: Policy, need: Ints, spots: Spots, places: Ints, left: Ints,
    lacks: Ints,
) -> Floats:  # fmt: skip
    """Return the scores of those at some places of spots. left, lacks: as `left_at` says of all spots."""
    hosts = spots.at.take(places)
    if work.measured or work.returned or shape.lifetime_s or policy.usual is None:
        return scores(view, work, shape, policy, hosts)[0]
    return usual_scores(
        policy.usual, need[:3], left[:3].take(places, axis=1), scale_of(view, shape).inverse.take(hosts, axis=1),
        work.instances.take(hosts) * per_core(view).take(hosts), lacks.take(places),
    )  # fmt: skip
