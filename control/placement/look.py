"""One evaluation of a shape against all hosts; what is left after some were taken; whether it could ever fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from control.placement.filters import FILTERS
from control.placement.model import MANY, Floats, Ints, Shape, View, Work, empty
from control.placement.weights import scores


@dataclass(frozen=True)
class Look:
    """One evaluation of a shape: how often it fits on each host by each constraint, and the scores."""

    rooms: tuple[Ints, ...]  # in the order of FILTERS
    room: Ints
    score: Floats
    parts: Mapping[str, Floats]

    def first_failing(self, h: int) -> int | None:
        """Return the index in FILTERS of the first constraint that keeps the shape from host h."""
        return next((i for i, room in enumerate(self.rooms) if room[h] <= 0), None)


def look(view: View, work: Work, shape: Shape) -> Look:
    """Evaluate a shape on all hosts."""
    rooms = tuple(constraint.room(view, work, shape) for constraint in FILTERS)
    room = np.full(len(view), MANY, np.int64)
    for one in rooms:
        room = np.minimum(room, one)
    score, parts = scores(view, work, shape)
    return Look(rooms, room, score, parts)


def fits(view: View, work: Work, shape: Shape) -> bool:
    """Return whether a shape fits anywhere."""
    return bool((look(view, work, shape).room > 0).any())


def subtract(view: View, work: Work, shape: Shape, h: int, store: str | None, n: int) -> None:
    """Take n copies of a shape out of what is left on host h."""
    work.cpu_left_m[h] -= n * shape.cpu_m
    work.memory_left_mib[h] -= n * shape.memory_mib
    work.measured_left_mib[h] -= n * shape.memory_mib
    work.instances[h] += n
    if store is not None:
        group = view.stores[store].group[h]
        cached = work.images.setdefault(shape.image, np.zeros(len(view), np.bool_)) if shape.image else None
        copy = 0 if cached is not None and cached[h] else shape.image_mib
        work.store_left[store][group] -= n * shape.disk_mib
        work.store_free[store][group] -= n * shape.disk_mib + copy
        if cached is not None:
            cached[h] = True
    for name, count in shape.nics:
        if not view.nets[name].dhcp:
            work.net_left[name][view.nets[name].group[h]] -= n * count
    for name, address in shape.fixed:
        work.net_taken[name].add(address)
        work.net_left[name][view.nets[name].group[h]] -= 1


def could_ever(view: View, shape: Shape) -> bool:
    """Return whether a shape could fit some enabled host if nothing else ran; hosts not known yet count as hope."""
    work = empty(view)
    seen = look(view, work, shape)
    if bool((seen.room > 0).any()):
        return True
    hope = view.unknown.copy()
    stores = [shape.datastore] if shape.datastore else list(view.stores)
    for name in stores:
        if name in view.stores:
            hope |= view.stores[name].unseen
    for constraint, room in zip(FILTERS, seen.rooms, strict=True):
        if constraint.static and constraint.name != "kind":
            hope &= room > 0
    known = np.array([bool(kinds) and shape.kind not in kinds for kinds in view.kinds], np.bool_)
    return bool((hope & ~known).any())
