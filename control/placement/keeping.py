"""Work that is kept from one call of the engine to the next: what ends gives back what it took, and time goes on.

    work = start(view, features)
    (choice,) = engine.choose(view, [request], policy=..., tell=False, work=work)
    work.now_s += 3600
    give_back(view, work, request.shape, choice.host, choice.datastore, taken_s=0.0)

What else a view says of the future (holds, maintenance) is counted from the view's moment, and stands still.
"""

from __future__ import annotations

import numpy as np

from control.placement import affinity
from control.placement.filters import needs_of
from control.placement.model import Shape, View
from control.placement.work import Rows, Work, rows_of, shift, subtract


def give_back(
    view: View, work: Work, shape: Shape, host: int, datastore: str, taken_s: float = 0.0, *, known: bool = True
) -> None:  # fmt: skip
    """Give back what one copy of a shape took on a host. taken_s: work.now_s at that time.

    The host keeps its copy of the image. What stood in the view from the start may be given back as well; known False:
    its NUMA cell is not known then, and what it filled of a disk may be neither, so neither is given back, only what
    was allocated to it.
    """
    _index(work)
    work.returned = True
    hosts, back, rows = np.array([host]), np.array([-1]), rows_of(view)
    if shape.one_cell and known:
        _leave_cell(work, rows, shape, host)
    shift(view, work, shape, needs_of(view, shape), hosts, back, [(datastore, np.array([0]))] if known else [])
    if not known and datastore in rows.alloc:
        subtract(work, rows, rows.alloc[datastore], hosts, shape.disk_mib * back)
    for name, address in shape.fixed:
        work.net_taken[name].discard(address)
    if shape.own_labels or shape.rules:
        affinity.joined(view, work, shape, hosts, back)
    ends = work.ends_s.get(host, [])
    if shape.lifetime_s and taken_s + shape.lifetime_s in ends:
        ends.remove(taken_s + shape.lifetime_s)
        work.exit_s[host] = max(work.first_exit_s[host], *ends, 0.0)


def _index(work: Work) -> None:
    """Sort what was taken since the last time by host."""
    for stay in work.stays:
        for n, (host, count) in enumerate(zip(stay.hosts.tolist(), stay.counts.tolist(), strict=True)):
            if stay.shape.lifetime_s:
                work.ends_s.setdefault(host, []).extend([stay.until_s] * count)
            if stay.cells:
                copies = work.bound.setdefault(_bound(stay.shape, host), [0] * len(stay.cells))
                copies[:] = [had + int(more[n]) for had, more in zip(copies, stay.cells, strict=True)]
    work.stays.clear()


def _bound(shape: Shape, host: int) -> tuple[int, int, int, int]:
    return host, shape.cpu_m, shape.memory_mib, shape.hugepage_kib


def _leave_cell(work: Work, rows: Rows, shape: Shape, host: int) -> None:
    """Give back to a cell that a copy of this size was taken from, else to the one that has most in use."""
    copies = work.bound.get(_bound(shape, host), [])
    cell = next((n for n, count in enumerate(copies) if count), None)
    if cell is None:
        used = [int(rows.pools[c].limit[host] - work.left[c, host]) for c, _ in rows.cells_of(shape)]
        cell = used.index(max(used))
    else:
        copies[cell] -= 1
    for row, size in zip(rows.cells_of(shape)[cell], (shape.cpu_m, shape.memory_mib), strict=True):
        work.left[row, host] += size
