"""The order of a batch: runs of one shape, in the order of arrival, or, where there is not room for all, a fair one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from control.placement.model import Floats, Ints, Request, Shape, View

_GANG, _SHAPE, _TURN = attrgetter("gang"), attrgetter("shape"), attrgetter("owner", "priority")
TURNS = 32  # in which the owner who asked for most gets it, beside the others


@dataclass(frozen=True)
class Lot:
    """Runs, by shape and the places of its requests; gang: all of them are placed, or none."""

    runs: tuple[tuple[Shape, Ints], ...]
    gang: str = ""


def runs(requests: Sequence[Request], places: Ints) -> list[tuple[Shape, Ints]]:
    """Return the requests at these places by shape, in the order of each shape's first."""
    shapes = list(map(_SHAPE, map(requests.__getitem__, places.tolist())))
    ids = list(map(id, shapes))
    known = dict(zip(ids, shapes, strict=True))  # comparing shapes takes longer than placing them
    numbers: dict[Shape, int] = {}
    number = {key: numbers.setdefault(shape, len(numbers)) for key, shape in known.items()}
    run = np.fromiter(map(number.__getitem__, ids), np.int64, len(shapes))
    few = len(numbers) < 2**16
    order = places[np.argsort(run.astype(np.uint16) if few else run, kind="stable")]  # sixteen bits are sorted faster
    ends = np.cumsum(np.bincount(run, minlength=len(numbers))).tolist()
    return [(shape, order[a:b]) for shape, a, b in zip(numbers, [0, *ends], ends, strict=False)]


def lots(requests: Sequence[Request], places: Ints | None = None) -> list[Lot]:
    """Return the lots of requests, in the order of these places, else of arrival; a gang where its first one is."""
    order = np.arange(len(requests)) if places is None else places
    if not any(map(_GANG, requests)):
        return [Lot((one,)) for one in runs(requests, order)]
    gangs: dict[str, list[int]] = {}
    for place in order.tolist():
        if requests[place].gang:
            gangs.setdefault(requests[place].gang, []).append(place)
    alone = np.array([place for place in order.tolist() if not requests[place].gang], np.int64)
    found = [Lot(tuple(runs(requests, np.array(members))), gang) for gang, members in gangs.items()]
    found += [Lot((one,)) for one in runs(requests, alone)]
    first = {place: n for n, place in enumerate(order.tolist())}
    return sorted(found, key=lambda lot: min(first[int(places[0])] for _, places in lot.runs))


def contended(requests: Sequence[Request]) -> bool:
    """Say whether it matters who comes first: there are several owners or priorities."""
    return len(set(map(_TURN, requests))) > 1


def fair_lots(view: View, requests: Sequence[Request]) -> list[Lot]:
    """Return lots by priority, highest first; within one the owners take turns, each turn worth as much of the cloud.

    What an owner holds already (view.held) counts as turns that were taken: who holds less comes first. What something
    is worth is the largest share that it takes of the cloud's cores or memory (dominant resource fairness, Ghodsi et
    al., NSDI 2011).
    """
    shares = _shares(view, requests)
    spent: dict[tuple[int, str], float] = {}
    asked = 0.0
    before = np.zeros(len(requests))
    for place, request in enumerate(requests):
        key = (request.priority, request.owner)
        held = view.held.get(request.owner, 0.0)
        before[place] = spent.get(key, held)
        spent[key] = before[place] + shares[place]
        asked = max(asked, spent[key] - held)
    turn = np.floor(before / max(asked / TURNS, 1e-12)).astype(np.int64)
    priority = np.array([request.priority for request in requests])
    order = np.lexsort((np.arange(len(requests)), turn, -priority))
    marks = np.flatnonzero(np.diff(priority[order]) | np.diff(turn[order])) + 1
    segment = np.zeros(len(requests), np.int64)
    segment[marks] = 1
    segment = np.cumsum(segment)
    return _by_segment(requests, order, segment)


def _by_segment(requests: Sequence[Request], order: Ints, segment: Ints) -> list[Lot]:
    """Return the lots of each segment in turn; a gang is whole in that of its first one."""
    home: dict[str, int] = {}
    parts: list[list[int]] = [[] for _ in range(int(segment.max(initial=-1)) + 1)]
    for place, number in zip(order.tolist(), segment.tolist(), strict=True):
        gang = requests[place].gang
        parts[home.setdefault(gang, number) if gang else number].append(place)
    return [lot for part in parts for lot in lots(requests, np.array(part, np.int64))]


def _shares(view: View, requests: Sequence[Request]) -> Floats:
    cpu = np.array([request.shape.cpu_m for request in requests]) / max(int(view.cpu_limit_m.sum()), 1)
    memory = np.array([request.shape.memory_mib for request in requests]) / max(int(view.memory_limit_mib.sum()), 1)
    return np.maximum(cpu, memory)
