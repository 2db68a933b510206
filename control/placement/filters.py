"""Constraints, as a table: each says on which hosts, or how often there, a shape fits; and for one host why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from control.addresses import text
from control.placement.model import MANY, Ints, Mask, Shape, View, per_host
from control.placement.work import CPU, MEASURED, MEMORY, Need, Work, missing, rows_of
from core.states import HostState

Test = Callable[[View, Work, Shape], Mask | None]  # on which hosts it may be; None: on all
Room = Callable[[View, Work, Shape], Ints | None]  # how often it fits, by this constraint alone; None: without limit
Rows = Callable[[View, Shape], list[Need]]  # what one copy takes of what is left
Reason = Callable[[View, Work, Shape, int], dict[str, Any]]  # why not at all on host h: text and numbers


@dataclass(frozen=True)
class Filter:
    """One constraint: a test of what placing changes nothing about, what one copy needs, or a room of another kind.

    left: how much of what it counts a host has, to tell the nearest ones of those that it shuts; static: instances that
    end do not change it, so it may mean that nothing ever fits.
    """

    name: str
    reason: Reason
    test: Test | None = None
    needs: Rows | None = None
    room: Room | None = None
    left: Room | None = None
    static: bool = False


def _say(text: str, **numbers: Any) -> dict[str, Any]:
    return {"reason": text, **numbers}


_WAITED_FOR = frozenset({HostState.READY, HostState.UNREACHABLE, "backed-off"})


def _state(view: View, work: Work, shape: Shape) -> Mask | None:
    good = _WAITED_FOR if work.may_wait else {HostState.READY}
    return view.column("states").where(lambda state: state in good)


def _kind(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("kinds").where(lambda kinds: shape.kind in kinds)


def _cluster(view: View, work: Work, shape: Shape) -> Mask | None:
    return None if shape.cluster is None else view.column("clusters").equal(shape.cluster)


def _host(view: View, work: Work, shape: Shape) -> Mask | None:
    return None if shape.host is None else view.column("names").equal(shape.host)


def _labels(view: View, work: Work, shape: Shape) -> Mask | None:
    good: Mask | None = None
    for key, value in shape.labels:
        mask = view.column("labels", key).equal(value)
        good = mask if good is None else good & mask
    return good


def _missing_labels(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    missing = dict(sorted(set(shape.labels) - set(view.labels[h].items())))
    return _say("lacks " + ", ".join(f"{k}={v}" for k, v in missing.items()), missing=missing)


def _avoid(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("names").where(lambda name: name not in shape.avoid) if shape.avoid else None


def _leaves(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("names").where(lambda name: name != shape.leaves) if shape.leaves else None


def _driver(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("drivers").equal(shape.driver) if shape.driver else None


def _datastore(view: View, work: Work, shape: Shape) -> Mask | None:
    good = np.zeros(len(view), np.bool_)
    for name in view.stores_of(shape):
        good |= view.stores[name].group >= 0
    return good


def _no_store(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    return _say(f"has no datastore{' ' + shape.datastore if shape.datastore else ''}", datastore=shape.datastore)


def _network(view: View, work: Work, shape: Shape) -> Mask | None:
    good = np.ones(len(view), np.bool_)
    for name in shape.networks:
        good &= view.nets[name].reach if name in view.nets else False
    return good


def _unreached(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    missing = [n for n in shape.networks if n not in view.nets or not view.nets[n].reach[h]]
    return _say(f"has no bridge of network {', '.join(missing)}", networks=missing)


def times(left: Ints, need: int) -> Ints:
    """Return how often need goes into what is left, below 1 for not at all. No need: MANY where nothing is owed."""
    return left // need if need > 0 else np.where(left >= 0, MANY, 0)


def _least(rooms: list[Ints]) -> Ints | None:
    found: Ints | None = None
    for room in rooms:
        found = room if found is None else np.minimum(found, room)
    return found


def _addresses(view: View, shape: Shape) -> list[Need]:
    nets = rows_of(view).nets
    drawn = [(nets[name], n) for name, n in shape.nics if name in view.nets and not view.nets[name].dhcp]
    return drawn + [(nets[name], 1) for name, _ in shape.fixed if name in view.nets]


def _fixed_addresses(view: View, work: Work, shape: Shape) -> Ints | None:
    return _least([_fixed(view, work, name, address) for name, address in shape.fixed])


def _fixed(view: View, work: Work, name: str, address: int) -> Ints:
    """Return 1 where a network gives this very address and nobody has it, else 0."""
    net = view.nets.get(name)
    if net is None or address in work.net_taken[name] or address in net.reserved:
        return np.zeros(len(view), np.int64)
    gives = np.array([any(a <= address <= b for a, b in spans) for spans in net.spans], np.int64)
    return per_host(net.group, gives)


def _no_address(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    for name, address in shape.fixed:
        if name in view.nets and not _fixed(view, work, name, address)[h]:
            taken = address in work.net_taken[name]
            return _say(
                f"address {text(address)} of network {name} is {'leased already' if taken else 'not given there'}",
                network=name, address=text(address),
            )  # fmt: skip
    for name, count in shape.nics:
        net = view.nets.get(name)
        if net is None or net.dhcp:
            continue
        left = int(work.left[rows_of(view).nets[name]][h])
        if left < count:
            whole = int(per_host(net.group, net.whole)[h])
            return _say(
                f"network {name} has {left} of {whole} addresses free, {count} needed",
                network=name, need=count, free=left, limit=whole,
            )  # fmt: skip
    return _say("no address")


def _cores(view: View, work: Work, shape: Shape) -> Ints | None:
    """Overcommit gives no instance more cores than a host has."""
    if shape.cpu_m <= view.fewest_cpus_m:
        return None
    return np.where(view.cpus_m >= shape.cpu_m, MANY, 0)


def _no_cpu(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    need, left, limit = shape.cpu_m / 1000, int(work.left[CPU, h]) / 1000, int(view.cpu_limit_m[h]) / 1000
    cores = int(view.cpus_m[h]) / 1000
    if need > cores:
        return _say(f"has {cores:g} cores, one instance needs {need:g}", need=need, free=left, limit=cores)
    return _say(f"needs {need:g} cores, {left:g} of {limit:g} are free", need=need, free=left, limit=limit)


def _no_memory(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    left, limit = int(work.left[MEMORY, h]), int(view.memory_limit_mib[h])
    return _say(
        f"needs {shape.memory_mib} MiB of memory, {left} of {limit} are free", need=shape.memory_mib, free=left,
        limit=limit,
    )  # fmt: skip


def _too_full(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    left = int(work.left[MEASURED, h])
    return _say(
        f"needs {shape.memory_mib} MiB of memory, measured use leaves {left} of {int(view.physical_mib[h])}",
        need=shape.memory_mib, free=left, limit=int(view.physical_mib[h]),
    )  # fmt: skip


def store_room(view: View, work: Work, shape: Shape, name: str, at: Ints | slice = slice(None)) -> Ints:
    """Return how often a shape's disks fit on one datastore, on the hosts at these places.

    A missing copy of the image counts once.
    """
    rows = rows_of(view)
    free = work.left[rows.free[name], at] - shape.image_mib * missing(view, work, shape.image)[at]
    return times(np.minimum(work.left[rows.alloc[name], at], free), shape.disk_mib)


def _disk(view: View, work: Work, shape: Shape) -> Ints | None:
    room: Ints | None = None
    for name in view.stores_of(shape):
        one = store_room(view, work, shape, name)
        room = one if room is None else np.maximum(room, one)
    return room


def disk_left(view: View, work: Work, shape: Shape) -> Ints:
    """Return the largest disk that fits on a datastore of each host; negative: not even a copy of the image."""
    rows, copy = rows_of(view), shape.image_mib * missing(view, work, shape.image)
    left = np.full(len(view), -1, np.int64)
    for name in view.stores_of(shape):
        left = np.maximum(left, np.minimum(work.left[rows.alloc[name]], work.left[rows.free[name]] - copy))
    return left


def _no_disk(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
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
    return _say(f"needs {shape.disk_mib} MiB of disk{image}, {where}", **best, image_mib=copy)


# Tests come first: what they say of a kind of shapes is worked out once (look.eligible).
FILTERS: tuple[Filter, ...] = (
    Filter("state", lambda v, w, s, h: _say(f"is {v.states[h]}", state=v.states[h]), _state),
    Filter("kind", lambda v, w, s, h: _say(f"runs {'s and '.join(v.kinds[h]) or 'no instance'}s"), _kind, static=True),
    Filter(
        "cluster", lambda v, w, s, h: _say(f"is in cluster {v.clusters[h]}, not {s.cluster}"), _cluster, static=True
    ),
    Filter("host", lambda v, w, s, h: _say(f"is not {s.host}"), _host, static=True),
    Filter("labels", _missing_labels, _labels, static=True),
    Filter("avoid", lambda v, w, s, h: _say("was tried before and failed"), _avoid, static=True),
    Filter("move", lambda v, w, s, h: _say("is where it is now"), _leaves, static=True),
    Filter("driver", lambda v, w, s, h: _say(f"is a {v.drivers[h]} host, not {s.driver}"), _driver, static=True),
    Filter("datastore", _no_store, _datastore),
    Filter("network", _unreached, _network),
    Filter("addresses", _no_address, needs=_addresses, room=_fixed_addresses),
    Filter("cpu", _no_cpu, needs=lambda v, s: [(CPU, s.cpu_m)], room=_cores, left=lambda v, w, s: w.left[CPU]),
    Filter("memory", _no_memory, needs=lambda v, s: [(MEMORY, s.memory_mib)], left=lambda v, w, s: w.left[MEMORY]),
    Filter(
        "measured-memory", _too_full, needs=lambda v, s: [(MEASURED, s.memory_mib)],
        left=lambda v, w, s: w.left[MEASURED],
    ),
    Filter("disk", _no_disk, room=_disk, left=disk_left),
)  # fmt: skip


def needs_of(view: View, shape: Shape) -> list[Need]:
    """Return what one copy of a shape takes of each row, disks apart: it may be on one of several datastores."""
    return [need for constraint in FILTERS if constraint.needs for need in constraint.needs(view, shape)]
