"""What makes a host the better one among those that fit, as a table; lower is better.

Best fit: complementary shapes meet, tight hosts fill first, an empty host is opened last. The terms and factors are
those that packed best on public traces (docs/facts/placement.md); a host that measures hot comes even after those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from control.placement.filters import store_room_at, stores_of
from control.placement.model import Floats, Shape, View, Work, per_host

HOT_RATIO = 0.8  # measured use of the cores above which a host is avoided


@dataclass(frozen=True)
class Weight:
    """One term of the score. value: per host, before the factor."""

    name: str
    factor: float
    value: Callable[[View, Work, Shape], Floats]


def _shares(view: View, work: Work, shape: Shape) -> tuple[Floats, Floats]:
    """Return need and what is left as shares of each host's capacity: (hosts, dimensions)."""
    disk_limit, disk_left = np.zeros(len(view)), np.zeros(len(view))
    for name in stores_of(view, shape):
        limit = per_host(view.stores[name].group, view.stores[name].limit_mib)
        better = limit > disk_limit
        disk_limit = np.where(better, limit, disk_limit)
        disk_left = np.where(better, per_host(view.stores[name].group, work.store_left[name]), disk_left)
    limits = np.stack([view.cpu_limit_m, view.memory_limit_mib, disk_limit], axis=1).astype(np.float64)
    left = np.stack([work.cpu_left_m, work.memory_left_mib, disk_left], axis=1).astype(np.float64)
    need = np.array([shape.cpu_m, shape.memory_mib, shape.disk_mib], np.float64)
    safe = np.maximum(limits, 1.0)
    return need / safe, left / safe


def _balance(view: View, work: Work, shape: Shape) -> Floats:
    need, left = _shares(view, work, shape)
    norm = np.linalg.norm(need, axis=1) * np.linalg.norm(left, axis=1)
    return np.asarray(-np.sum(need * left, axis=1) / np.maximum(norm, 1e-12), np.float64)


def _left(view: View, work: Work, shape: Shape) -> Floats:
    need, left = _shares(view, work, shape)
    return np.asarray(np.sum(left - need, axis=1), np.float64)


def _empty(view: View, work: Work, shape: Shape) -> Floats:
    return np.where(work.instances == 0, 1.0, 0.0)


def _image(view: View, work: Work, shape: Shape) -> Floats:
    cached = work.images.get(shape.image)
    return np.ones(len(view)) if cached is None else np.where(cached, 0.0, 1.0)


def _load(view: View, work: Work, shape: Shape) -> Floats:
    return work.load_ratio


def _hot(view: View, work: Work, shape: Shape) -> Floats:
    return np.where(work.load_ratio >= HOT_RATIO, 1.0, 0.0)


WEIGHTS: tuple[Weight, ...] = (
    Weight("balance", 1.0, _balance),
    Weight("left", 0.1, _left),
    Weight("empty", 100_000.0, _empty),
    Weight("image", 0.2, _image),
    Weight("load", 0.5, _load),
    Weight("hot", 200_000.0, _hot),
)


def scores(view: View, work: Work, shape: Shape) -> tuple[Floats, dict[str, Floats]]:
    """Return every host's score and its parts."""
    parts = {weight.name: weight.factor * weight.value(view, work, shape) for weight in WEIGHTS}
    total = np.zeros(len(view))
    for part in parts.values():
        total = total + part
    return total, parts


def best_store(view: View, work: Work, shape: Shape, h: int) -> str | None:
    """Return the datastore with most room for a shape on a host, the first of equals; None: it fits on none."""
    rooms = [(store_room_at(view, work, shape, name, h), name) for name in stores_of(view, shape)]
    fits = [room for room, _ in rooms if room > 0]
    return next(name for room, name in rooms if room == max(fits)) if fits else None
