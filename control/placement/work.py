"""What is left while a batch is being placed: one row of whole numbers per resource, one column per host.

What hosts share (a pool of addresses, a shared datastore) stands in every column that draws from it, and shrinks in all
of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from control.placement.cells import subtract_cells
from control.placement.model import MANY, Floats, Ints, Mask, Pool, Rule, Shape, View, per_host

CPU, MEMORY, MEASURED = 0, 1, 2  # rows of every view; those of datastores and networks follow
HOT_RATIO = 0.8  # measured use of the cores above which a host is avoided
MIN_SAMPLES = 3  # of a host, before what was measured counts

Need = tuple[int, int | Ints]  # row, and how much of it one copy takes, on each host if that differs


@dataclass(frozen=True)
class Rows:
    """Which row holds what, and what hosts share. alloc and free: of a datastore what is left and what was measured."""

    alloc: Mapping[str, int]
    free: Mapping[str, int]
    nets: Mapping[str, int]
    pci: Mapping[str, int]
    hugepages: Mapping[int, int]
    pins: int | None
    cells: Ints  # cores and memory of each
    paged: Mapping[int, Ints]  # KiB of a huge page -> cores of each cell and memory in such pages
    pools: Mapping[int, Pool]  # row -> pool, of the four before
    groups: Mapping[int, Ints]  # row -> group of each host, of the rows that hosts share
    sizes: Mapping[int, int]  # row -> how many groups
    members: Mapping[int, Ints]  # row -> 1 where a host is of the group, of the rows with one group
    count: int

    def cells_of(self, shape: Shape) -> Ints:
        """Return the rows of the cores and of the memory of each cell, of that kind of memory that a shape asks for."""
        return self.paged.get(shape.hugepage_kib, self.cells)


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
    pools: dict[int, Pool] = {}

    def add(pool: Pool) -> int:
        pools[first + len(nets) + len(pools)] = pool
        return first + len(nets) + len(pools) - 1

    pci = {name: add(pool) for name, pool in view.pci.items()}
    hugepages = {size: add(pool) for size, pool in view.hugepages.items()}
    pins = None if view.pins is None else add(view.pins)
    pairs = [(add(cell.cpu_m), add(cell.memory_mib)) for cell in view.cells]
    cells = np.array(pairs, np.int64).reshape(-1, 2)
    sizes_kib = {kib for cell in view.cells for kib in cell.pages}
    paged = {
        kib: np.array([(row, add(cell.pages[kib])) for (row, _), cell in zip(pairs, view.cells, strict=True)], np.int64)
        for kib in sorted(sizes_kib)
    }  # fmt: skip
    groups = {row: view.stores[name].group for name, row in [*alloc.items(), *free.items()]}
    groups |= {row: view.nets[name].group for name, row in nets.items() if not view.nets[name].dhcp}
    shared = {row: group for row, group in groups.items() if np.bincount(group[group >= 0], minlength=1).max() > 1}
    sizes = {row: int(group.max()) + 1 for row, group in shared.items()}
    members = {row: (group >= 0).astype(np.int64) for row, group in shared.items() if sizes[row] == 1}
    count = first + len(nets) + len(pools)
    return Rows(alloc, free, nets, pci, hugepages, pins, cells, paged, pools, shared, sizes, members, count)


class Stay(NamedTuple):
    """Copies of a shape that were taken: how many on each host, until when, and how many of them in each NUMA cell."""

    shape: Shape
    hosts: Ints
    counts: Ints
    until_s: float
    cells: list[Ints]


@dataclass
class Work:
    """What is left, and what else changes while a batch is being placed."""

    left: Ints  # rows, hosts
    load_ratio: Floats  # measured use of the cores; 0 where nothing was measured
    instances: Ints
    net_taken: dict[str, set[int]]
    missing: dict[str, Ints]  # image -> 1 where there is no copy of it
    hot: Mask  # measured use of the cores is high
    preferred: Mask  # runs something already, is not hot, and has room for the smallest shape of the batch
    exit_s: Floats  # from the view's moment until the last one of a host is expected to end; 0 = nothing is known
    failure_ratio: Floats  # of a host's starts that failed, as far as known
    measured: bool = False  # whether anything is known of what hosts use
    may_wait: bool = False  # whether unreachable hosts count as well (see look.could_ever)
    smallest: tuple[int, int] = (0, 0)  # thousandths of cores and MiB that any shape of the batch needs
    members: dict[tuple[tuple[str, str], ...], Ints] = field(default_factory=dict)  # labels -> instances per host
    placed: list[tuple[tuple[tuple[str, str], ...], Ints, Ints]] = field(default_factory=list)  # labels, hosts, counts
    holders: dict[Rule, Ints] | None = None  # see affinity.py
    changes: int = 0  # how often something was taken or given back
    opened: int = 0  # how often there were more preferred hosts
    returned: bool = False  # whether anything was given back (see keeping.py)
    now_s: float = 0.0  # since the view's moment, from which exits are counted
    first_exit_s: Floats = field(default_factory=lambda: np.zeros(0))  # exit_s before anything was taken
    stays: list[Stay] = field(default_factory=list)  # that keeping.py has not looked at yet
    ends_s: dict[int, list[float]] = field(default_factory=dict)  # host -> when those that were taken end
    bound: dict[tuple[int, int, int, int], list[int]] = field(default_factory=dict)  # host, size -> copies in cells

    def saved(self) -> Work:
        """Return what it is now, to become again: without what was worked out from it, which is found again."""
        return replace(
            self, left=self.left.copy(), instances=self.instances.copy(), preferred=self.preferred.copy(),
            exit_s=self.exit_s.copy(), net_taken={name: set(taken) for name, taken in self.net_taken.items()},
            missing={image: one.copy() for image, one in self.missing.items()},
            members={labels: one.copy() for labels, one in self.members.items()}, placed=list(self.placed),
            holders=None if self.holders is None else {rule: n.copy() for rule, n in self.holders.items()},
            stays=list(self.stays), ends_s={host: list(ends) for host, ends in self.ends_s.items()},
            bound={key: list(copies) for key, copies in self.bound.items()},
        )  # fmt: skip

    def become(self, other: Work) -> None:
        """Be as another one, which is not to be used any more."""
        vars(self).clear()
        vars(self).update(vars(other))

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """Return what was worked out from what is left, by what it was asked for; with `changes` or `opened`."""
        return {}


def start(view: View, features: Mapping[str, Any] | None = None) -> Work:
    """Return the work state for a view, with measured figures of hosts where there are enough samples."""
    measured = (features or {}).get("hosts") or {}
    left = np.full(len(view), MANY, np.int64)
    load, exit_s, failures = (np.zeros(len(view)) for _ in range(3))
    for index, name in enumerate(view.names if measured else ()):
        seen = measured.get(name) or {}
        exit_s[index] = float(seen.get("exit_s") or 0.0)
        failures[index] = float(seen.get("failure_ratio") or 0.0)
        if int(seen.get("samples") or 0) < MIN_SAMPLES:
            continue
        if seen.get("memory_used_mib") is not None:
            left[index] = math.floor(float(view.physical_mib[index]) - float(seen["memory_used_mib"]))
        load[index] = float(seen.get("cpu_used_ratio") or 0.0)
    stores = {name: (store.left_mib, store.free_mib) for name, store in view.stores.items()}
    nets = {name: net.left for name, net in view.nets.items()}
    rows = _filled(view, view.cpu_left_m, view.memory_left_mib, left, stores, nets, whole=False)
    hot = load >= HOT_RATIO
    taken = {name: set(net.taken) for name, net in view.nets.items()}
    return Work(
        rows, load, view.instances.copy(), taken, _missing(view), hot, (view.instances > 0) & ~hot, exit_s, failures,
        bool(measured), first_exit_s=exit_s.copy(),
    )


def empty(view: View) -> Work:
    """Return the work state of the same cloud without any instance, nothing measured, every lease free."""
    stores = {name: (store.limit_mib, store.limit_mib) for name, store in view.stores.items()}
    nets = {name: net.whole for name, net in view.nets.items()}
    unbounded = np.full(len(view), MANY, np.int64)
    rows = _filled(view, view.cpu_limit_m, view.memory_limit_mib, unbounded, stores, nets, whole=True)
    none, nowhere = np.zeros(len(view), np.int64), np.zeros(len(view), np.bool_)
    taken: dict[str, set[int]] = {name: set() for name in view.nets}
    load, exit_s, failures = (np.zeros(len(view)) for _ in range(3))
    return Work(rows, load, none, taken, _missing(view), nowhere, nowhere.copy(), exit_s, failures, may_wait=True)


def _filled(
    view: View, cpu_m: Ints, memory_mib: Ints, measured_mib: Ints, stores: Mapping[str, tuple[Ints, Ints]],
    nets: Mapping[str, Ints], *, whole: bool,
) -> Ints:  # fmt: skip
    """Return the rows. stores: what may be allocated and what was measured, nets: free addresses, each by group."""
    rows = rows_of(view)
    left = np.empty((rows.count, len(view)), np.int64)
    left[CPU], left[MEMORY], left[MEASURED] = cpu_m, memory_mib, measured_mib
    for name, (alloc, free) in stores.items():
        left[rows.alloc[name]] = per_host(view.stores[name].group, alloc, -1)
        left[rows.free[name]] = per_host(view.stores[name].group, free, -1)
    for row, pool in rows.pools.items():
        left[row] = pool.limit if whole else pool.left
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


def prefer(work: Work, hosts: Ints | slice) -> None:
    """Work out again whether these hosts are preferred."""
    cpu_m, memory_mib = work.smallest
    good = (work.left[CPU][hosts] >= cpu_m) & (work.left[MEMORY][hosts] >= memory_mib)
    _prefer(work, hosts, good & (work.instances[hosts] > 0) & ~work.hot[hosts])


def prefer_used(work: Work, hosts: Ints, cpu_m: Ints, memory_mib: Ints) -> None:
    """Do as `prefer` for hosts that hold something, of which it is known what they have left."""
    good = (cpu_m >= work.smallest[0]) & (memory_mib >= work.smallest[1])
    _prefer(work, hosts, good & ~work.hot.take(hosts) if work.measured else good)


def _prefer(work: Work, hosts: Ints | slice, good: Mask) -> None:
    if np.logical_or.reduce(good > work.preferred[hosts]):  # it does no harm to look at one that is none any more
        work.opened += 1
    work.preferred[hosts] = good


def take(
    view: View, work: Work, shape: Shape, needs: Sequence[Need], hosts: Ints, counts: Ints,
    stores: Sequence[tuple[str, Ints]],
) -> None:  # fmt: skip
    """Take copies of a shape out of what is left. hosts: each once; stores: datastore, places in hosts that use it."""
    rows = rows_of(view)
    if shape.image_mib:
        images = shape.image_mib * missing(view, work, shape.image)[hosts]
        for name, places in stores:
            subtract(work, rows, rows.free[name], hosts[places], images[places])
    if shape.image:
        missing(view, work, shape.image)[hosts] = 0
    cells = subtract_cells(work, rows, shape, hosts, counts) if shape.one_cell else []
    shift(view, work, shape, needs, hosts, counts, stores)
    until_s = work.now_s + shape.lifetime_s
    if shape.lifetime_s:
        work.exit_s[hosts] = np.maximum(work.exit_s[hosts], until_s)
    if shape.lifetime_s or cells:
        work.stays.append(Stay(shape, hosts, counts, until_s, cells))
    for name, address in shape.fixed:
        work.net_taken[name].add(address)


def shift(
    view: View, work: Work, shape: Shape, needs: Sequence[Need], hosts: Ints, counts: Ints,
    stores: Sequence[tuple[str, Ints]],
) -> None:  # fmt: skip
    """Count copies of a shape in the rows as taken, or with counts below 0 as given back; as `take` otherwise."""
    rows = rows_of(view)
    plain = [(row, need) for row, need in needs if row not in rows.groups and isinstance(need, int)]
    if len(stores) == 1 and rows.alloc[stores[0][0]] not in rows.groups:  # the usual case, in one go
        plain += [(rows.alloc[stores[0][0]], shape.disk_mib), (rows.free[stores[0][0]], shape.disk_mib)]
    else:
        for name, places in stores:
            for row in (rows.alloc[name], rows.free[name]):
                subtract(work, rows, row, hosts[places], shape.disk_mib * counts[places])
    together = np.array(plain, np.int64)
    work.left[together[:, :1], hosts] -= together[:, 1:] * counts
    for row, need in needs:
        if row in rows.groups or not isinstance(need, int):
            subtract(work, rows, row, hosts, (need if isinstance(need, int) else need[hosts]) * counts)
    work.instances[hosts] += counts
    prefer(work, hosts)
    work.changes += 1


def subtract(work: Work, rows: Rows, row: int, hosts: Ints, amounts: Ints) -> None:
    """Take amounts out of a row on hosts, and on all that share it with them."""
    group = rows.groups.get(row)
    if group is None:
        work.left[row][hosts] -= amounts
        return
    if row in rows.members:
        work.left[row] -= int((amounts * rows.members[row][hosts]).sum()) * rows.members[row]
        return
    taken = np.zeros(rows.sizes[row] + 1, np.int64)  # the last one stands for hosts that have no group (-1)
    np.add.at(taken, group[hosts], amounts)
    taken[-1] = 0
    work.left[row] -= taken[group]
