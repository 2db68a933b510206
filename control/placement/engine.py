"""The engine: requests of one shape are placed as one run, so that work grows with shapes, not with instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from control.placement.explain import MAX_CHANGES, Fitting, failed_record, record
from control.placement.filters import needs_of, store_room, times
from control.placement.look import good_for_one, room_of
from control.placement.model import Choice, Ints, Request, Shape, View
from control.placement.weights import DEFAULT, POLICIES, Policy, best_first, scores, worth_scoring
from control.placement.work import Need, Work, missing, rows_of, start, take


def choose(
    view: View, requests: Sequence[Request], features: Mapping[str, Any] | None = None, *, policy: str = DEFAULT,
    tell: bool = True,
) -> list[Choice]:  # fmt: skip
    """Return where each request goes, in the order of the requests. Takes nothing twice; view is left as it is.

    policy: a name in weights.POLICIES; tell: whether the choices say why, else their records are empty.
    """
    work = start(view, features)
    plan = POLICIES[policy]
    hosts, positions = np.full(len(requests), -1, np.int64), np.zeros(len(requests), np.int64)
    stores, records = np.zeros(len(requests), np.int64), np.zeros(len(requests), np.int64)
    told: list[dict[str, Any]] = []
    failed = 0
    for shape, members in runs(requests):
        done = 0
        for found, where, why in _rounds(view, work, shape, len(members), plan, tell):
            part = members[done : done + len(found)]
            hosts[part], stores[part], records[part] = found, where, len(told)
            positions[part] = np.arange(len(found))
            told.append(why)
            done += len(found)
        if done < len(members):
            failed += 1
            part = members[done:]
            records[part], positions[part] = len(told), np.arange(len(part))
            told.append(failed_record(view, work, shape, changes=failed <= MAX_CHANGES) if tell else {})
    return _choices(view, requests, hosts, stores, positions, [told[n] for n in records.tolist()])


def _choices(
    view: View, requests: Sequence[Request], hosts: Ints, stores: Ints, positions: Ints,
    records: Sequence[dict[str, Any]],
) -> list[Choice]:  # fmt: skip
    names: list[str | None] = [*view.stores, None]
    where = [None if h < 0 else h for h in hosts.tolist()]
    stored = [names[store] for store in np.where(hosts < 0, -1, stores).tolist()]
    fields = zip(requests, where, stored, positions.tolist(), records, strict=True)
    return list(map(tuple.__new__, repeat(Choice), fields))  # as Choice(…), in a third of the time


def runs(requests: Sequence[Request]) -> list[tuple[Shape, Ints]]:
    """Return the places of requests by shape, in the order of arrival of each shape's first."""
    shapes = [request.shape for request in requests]
    ids = np.fromiter(map(id, shapes), np.int64, len(shapes))  # comparing shapes takes longer than placing them
    _, firsts, which = np.unique(ids, return_index=True, return_inverse=True)
    numbers: dict[Shape, int] = {}
    number = np.empty(len(firsts), np.int64)
    for one in np.argsort(firsts).tolist():
        number[one] = numbers.setdefault(shapes[firsts[one]], len(numbers))
    run = number[which]
    places = np.argsort(run, kind="stable")
    ends = np.cumsum(np.bincount(run, minlength=len(numbers))).tolist()
    return [(shape, places[a:b]) for shape, a, b in zip(numbers, [0, *ends], ends, strict=False)]


def _rounds(
    view: View, work: Work, shape: Shape, wanted: int, policy: Policy, tell: bool
) -> Iterator[tuple[Ints, Ints, dict[str, Any]]]:
    """Take room for up to wanted copies of a shape, best host first; yield host and datastore of each, and why.

    What hosts share is looked at again after each round, and so is every host when a policy spreads.
    """
    needs = needs_of(view, shape)
    while wanted:
        count = good_for_one if wanted == 1 and not tell else room_of
        rooms = count(view, work, shape, needs)
        at = np.flatnonzero(rooms > 0) if tell else worth_scoring(work, rooms, wanted, policy)
        room = rooms[at].astype(np.int64)
        if not len(at):
            return
        score, parts = scores(view, work, shape, policy, at)
        why = record(view, work, shape, Fitting(at, room, score, parts)) if tell else {}
        order = best_first(view, score, at, min(wanted, len(at)))
        most = np.minimum(room[order], 1 if policy.spreads else wanted)
        hosts, counts, stores = _take(view, work, shape, needs, at[order], most, 1 if shape.fixed else wanted)
        if not len(hosts):
            return
        yield np.repeat(hosts, counts), np.repeat(stores, counts), why
        wanted -= int(counts.sum())


def _take(
    view: View, work: Work, shape: Shape, needs: Sequence[Need], order: Ints, most: Ints, wanted: int
) -> tuple[Ints, Ints, Ints]:
    """Take copies from hosts in this order, no more than most of each; return hosts, counts and datastores."""
    stores, room = _stores(view, work, shape, order)
    room = np.minimum(room, most)
    if wanted > 1:  # what there is for one, there is for the first
        for group, left in _shared(view, work, shape, needs, order, stores):
            if (left < wanted).any():
                room = _within(room, group, left)
    counts = np.minimum(wanted - np.cumsum(room) + room, room)
    used = counts > 0
    hosts, counts, stores = order[used], counts[used], stores[used]
    names = list(view.stores)
    places = [(names[code], np.flatnonzero(stores == code)) for code in set(stores.tolist())]
    if len(hosts):
        take(view, work, shape, needs, hosts, counts, places)
    return hosts, counts, stores


def _stores(view: View, work: Work, shape: Shape, hosts: Ints) -> tuple[Ints, Ints]:
    """Return the datastore of each host with most room, the first of equals, by number; and its room."""
    best, most = np.zeros(len(hosts), np.int64), np.full(len(hosts), -1, np.int64)
    for code, name in enumerate(view.stores):
        if shape.datastore in (None, name):
            room = store_room(view, work, shape, name, hosts)
            best[room > most] = code
            most = np.maximum(most, room)
    return best, most


def _shared(
    view: View, work: Work, shape: Shape, needs: Sequence[Need], order: Ints, stores: Ints
) -> Iterator[tuple[Ints, Ints]]:
    """Yield what hosts share of what they would take: the group of each in order (-1: none), and its copies."""
    rows = rows_of(view)
    for row, need in needs:
        if row in rows.groups and need > 0:
            yield rows.groups[row][order], work.left[row, order] // need
    for code, name in enumerate(view.stores):
        group = rows.groups.get(rows.alloc[name])
        if group is not None and (stores == code).any():
            mine = np.where(stores == code, group[order], -1)
            images = np.cumsum(shape.image_mib * missing(view, work, shape.image)[order] * (mine >= 0))
            yield mine, times(work.left[rows.alloc[name], order], shape.disk_mib)
            yield mine, times(work.left[rows.free[name], order] - images, shape.disk_mib)


def _within(room: Ints, group: Ints, left: Ints) -> Ints:
    """Return room cut so that hosts of a group, in this order, take no more together than is left for each of them."""
    by_group = np.argsort(group, kind="stable")
    sorted_room, sorted_group = room[by_group], group[by_group]
    running = np.cumsum(sorted_room) - sorted_room
    first = np.searchsorted(sorted_group, sorted_group)  # where its group begins
    before = np.empty_like(room)
    before[by_group] = running - running[first]
    return np.where(group >= 0, np.clip(left - before, 0, room), room)
