"""The engine: requests of one shape are placed as one run, so that work grows with shapes, not with instances."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat, takewhile
from typing import Any

import numpy as np

from control.placement import affinity, block
from control.placement.batch import Lot, contended, fair_lots, lots
from control.placement.copies import place_many
from control.placement.explain import BEST, MAX_CHANGES, Fitting, failed_record, record
from control.placement.expressions import Type, parse
from control.placement.filters import needs_of
from control.placement.look import candidates, room_of
from control.placement.model import Choice, Ints, Request, Shape, View
from control.placement.resources import store_room, times
from control.placement.single import place_one
from control.placement.weights import DEFAULT
from control.placement.within import Scoring, scoring_of, turn
from control.placement.work import Need, Work, missing, prefer, rows_of, start, take
from core.garbage import uncollected


@dataclass
class _Answer:
    """Where requests go, by their places: host and datastore by number, -1 = none; what told says of each."""

    hosts: Ints
    stores: Ints
    positions: Ints
    records: Ints
    told: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0  # shapes that did not fit, or not all of them

    def put(self, places: Ints, hosts: Ints | int, stores: Ints | int, why: dict[str, Any]) -> None:
        """Note what was decided on some requests together."""
        self.hosts[places], self.stores[places], self.records[places] = hosts, stores, len(self.told)
        self.positions[places] = np.arange(len(places))
        self.told.append(why)

    def put_one(self, place: int, host: int, store: int) -> None:
        """Note what was decided on one request of which nothing is told."""
        self.hosts[place], self.stores[place], self.records[place] = host, store, len(self.told)
        self.positions[place] = 0
        self.told.append({})


@uncollected()
def choose(
    view: View, requests: Sequence[Request], features: Mapping[str, Any] | None = None, *, policy: str = DEFAULT,
    tell: bool = True, work: Work | None = None,
) -> list[Choice]:  # fmt: skip
    """Return where each request goes, in the order of the requests. Takes nothing twice; view is left as it is.

    When there is not room for all, it goes by priority, and is shared between owners (batch.py).
    policy: a name in weights.POLICIES; clusters that name one (view.policies) are compared by it, their hosts by their
    own. tell: whether the choices say why, else their records are empty; work: of this view, kept from one call to the
    next (see keeping.py) instead of begun with features: what is placed is taken of it.
    """
    unfair = contended(requests)
    left = start(view, features) if work is None else work
    before = work.saved() if unfair and work is not None else None
    answer = _placed(view, requests, lots(requests), left, policy, tell)
    if answer.failed and unfair:
        left.become(start(view, features) if before is None else before)
        answer = _placed(view, requests, fair_lots(view, requests), left, policy, tell)
    return _choices(view, requests, answer)


def _placed(
    view: View, requests: Sequence[Request], order: Sequence[Lot], work: Work, policy: str, tell: bool
) -> _Answer:
    shapes = [shape for lot in order for shape, _ in lot.runs]
    work.smallest = min((s.cpu_m for s in shapes), default=0), min((s.memory_mib for s in shapes), default=0)
    prefer(work, slice(None))
    hosts, stores, positions, records = np.full((4, len(requests)), -1, np.int64)
    answer = _Answer(hosts, stores, positions, records)
    waiting = deque(order)
    while waiting:
        if not tell and _in_block(view, work, waiting, answer, policy):
            continue
        lot = waiting.popleft()
        before = work.saved() if lot.gang else None
        short = sum(len(_run(view, work, shape, places, answer, policy, tell)) for shape, places in lot.runs)
        if before is not None and short:
            work.become(before)
            _give_up(answer, lot, short)
    return answer


def _in_block(view: View, work: Work, waiting: deque[Lot], answer: _Answer, policy: str) -> bool:
    """Place those of the next ones that are alone of their shape, some at once; return whether any was placed."""
    scoring = scoring_of(view, work, waiting[0].runs[0][0], policy)

    def is_alone(lot: Lot) -> bool:
        shape, places = lot.runs[0]
        alike = not lot.gang and len(places) == 1 and scoring_of(view, work, shape, policy) is scoring
        return alike and scoring.opens_last(shape)

    alone = [] if scoring.own else list(takewhile(is_alone, islice(waiting, block.SIZE)))
    if len(alone) < 2:
        return False
    places = [lot.runs[0][1] for lot in alone]

    def otherwise(n: int) -> int | None:
        _run(view, work, alone[n].runs[0][0], places[n], answer, policy, tell=False)
        h = int(answer.hosts[places[n][0]])
        return None if h < 0 else h

    found = block.place_block(view, work, [lot.runs[0][0] for lot in alone], scoring.policy, otherwise)
    for place, one in zip(places, found, strict=False):
        waiting.popleft()
        if one is not None:
            answer.put_one(int(place[0]), *one)
    return bool(found)


def _run(
    view: View, work: Work, shape: Shape, places: Ints, answer: _Answer, policy: str, tell: bool
) -> Ints:
    """Place requests of one shape; return the places of those that fit nowhere."""
    scoring = scoring_of(view, work, shape, policy)
    if not tell and not scoring.own and scoring.opens_last(shape):
        if len(places) == 1:
            found = place_one(view, work, shape, scoring.policy)
            if found is not None:
                answer.put_one(int(places[0]), *found)
                return places[1:]
        elif (some := place_many(view, work, shape, len(places), scoring.policy)) is not None:
            hosts, counts, code = some
            there = np.repeat(hosts, counts)
            answer.put(places[: len(there)], there, code, {})
            places = places[len(there) :]
    for hosts, stores, why in _rounds(view, work, shape, len(places), scoring, tell):
        answer.put(places[: len(hosts)], hosts, stores, why)
        places = places[len(hosts) :]
    if len(places):
        answer.failed += 1
        why = failed_record(view, work, shape, changes=answer.failed <= MAX_CHANGES) if tell else {}
        answer.put(places, -1, -1, why)
    return places


def _give_up(answer: _Answer, lot: Lot, short: int) -> None:
    """Take back all of a gang; those that would have fitted say which others did not."""
    size = sum(len(places) for _, places in lot.runs)
    told = f"gang {lot.gang}: {short} of its {size} fit nowhere, so none is placed"
    for _, places in lot.runs:
        for number in set(answer.records[places].tolist()):
            if why := answer.told[number]:
                why["summary"] = f"{told}; {why['summary']}" if "summary" in why else told
        answer.hosts[places] = -1


def _choices(view: View, requests: Sequence[Request], answer: _Answer) -> list[Choice]:
    known = np.array([*range(len(view)), None], np.object_)  # -1 is the last
    names = np.array([*view.stores, None], np.object_)
    told = np.array(answer.told, np.object_)
    hosts = known.take(answer.hosts).tolist()
    stores = names.take(np.where(answer.hosts < 0, -1, answer.stores)).tolist()
    records = told.take(answer.records).tolist()
    fields = zip(requests, hosts, stores, answer.positions.tolist(), records, strict=True)
    return list(map(tuple.__new__, repeat(Choice), fields))  # as Choice(…), in a third of the time


def _rounds(
    view: View, work: Work, shape: Shape, wanted: int, scoring: Scoring, tell: bool
) -> Iterator[tuple[Ints, Ints, dict[str, Any]]]:
    """Take room for up to wanted copies of a shape, best host first; yield host and datastore of each, and why.

    What hosts share is looked at again after each round, and so is every host when a policy spreads.
    """
    needs = needs_of(view, shape)
    last, single = scoring.opens_last(shape), bool(shape.rules) or _moves(shape)
    while wanted:
        at, room, first, more, shut = _fitting(view, work, shape, needs, wanted, last, tell)
        if not len(at):
            return
        now = turn(view, work, shape, scoring, at, room, first, wanted, single=single, tell=tell)
        why: dict[str, Any] = {}
        if tell:
            more += len(at) - len(now.hosts)
            seen = Fitting(now.hosts, now.room, now.score, now.parts, more, shut)
            why = {**record(view, work, shape, seen), **now.told}
        alone = shape.fixed or any(affinity.begins(view, work, shape, rule) for rule in shape.rules)
        wanted_now = 1 if alone else now.wanted
        hosts, counts, stores = _take(view, work, shape, needs, now.hosts[now.order], now.most, wanted_now)
        if not len(hosts):
            return
        yield np.repeat(hosts, counts), np.repeat(stores, counts), why
        wanted -= int(counts.sum())


def _fitting(
    view: View, work: Work, shape: Shape, needs: Sequence[Need], wanted: int, last: bool, tell: bool
) -> tuple[Ints, Ints, int, int, Ints]:
    """Return where a shape fits, how often there, of how many of these (the best) it may take, on how many hosts beside
    these it fits, and where it has no room.

    last: only preferred hosts are taken from if there is room for all on these; the others are looked at only to tell,
    and only counted if there are enough preferred ones to tell of.
    """
    preferred, others = candidates(view, work, shape)
    room = room_of(view, work, shape, needs, preferred)
    good = room > 0
    narrow = last and bool(good.any()) and np.minimum(room[good], wanted).sum() >= wanted
    first = int(np.count_nonzero(good))
    if narrow and not tell:
        return preferred[good], room[good], first, 0, others[:0]
    other_room = room_of(view, work, shape, needs, others)
    other_good = other_room > 0
    shut = np.concatenate([preferred[~good], others[~other_good]]) if tell else others[:0]
    if narrow and first >= BEST:
        return preferred[good], room[good], first, int(np.count_nonzero(other_good)), shut
    at = np.concatenate([preferred[good], others[other_good]])
    return at, np.concatenate([room[good], other_room[other_good]]), first if narrow else len(at), 0, shut


def _moves(shape: Shape) -> bool:
    """Say whether each copy changes what a requirement or a rank says of the next one."""
    return any(
        text and parse(text, wanted).changing
        for text, wanted in ((shape.where, Type.TRUTH), (shape.rank, Type.NUMBER))
    )


def _take(
    view: View, work: Work, shape: Shape, needs: Sequence[Need], order: Ints, most: Ints, wanted: int
) -> tuple[Ints, Ints, Ints]:
    """Take copies from hosts in this order, no more than most of each; return hosts, counts and datastores."""
    stores, room = _stores(view, work, shape, order, most)
    if wanted > 1:  # what there is for one, there is for the first
        for group, left in _shared(view, work, shape, needs, order, stores):
            if (left < wanted).any():
                room = _within(room, group, left)
    hosts, counts = order, np.minimum(wanted - np.cumsum(room) + room, room)
    if not counts.all() or counts[-1] < 0:
        used = counts > 0
        hosts, counts, stores = hosts[used], counts[used], stores[used]
    if len(hosts):
        names, codes = list(view.stores), set(stores.tolist())
        places = [(names[code], np.flatnonzero(stores == code)) for code in codes]
        take(view, work, shape, needs, hosts, counts, places)
        if shape.own_labels or shape.rules:
            affinity.joined(view, work, shape, hosts, counts)
    return hosts, counts, stores


def _stores(view: View, work: Work, shape: Shape, hosts: Ints, most: Ints) -> tuple[Ints, Ints]:
    """Return the datastore of each host with most room, the first of equals, by number; and its room, at most most."""
    names = list(view.stores)
    best, room = np.zeros(len(hosts), np.int64), np.zeros(len(hosts), np.int64)
    allowed = view.stores_of(shape)
    if len(allowed) == 1:
        return best + names.index(allowed[0]), most
    for name in allowed:
        one = store_room(view, work, shape, name, hosts)
        best[one > room] = names.index(name)
        room = np.maximum(room, one)
    return best, np.minimum(room, most)


def _shared(
    view: View, work: Work, shape: Shape, needs: Sequence[Need], order: Ints, stores: Ints
) -> Iterator[tuple[Ints, Ints]]:
    """Yield what hosts share of what they would take: the group of each in order (-1: none), and its copies."""
    rows = rows_of(view)
    for row, need in needs:
        if row in rows.groups and isinstance(need, int) and need > 0:
            yield rows.groups[row][order], work.left[row, order] // need
    for domain in affinity.shares(view, shape):
        yield domain[order], np.ones(len(order), np.int64)
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
