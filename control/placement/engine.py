"""The engine: requests of one shape are placed as one run, so that work grows with shapes, not with instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from control.placement.explain import MAX_CHANGES, failed_record, record
from control.placement.filters import store_room_at
from control.placement.look import Look, look, subtract
from control.placement.model import Choice, Request, Shape, View, Work, start
from control.placement.weights import best_store


def choose(view: View, requests: Sequence[Request], features: Mapping[str, Any] | None = None) -> list[Choice]:
    """Return where each request goes, in the order of the requests. Takes nothing twice; view is left as it is."""
    work = start(view, features)
    chosen: dict[str, Choice] = {}
    failed = 0
    for shape, members in runs(requests):
        waiting = list(members)
        while waiting:
            seen = look(view, work, shape)
            why = record(view, work, shape, seen)
            taken = _take(view, work, shape, seen, len(waiting))
            if not taken:
                break
            for position, (host, store) in enumerate(taken):
                chosen[waiting[position].key] = Choice(waiting[position], host, store, position, why)
            waiting = waiting[len(taken) :]
        if waiting:
            failed += 1
            why = failed_record(view, work, shape, changes=failed <= MAX_CHANGES)
            for position, request in enumerate(waiting):
                chosen[request.key] = Choice(request, None, None, position, why)
    return [chosen[request.key] for request in requests]


def runs(requests: Sequence[Request]) -> list[tuple[Shape, list[Request]]]:
    """Return requests by shape, in the order of arrival of each shape's first."""
    found: dict[Shape, list[Request]] = {}
    for request in requests:
        found.setdefault(request.shape, []).append(request)
    return list(found.items())


def _take(view: View, work: Work, shape: Shape, seen: Look, wanted: int) -> list[tuple[int, str | None]]:
    """Take room for up to wanted copies of a shape, best host first; return host and datastore of each."""
    taken: list[tuple[int, str | None]] = []
    order = np.lexsort((np.arange(len(view)), seen.score))
    for h in (int(h) for h in order if seen.room[h] > 0):
        store = best_store(view, work, shape, h)
        n = min(wanted - len(taken), _room_now(view, work, shape, h, store), int(seen.room[h]))
        if n > 0:
            subtract(view, work, shape, h, store, n)
            taken.extend([(h, store)] * n)
        if len(taken) == wanted:
            break
    return taken


def _room_now(view: View, work: Work, shape: Shape, h: int, store: str | None) -> int:
    """Return how often a shape fits on host h by what hosts share, which others of this run may have taken."""
    if store is None:
        return 0
    room = store_room_at(view, work, shape, store, h)
    for name, count in shape.nics:
        net = view.nets[name]
        if count and not net.dhcp:
            room = min(room, int(work.net_left[name][net.group[h]]) // count)
    if any(address in work.net_taken[name] for name, address in shape.fixed):
        return 0
    return min(room, 1) if shape.fixed else room
