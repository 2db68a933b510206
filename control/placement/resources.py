"""How often a shape fits by what is left: what one copy needs of each row of it, rooms of other kinds, and why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from control.addresses import text
from control.placement.cells import cell_rooms
from control.placement.eligibility import say
from control.placement.model import ALL, MANY, At, Hold, Ints, Shape, View, per_host
from control.placement.work import CPU, MEASURED, MEMORY, Need, Work, missing, rows_of

# How often a shape fits on the hosts at these places, by one constraint alone; None: without limit.
Room = Callable[[View, Work, Shape, At], Ints | None]


def times(left: Ints, need: int | Ints) -> Ints:
    """Return how often need goes into what is left, below 1 for not at all. No need: MANY where nothing is owed."""
    if isinstance(need, np.ndarray):
        return left // np.maximum(need, 1)
    return left // need if need > 0 else np.where(left >= 0, MANY, 0)


def _least(rooms: list[Ints]) -> Ints | None:
    found: Ints | None = None
    for room in rooms:
        found = room if found is None else np.minimum(found, room)
    return found


def addresses(view: View, shape: Shape) -> list[Need]:
    return [(rows_of(view).nets[name], n) for name, n in _drawn(view, shape).items()]


def _drawn(view: View, shape: Shape) -> dict[str, int]:
    """Return how many addresses a shape takes of each network, those that it names among them."""
    found = {name: n for name, n in shape.nics if name in view.nets and not view.nets[name].dhcp}
    for name, _ in shape.fixed:
        if name in view.nets:
            found[name] = found.get(name, 0) + 1
    return found


def fixed_addresses(view: View, work: Work, shape: Shape, at: At) -> Ints | None:
    return _least([_gives_address(view, work, name, address)[at] for name, address in shape.fixed])


def _gives_address(view: View, work: Work, name: str, address: int) -> Ints:
    """Return 1 where a network gives this very address and nobody has it, else 0."""
    net = view.nets.get(name)
    if net is None or address in work.net_taken[name] or address in net.reserved:
        return np.zeros(len(view), np.int64)
    gives = np.array([any(a <= address <= b for a, b in spans) for spans in net.spans], np.int64)
    return per_host(net.group, gives)


def no_address(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    for name, address in shape.fixed:
        if name in view.nets and not _gives_address(view, work, name, address)[h]:
            taken = address in work.net_taken[name]
            return say(
                f"address {text(address)} of network {name} is {'leased already' if taken else 'not given there'}",
                network=name, address=text(address),
            )  # fmt: skip
    for name, count in _drawn(view, shape).items():
        net = view.nets[name]
        left = int(work.left[rows_of(view).nets[name]][h])
        if left < count:
            whole = int(per_host(net.group, net.whole)[h])
            return say(
                f"network {name} has {left} of {whole} addresses free, {count} needed",
                network=name, need=count, free=left, limit=whole,
            )  # fmt: skip
    return say("no address")


def cores_room(view: View, work: Work, shape: Shape, at: At) -> Ints | None:
    """Overcommit gives no instance more cores than a host has."""
    if shape.cpu_m <= view.fewest_cpus_m:
        return None
    return np.where(view.cpus_m[at] >= shape.cpu_m, MANY, 0)


def no_cpu(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    need, left, limit = shape.cpu_m / 1000, int(work.left[CPU, h]) / 1000, int(view.cpu_limit_m[h]) / 1000
    cores = int(view.cpus_m[h]) / 1000
    if shape.cpu_m > int(view.cpus_m[h]):
        one = shape.cpu_m / 1000
        return say(f"has {cores:g} cores, one instance needs {one:g}", need=one, free=left, limit=cores)
    if told := learned(view, work, h):
        return say(f"needs {need:g} cores; {told}", need=need, free=left, limit=limit)
    return say(f"needs {need:g} cores, {left:g} of {limit:g} are free", need=need, free=left, limit=limit)


def learned(view: View, work: Work, h: int) -> str:
    """Return what was learned of a host's cores, in words; "" where they are given away by a declared ratio."""
    if view.learned is None or not view.learned[h]:
        return ""
    limit = int(view.cpu_limit_m[h])
    return f"learned: demand {(limit - int(work.left[CPU, h])) / 1000:.4g} of {limit / 1000:g} cores"


def no_memory(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    left, limit = int(work.left[MEMORY, h]), int(view.memory_limit_mib[h])
    return say(
        f"needs {shape.memory_mib} MiB of memory, {left} of {limit} are free", need=shape.memory_mib, free=left,
        limit=limit,
    )  # fmt: skip


def too_full(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    left = int(work.left[MEASURED, h])
    return say(
        f"needs {shape.memory_mib} MiB of memory, measured use leaves {left} of {int(view.physical_mib[h])}",
        need=shape.memory_mib, free=left, limit=int(view.physical_mib[h]),
    )  # fmt: skip


def cpu_need(view: View, shape: Shape) -> list[Need]:
    """Cores that are pinned are no part of those that all others share."""
    return [] if shape.pinned else [(CPU, shape.cpu_m)]


def memory_need(view: View, shape: Shape) -> list[Need]:
    """Huge pages are no part of the memory that all others share."""
    return [] if shape.hugepage_kib else [(MEMORY, shape.memory_mib)]


def measured_need(view: View, shape: Shape) -> list[Need]:
    return [] if shape.hugepage_kib else [(MEASURED, shape.memory_mib)]


def pinned(view: View, shape: Shape) -> list[Need]:
    pins = rows_of(view).pins
    return [(pins, shape.cpu_m)] if shape.pinned and pins is not None else []


def devices(view: View, shape: Shape) -> list[Need]:
    return [(rows_of(view).pci[name], n) for name, n in shape.pci if name in view.pci]


def pages(view: View, shape: Shape) -> list[Need]:
    row = rows_of(view).hugepages.get(shape.hugepage_kib)
    return [] if row is None else [(row, shape.memory_mib)]


def nowhere(missing: Callable[[View, Shape], bool]) -> Room:
    """Return a room that is none where no host has what is asked for."""
    return lambda view, work, shape, at: np.zeros(len(view), np.int64)[at] if missing(view, shape) else None


def no_device(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    for name, n in shape.pci:
        pool = view.pci.get(name)
        left = 0 if pool is None else int(work.left[rows_of(view).pci[name], h])
        if left < n:
            limit = 0 if pool is None else int(pool.limit[h])
            return say(f"needs {n} of {name}, {left} of {limit} are free", device=name, need=n, free=left, limit=limit)
    return say("no device")


def no_pages(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    pool = view.hugepages.get(shape.hugepage_kib)
    left = 0 if pool is None else int(work.left[rows_of(view).hugepages[shape.hugepage_kib], h])
    limit, need = 0 if pool is None else int(pool.limit[h]), shape.memory_mib
    return say(
        f"needs {need} MiB in pages of {shape.hugepage_kib} KiB, {left} of {limit} are free", need=need, free=left,
        limit=limit,
    )  # fmt: skip


def no_pins(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    row, need = rows_of(view).pins, shape.cpu_m / 1000
    left = 0.0 if row is None else int(work.left[row, h]) / 1000
    limit = 0.0 if view.pins is None else int(view.pins.limit[h]) / 1000
    told = f"needs {need:g} cores of its own, {left:g} of {limit:g} can be pinned"
    return say(told, need=need, free=left, limit=limit)


def cells_room(view: View, work: Work, shape: Shape, at: At) -> Ints | None:
    if not shape.one_cell:
        return None
    found: Ints = np.add.reduce(cell_rooms(work, rows_of(view), shape, at))
    return found


def no_cell(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    left = [(int(work.left[c, h]) / 1000, int(work.left[m, h])) for c, m in rows_of(view).cells_of(shape)]
    told = "; ".join(f"{cpu:g} cores and {memory} MiB" for cpu, memory in left) or "no cells known"
    need = f"{shape.cpu_m / 1000:g} cores and {shape.memory_mib} MiB"
    need += f" in pages of {shape.hugepage_kib} KiB" if shape.hugepage_kib else ""
    return say(f"needs {need} in one NUMA cell, free are {told}", cells=[{"cpu": c, "memory_mib": m} for c, m in left])


def _held_from(view: View, shape: Shape) -> list[Hold]:
    """Return what is promised to others before an instance of this shape is expected to end."""
    return [
        hold for hold in view.holds
        if hold.what != shape.reservation and (not shape.lifetime_s or hold.begins_s < shape.lifetime_s)
    ]  # fmt: skip


def promised(view: View, work: Work, shape: Shape, at: At) -> Ints | None:
    holds_, needs = _held_from(view, shape), [*cpu_need(view, shape), *memory_need(view, shape)]
    if not holds_ or not needs or work.may_wait:
        return None
    hosts = [hold.host for hold in holds_]
    left = {CPU: work.left[CPU].copy(), MEMORY: work.left[MEMORY].copy()}
    np.subtract.at(left[CPU], hosts, [hold.cpu_m for hold in holds_])
    np.subtract.at(left[MEMORY], hosts, [hold.memory_mib for hold in holds_])
    room: Ints = np.minimum.reduce([times(left[row], need) for row, need in needs])
    concerned = np.zeros(len(view), np.bool_)
    concerned[hosts] = True
    return np.where(concerned, room, MANY)[at]


def not_free_long(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    mine = [hold for hold in _held_from(view, shape) if hold.host == h]
    told = ", ".join(
        f"{hold.cpu_m / 1000:g} cores and {hold.memory_mib} MiB for {hold.what} in {hold.begins_s:.0f} s"
        for hold in mine
    )
    cpu, memory = int(work.left[CPU, h]) / 1000, int(work.left[MEMORY, h])
    return say(f"has {cpu:g} cores and {memory} MiB free, but promised {told}", holds=[hold.what for hold in mine])


def store_room(view: View, work: Work, shape: Shape, name: str, at: At = ALL) -> Ints:
    """Return how often a shape's disks fit on one datastore, on the hosts at these places.

    A missing copy of the image counts once.
    """
    rows = rows_of(view)
    free = work.left[rows.free[name], at]
    if shape.image_mib:
        free = free - shape.image_mib * missing(view, work, shape.image)[at]
    return times(np.minimum(work.left[rows.alloc[name], at], free), shape.disk_mib)


def disk_room(view: View, work: Work, shape: Shape, at: At) -> Ints:
    """Return how often a shape's disks fit on the best datastore of the hosts at these places."""
    rooms = [store_room(view, work, shape, name, at) for name in view.stores_of(shape)]
    return np.maximum.reduce(rooms) if rooms else np.zeros(len(view), np.int64)[at]


def disk_left(view: View, work: Work, shape: Shape) -> Ints:
    """Return the largest disk that fits on a datastore of each host; negative: not even a copy of the image."""
    rows, copy = rows_of(view), shape.image_mib * missing(view, work, shape.image)
    left = np.full(len(view), -1, np.int64)
    for name in view.stores_of(shape):
        left = np.maximum(left, np.minimum(work.left[rows.alloc[name]], work.left[rows.free[name]] - copy))
    return left


def no_disk(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    best: dict[str, Any] = {}
    rows = rows_of(view)
    for name in view.stores_of(shape):
        store = view.stores[name]
        if store.group[h] < 0:
            continue
        left = int(min(work.left[rows.alloc[name], h], work.left[rows.free[name], h]))
        if not best or left > best["free"]:
            best = {"datastore": name, "need": shape.disk_mib, "free": left,
                    "limit": int(store.limit_mib[store.group[h]])}  # fmt: skip
    copy = shape.image_mib * int(missing(view, work, shape.image)[h])
    image = f" and {copy} for a copy of the image" if copy else ""
    where = f"{best['free']} of {best['limit']} are free on {best['datastore']}"
    return say(f"needs {shape.disk_mib} MiB of disk{image}, {where}", **best, image_mib=copy)
