"""One evaluation of a shape against all hosts, and whether it could ever fit."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control.placement.filters import FILTERS, Filter, needs_of
from control.placement.model import ALL, MANY, Ints, Mask, Shape, View, mask_of
from control.placement.resources import times
from control.placement.work import MEASURED, Need, Work, empty

NONE = len(FILTERS)  # what `failing` says of a host where it fits
_ROOMS = [constraint for constraint in FILTERS if constraint.room]


@dataclass(frozen=True)
class Eligible:
    """Where a kind of shapes may be, whatever is left there. failing: per host its first failing test, or NONE."""

    failing: npt.NDArray[np.uint8]
    mask: Mask
    room: Ints  # MANY or 0


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
        found = view.kept[key] = Eligible(failing, failing == NONE, np.where(failing == NONE, MANY, 0))
    return found


def room_of(view: View, work: Work, shape: Shape, needs: Sequence[Need]) -> Ints:
    """Return how often a shape fits on each host; below 1: not at all."""
    room = eligible(view, work, shape).room
    for row, need in needs:
        if row != MEASURED or work.measured:
            room = np.minimum(room, times(work.left[row], need))
    for constraint in _ROOMS:
        one = constraint.room(view, work, shape, ALL) if constraint.room else None
        if one is not None:
            room = np.minimum(room, one)
    return room


def hosts_for_one(view: View, work: Work, shape: Shape, needs: Sequence[Need], among: Mask | None = None) -> Ints:
    """Return the hosts (of those among) where a shape fits: as `room_of`, without counting how often."""
    mask = eligible(view, work, shape).mask
    hosts = np.flatnonzero(mask if among is None else mask & among)
    for row, need in needs:
        if row != MEASURED or work.measured:
            hosts = hosts[work.left[row][hosts] >= (need if isinstance(need, int) else need[hosts])]
    for constraint in _ROOMS:
        one = constraint.room(view, work, shape, hosts) if constraint.room else None
        if one is not None:
            hosts = hosts[one > 0]
    return hosts


def room_by(view: View, work: Work, shape: Shape, constraint: Filter) -> Ints | None:
    """Return how often a shape fits by one constraint, its test apart; None: without limit."""
    rooms = [times(work.left[row], need) for row, need in (constraint.needs(view, shape) if constraint.needs else ())]
    other = constraint.room(view, work, shape, ALL) if constraint.room else None
    rooms += [] if other is None else [other]
    return np.minimum.reduce(rooms) if rooms else None


def failing(view: View, work: Work, shape: Shape) -> npt.NDArray[np.uint8]:
    """Return per host the index in FILTERS of the first constraint that keeps a shape from it, or NONE."""
    found = eligible(view, work, shape).failing
    for index, constraint in enumerate(FILTERS):
        room = room_by(view, work, shape, constraint)
        if room is not None:
            found = np.where((found == NONE) & (room <= 0), np.uint8(index), found)
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
    return len(hosts_for_one(view, work, shape, needs_of(view, shape))) > 0


def could_ever(view: View, shape: Shape) -> bool:
    """Return whether a shape could fit some enabled host if nothing else ran; hosts not known yet count as hope."""
    work = empty(view)
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
