"""One evaluation of a shape against all hosts, and whether it could ever fit."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control.placement.affinity import without_others
from control.placement.filters import FILTERS, Filter, needs_of
from control.placement.model import ALL, At, Ints, Mask, Shape, View, mask_of
from control.placement.resources import times
from control.placement.work import MEASURED, Need, Work, empty

NONE = len(FILTERS)  # what `failing` says of a host where it fits
_ROOMS = [constraint.room for constraint in FILTERS if constraint.room]


@dataclass(frozen=True)
class Eligible:
    """Where a kind of shapes may be, whatever is left there. failing: per host its first failing test, or NONE."""

    failing: npt.NDArray[np.uint8]
    mask: Mask


def kind_of(view: View, work: Work, shape: Shape) -> Hashable:
    """Return what shapes have in common that may be on the same hosts, whatever is left there."""
    return work.may_wait, shape.eligibility, 0 if view.windows_s is None else shape.lifetime_s


def eligible(view: View, work: Work, shape: Shape) -> Eligible:
    """Return where a shape may be, worked out once per view for all shapes that ask for the same."""
    key = ("eligible", kind_of(view, work, shape))
    found = view.kept.get(key)
    if found is None:
        failing = np.full(len(view), NONE, np.uint8)
        for index, constraint in reversed(list(enumerate(FILTERS))):
            mask = constraint.test(view, work, shape) if constraint.test else None
            if mask is not None:
                failing[~mask] = index
        found = view.kept[key] = Eligible(failing, failing == NONE)
    return found


def candidates(view: View, work: Work, shape: Shape) -> tuple[Ints, Ints]:
    """Return the hosts where a shape may be, whatever is left there: the preferred ones, and the others."""
    key = ("candidates", kind_of(view, work, shape))
    found = work.kept.get(key)
    if found is None or found[0] != work.opened:
        mask = eligible(view, work, shape).mask
        found = work.opened, np.flatnonzero(mask & work.preferred), np.flatnonzero(mask & ~work.preferred)
        work.kept[key] = found
    return found[1], found[2]


def room_of(view: View, work: Work, shape: Shape, needs: Sequence[Need], at: Ints) -> Ints:
    """Return how often a shape fits on the hosts at these places, of those where it may be; below 1: not at all."""
    rooms: list[Ints] = []
    usual: list[tuple[int, int]] = []
    for row, need in needs:
        if row == MEASURED and not work.measured:
            continue
        if isinstance(need, int) and need > 0:
            usual.append((row, need))
        else:
            rooms.append(times(work.left[row, at], need if isinstance(need, int) else need[at]))
    if usual:
        together = np.array(usual, np.int64)
        rooms.append(np.minimum.reduce(work.left[together[:, :1], at] // together[:, 1:]))
    for constraint in _ROOMS:
        one = constraint(view, work, shape, at)
        if one is not None:
            rooms.append(one)
    found: Ints = np.minimum.reduce(rooms)
    return found


def fitting(view: View, work: Work, shape: Shape) -> Ints:
    """Return the hosts where a shape fits."""
    hosts = np.flatnonzero(eligible(view, work, shape).mask)
    return hosts[room_of(view, work, shape, needs_of(view, shape), hosts) > 0]


def room_by(view: View, work: Work, shape: Shape, constraint: Filter, at: At = ALL) -> Ints | None:
    """Return how often a shape fits by one constraint on the hosts at these places; None: without limit.

    Its test is left out of account.
    """
    needs = constraint.needs(view, shape) if constraint.needs else ()
    rooms = [times(work.left[row][at], need if isinstance(need, int) else need[at]) for row, need in needs]
    other = constraint.room(view, work, shape, at) if constraint.room else None
    rooms += [] if other is None else [other]
    return np.minimum.reduce(rooms) if rooms else None


def failing(view: View, work: Work, shape: Shape, at: Ints) -> npt.NDArray[np.uint8]:
    """Return the index in FILTERS of the first constraint by which a shape has no room on the hosts at these places."""
    found = np.full(len(at), NONE, np.uint8)
    for index, constraint in enumerate(FILTERS):
        room = room_by(view, work, shape, constraint, at)
        if room is not None:
            found[(found == NONE) & (room <= 0)] = index
    return found


def shutting(view: View, work: Work, shape: Shape) -> set[str]:
    """Return the names of all constraints that keep a shape from some host."""
    found: set[str] = set()
    for constraint in FILTERS:
        mask = constraint.test(view, work, shape) if constraint.test else None
        room = room_by(view, work, shape, constraint)
        if (mask is not None and not mask.all()) or (room is not None and (room <= 0).any()):
            found.add(constraint.name)
    return found


def fits(view: View, work: Work, shape: Shape) -> bool:
    """Return whether a shape fits anywhere."""
    return len(fitting(view, work, shape)) > 0


def could_ever(view: View, shape: Shape) -> bool:
    """Return whether a shape could fit some enabled host if nothing else ran; hosts not known yet count as hope."""
    work, shape = empty(view), without_others(shape, [shape])
    if fits(view, work, shape):
        return True
    hope = view.unknown.copy()
    for name in [shape.datastore] if shape.datastore else list(view.stores):
        if name in view.stores:
            hope |= view.stores[name].unseen
    for constraint in FILTERS:
        mask = constraint.test(view, work, shape) if constraint.static and constraint.test else None
        if mask is not None and constraint.name != "kind":
            hope &= mask
    known = mask_of([bool(kinds) and shape.kind not in kinds for kinds in view.kinds])
    return bool((hope & ~known).any())
