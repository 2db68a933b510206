"""What is left while a batch is being placed: one row of whole numbers per resource, one column per host.

What hosts share (a pool of addresses, a shared datastore) stands in every column that draws from it, and shrinks in all
of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from control.placement.model import MANY, Floats, Ints, Mask, Shape, View, per_host

CPU, MEMORY, MEASURED = 0, 1, 2  # rows of every view; those of datastores and networks follow
HOT_RATIO = 0.8  # measured use of the cores above which a host is avoided
MIN_SAMPLES = 3  # of a host, before what was measured counts

Need = tuple[int, int]  # row, and how much of it one copy takes


@dataclass(frozen=True)
class Rows:
    """Which row holds what, and what hosts share. alloc and free: of a datastore what is left and what was measured."""

    alloc: Mapping[str, int]
    free: Mapping[str, int]
    nets: Mapping[str, int]
    groups: Mapping[int, Ints]  # row -> group of each host, of the rows that hosts share
    sizes: Mapping[int, int]  # row -> how many groups
    count: int


def rows_of(view: View) -> Rows:
    """Return where what stands in the rows of a view's work."""
    found = view.kept.get("rows")
    if found is None:
        found = view.kept["rows"] = _rows(view)
    return found


def _rows(view: View) -> Rows:
    first = MEASURED + 1
    alloc = {name: first + 2 * n for n, name in enumerate(view.stores)}
    free = {name: row + 1 for name, row in alloc.items()}
    first += 2 * len(alloc)
    nets = {name: first + n for n, name in enumerate(view.nets)}
    groups = {row: view.stores[name].group for name, row in [*alloc.items(), *free.items()]}
    groups |= {row: view.nets[name].group for name, row in nets.items() if not view.nets[name].dhcp}
    shared = {row: group for row, group in groups.items() if np.bincount(group[group >= 0], minlength=1).max() > 1}
    sizes = {row: int(group.max()) + 1 for row, group in shared.items()}
    return Rows(alloc, free, nets, shared, sizes, first + len(nets))


@dataclass
class Work:
    """What is left, and what else changes while a batch is being placed."""

    left: Ints  # rows, hosts
    load_ratio: Floats  # measured use of the cores; 0 where nothing was measured
    instances: Ints
    net_taken: dict[str, set[int]]
    missing: dict[str, Ints]  # image -> 1 where there is no copy of it
    hot: Mask  # measured use of the cores is high
    preferred: Mask  # runs something already, and is not hot
    measured: bool = False  # whether anything is known of what hosts use
    may_wait: bool = False  # whether unreachable hosts count as well (see look.could_ever)
    touched: list[Ints] = field(default_factory=list)  # hosts of which something was taken, in order

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """Return what was worked out from what is left, by what it was asked for; see `touched`."""
        return {}


def start(view: View, features: Mapping[str, Any] | None = None) -> Work:
    """Return the work state for a view, with measured figures of hosts where there are enough samples."""
    measured = (features or {}).get("hosts") or {}
    left = np.full(len(view), MANY, np.int64)
    load = np.zeros(len(view))
    for index, name in enumerate(view.names if measured else ()):
        seen = measured.get(name) or {}
        if int(seen.get("samples") or 0) < MIN_SAMPLES:
            continue
        if seen.get("memory_used_mib") is not None:
            left[index] = math.floor(float(view.physical_mib[index]) - float(seen["memory_used_mib"]))
        load[index] = float(seen.get("cpu_used_ratio") or 0.0)
    stores = {name: (store.left_mib, store.free_mib) for name, store in view.stores.items()}
    nets = {name: net.left for name, net in view.nets.items()}
    rows = _filled(view, view.cpu_left_m, view.memory_left_mib, left, stores, nets)
    hot = load >= HOT_RATIO
    taken = {name: set(net.taken) for name, net in view.nets.items()}
    return Work(
        rows, load, view.instances.copy(), taken, _missing(view), hot, (view.instances > 0) & ~hot, bool(measured)
    )


def empty(view: View) -> Work:
    """Return the work state of the same cloud without any instance, nothing measured, every lease free."""
    stores = {name: (store.limit_mib, store.limit_mib) for name, store in view.stores.items()}
    nets = {name: net.whole for name, net in view.nets.items()}
    unbounded = np.full(len(view), MANY, np.int64)
    rows = _filled(view, view.cpu_limit_m, view.memory_limit_mib, unbounded, stores, nets)
    none, nowhere = np.zeros(len(view), np.int64), np.zeros(len(view), np.bool_)
    taken: dict[str, set[int]] = {name: set() for name in view.nets}
    return Work(rows, np.zeros(len(view)), none, taken, _missing(view), nowhere, nowhere.copy(), may_wait=True)


def _filled(
    view: View, cpu_m: Ints, memory_mib: Ints, measured_mib: Ints, stores: Mapping[str, tuple[Ints, Ints]],
    nets: Mapping[str, Ints],
) -> Ints:  # fmt: skip
    """Return the rows. stores: what may be allocated and what was measured, nets: free addresses, each by group."""
    rows = rows_of(view)
    left = np.empty((rows.count, len(view)), np.int64)
    left[CPU], left[MEMORY], left[MEASURED] = cpu_m, memory_mib, measured_mib
    for name, (alloc, free) in stores.items():
        left[rows.alloc[name]] = per_host(view.stores[name].group, alloc, -1)
        left[rows.free[name]] = per_host(view.stores[name].group, free, -1)
    for name, addresses in nets.items():
        left[rows.nets[name]] = per_host(view.nets[name].group, addresses)
    return left


def _missing(view: View) -> dict[str, Ints]:
    return {sha: (~mask).astype(np.int64) for sha, mask in view.images.items()}


def missing(view: View, work: Work, image: str) -> Ints:
    """Return 1 for each host without a copy of an image, else 0."""
    found = work.missing.get(image)
    if found is None:
        found = work.missing[image] = np.ones(len(view), np.int64)
    return found


def take(
    view: View, work: Work, shape: Shape, needs: Sequence[Need], hosts: Ints, counts: Ints,
    stores: Sequence[tuple[str, Ints]],
) -> None:  # fmt: skip
    """Take copies of a shape out of what is left. hosts: each once; stores: datastore, places in hosts that use it."""
    rows = rows_of(view)
    touched = hosts
    copy = missing(view, work, shape.image)
    for row, need in needs:
        _subtract(work, rows, row, hosts, need * counts)
    for name, places in stores:
        there, disks = hosts[places], shape.disk_mib * counts[places]
        _subtract(work, rows, rows.alloc[name], there, disks)
        _subtract(work, rows, rows.free[name], there, disks + shape.image_mib * copy[there])
        if rows.alloc[name] in rows.groups:
            touched = np.arange(len(view))
    if shape.image:
        copy[hosts] = 0
    work.instances[hosts] += counts
    work.preferred[hosts] = ~work.hot[hosts]
    for name, address in shape.fixed:
        work.net_taken[name].add(address)
    work.touched.append(touched)


def _subtract(work: Work, rows: Rows, row: int, hosts: Ints, amounts: Ints) -> None:
    group = rows.groups.get(row)
    if group is None:
        work.left[row][hosts] -= amounts
        return
    taken = np.zeros(rows.sizes[row] + 1, np.int64)  # the last one stands for hosts that have no group (-1)
    np.add.at(taken, group[hosts], amounts)
    taken[-1] = 0
    work.left[row] -= taken[group]
