"""NUMA cells: how often a shape that must be in one fits, and copies taken out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from control.placement.model import At, Ints, Shape

if TYPE_CHECKING:
    from control.placement.work import Rows, Work


def cell_rooms(work: Work, rows: Rows, shape: Shape, at: At) -> Ints:
    """Return how often a shape fits in each NUMA cell of the hosts at these places; cells, hosts."""
    if isinstance(at, slice):
        left = work.left[rows.cells_of(shape)][:, :, at]
    else:
        left = work.left.take(rows.cells_of(shape)[:, :, None] * work.left.shape[1] + at)
    room: Ints = np.minimum(left[:, 0] // max(shape.cpu_m, 1), left[:, 1] // max(shape.memory_mib, 1))
    return np.maximum(room, 0, out=room)


def subtract_cells(work: Work, rows: Rows, shape: Shape, hosts: Ints, counts: Ints) -> list[Ints]:
    """Take copies out of the cells, the first one that has room first; return how many of each."""
    room = cell_rooms(work, rows, shape, hosts)
    before = np.cumsum(room, axis=0) - room
    taken = np.clip(counts - before, 0, room)
    work.left[rows.cells_of(shape)[:, :, None], hosts] -= taken[:, None] * np.array([[shape.cpu_m], [shape.memory_mib]])
    return list(taken)
