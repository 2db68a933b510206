"""Constraints, as a table: each says how often a shape fits on every host, and for one host why not, with numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from control.addresses import text
from control.placement.model import MANY, Ints, Shape, View, Work, mask_of, per_host, times
from core.states import HostState

Room = Callable[[View, Work, Shape], Ints]  # how often the shape fits, by this constraint alone
Reason = Callable[[View, Work, Shape, int], dict[str, Any]]  # why not at all on host h: text and numbers


@dataclass(frozen=True)
class Filter:
    """One constraint. static: instances that end do not change it, so it may mean that nothing ever fits."""

    name: str
    room: Room
    reason: Reason
    static: bool = False


def _all_or_none(flags: list[bool]) -> Ints:
    return np.where(mask_of(flags), MANY, 0).astype(np.int64)


def _say(text: str, **numbers: Any) -> dict[str, Any]:
    return {"reason": text, **numbers}


def _state(view: View, work: Work, shape: Shape) -> Ints:
    good = {HostState.READY, HostState.UNREACHABLE, "backed-off"} if work.may_wait else {HostState.READY}
    return _all_or_none([state in good for state in view.states])


def _kind(view: View, work: Work, shape: Shape) -> Ints:
    return _all_or_none([shape.kind in kinds for kinds in view.kinds])


def _cluster(view: View, work: Work, shape: Shape) -> Ints:
    return _all_or_none([shape.cluster in (None, cluster) for cluster in view.clusters])


def _host(view: View, work: Work, shape: Shape) -> Ints:
    return _all_or_none([shape.host in (None, name) for name in view.names])


def _labels(view: View, work: Work, shape: Shape) -> Ints:
    wanted = set(shape.labels)
    return _all_or_none([wanted <= set(labels.items()) for labels in view.labels])


def _missing_labels(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    missing = dict(sorted(set(shape.labels) - set(view.labels[h].items())))
    return _say("lacks " + ", ".join(f"{k}={v}" for k, v in missing.items()), missing=missing)


def _avoid(view: View, work: Work, shape: Shape) -> Ints:
    return _all_or_none([name not in shape.avoid for name in view.names])


def _leaves(view: View, work: Work, shape: Shape) -> Ints:
    return _all_or_none([name != shape.leaves for name in view.names])


def _driver(view: View, work: Work, shape: Shape) -> Ints:
    return _all_or_none([shape.driver in ("", driver) for driver in view.drivers])


def _network(view: View, work: Work, shape: Shape) -> Ints:
    good = np.ones(len(view), np.bool_)
    for name in networks_of(shape):
        good &= view.nets[name].reach if name in view.nets else False
    return np.where(good, MANY, 0).astype(np.int64)


def networks_of(shape: Shape) -> list[str]:
    """Return the networks that a shape has NICs in, each once."""
    return list(dict.fromkeys([name for name, _ in shape.nics] + [name for name, _ in shape.fixed]))


def _unreached(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    missing = [n for n in networks_of(shape) if n not in view.nets or not view.nets[n].reach[h]]
    return _say(f"has no bridge of network {', '.join(missing)}", networks=missing)


def _addresses(view: View, work: Work, shape: Shape) -> Ints:
    room = np.full(len(view), MANY, np.int64)
    for name, count in shape.nics:
        net = view.nets.get(name)
        if net is not None and not net.dhcp:
            room = np.minimum(room, times(per_host(net.group, work.net_left[name]), count))
    for name, address in shape.fixed:
        room = np.minimum(room, _fixed(view, work, name, address))
    return room


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
        left = int(per_host(net.group, work.net_left[name])[h])
        if left < count:
            whole = int(per_host(net.group, net.whole)[h])
            return _say(
                f"network {name} has {left} of {whole} addresses free, {count} needed",
                network=name, need=count, free=left, limit=whole,
            )  # fmt: skip
    return _say("no address")


def _cpu(view: View, work: Work, shape: Shape) -> Ints:
    return np.where(view.cpus_m >= shape.cpu_m, times(work.cpu_left_m, shape.cpu_m), 0)


def _no_cpu(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    need, left, limit = shape.cpu_m / 1000, int(work.cpu_left_m[h]) / 1000, int(view.cpu_limit_m[h]) / 1000
    cores = int(view.cpus_m[h]) / 1000
    if need > cores:
        return _say(f"has {cores:g} cores, one instance needs {need:g}", need=need, free=left, limit=cores)
    return _say(f"needs {need:g} cores, {left:g} of {limit:g} are free", need=need, free=left, limit=limit)


def _memory(view: View, work: Work, shape: Shape) -> Ints:
    return times(work.memory_left_mib, shape.memory_mib)


def _no_memory(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    left, limit = int(work.memory_left_mib[h]), int(view.memory_limit_mib[h])
    return _say(
        f"needs {shape.memory_mib} MiB of memory, {left} of {limit} are free", need=shape.memory_mib, free=left,
        limit=limit,
    )  # fmt: skip


def _measured(view: View, work: Work, shape: Shape) -> Ints:
    return times(work.measured_left_mib, shape.memory_mib)


def _too_full(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    left = int(work.measured_left_mib[h])
    return _say(
        f"needs {shape.memory_mib} MiB of memory, measured use leaves {left} of {int(view.physical_mib[h])}",
        need=shape.memory_mib, free=left, limit=int(view.physical_mib[h]),
    )  # fmt: skip


def stores_of(view: View, shape: Shape) -> list[str]:
    """Return the datastores that a shape may use."""
    if shape.datastore is None:
        return list(view.stores)
    return [shape.datastore] if shape.datastore in view.stores else []


def _datastore(view: View, work: Work, shape: Shape) -> Ints:
    good = np.zeros(len(view), np.bool_)
    for name in stores_of(view, shape):
        good |= view.stores[name].group >= 0
    return np.where(good, MANY, 0).astype(np.int64)


def _no_store(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    return _say(f"has no datastore{' ' + shape.datastore if shape.datastore else ''}", datastore=shape.datastore)


def store_room(view: View, work: Work, shape: Shape, name: str) -> Ints:
    """Return how often a shape's disks fit on one datastore, on every host; a missing copy of the image counts once."""
    store = view.stores[name]
    allocated = times(per_host(store.group, work.store_left[name], -1), shape.disk_mib)
    free = per_host(store.group, work.store_free[name], -1)
    cached = work.images.get(shape.image)
    copy = np.full(len(view), shape.image_mib) if cached is None else np.where(cached, 0, shape.image_mib)
    return np.minimum(allocated, times(free - copy, shape.disk_mib))


def store_room_at(view: View, work: Work, shape: Shape, name: str, h: int) -> int:
    """Return how often a shape's disks fit on one datastore, on one host."""
    group = int(view.stores[name].group[h])
    if group < 0:
        return 0
    cached = work.images.get(shape.image)
    copy = 0 if cached is not None and cached[h] else shape.image_mib
    left, free = int(work.store_left[name][group]), int(work.store_free[name][group]) - copy
    if shape.disk_mib <= 0:
        return MANY if left >= 0 and free >= 0 else 0
    return max(0, min(left, free) // shape.disk_mib)


def _disk(view: View, work: Work, shape: Shape) -> Ints:
    room = np.zeros(len(view), np.int64)
    for name in stores_of(view, shape):
        room = np.maximum(room, store_room(view, work, shape, name))
    return room


def _no_disk(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    best: dict[str, Any] = {}
    for name in stores_of(view, shape):
        store = view.stores[name]
        if store.group[h] < 0:
            continue
        left = int(per_host(store.group, np.minimum(work.store_left[name], work.store_free[name]))[h])
        if not best or left > best["free"]:
            best = {"datastore": name, "need": shape.disk_mib, "free": left,
                    "limit": int(per_host(store.group, store.limit_mib)[h])}  # fmt: skip
    cached = work.images.get(shape.image)
    copy = 0 if cached is not None and cached[h] else shape.image_mib
    image = f" and {copy} for a copy of the image" if copy else ""
    where = f"{best['free']} of {best['limit']} are free on {best['datastore']}"
    return _say(f"needs {shape.disk_mib} MiB of disk{image}, {where}", **best, image_mib=copy)


FILTERS: tuple[Filter, ...] = (
    Filter("state", _state, lambda v, w, s, h: _say(f"is {v.states[h]}", state=v.states[h])),
    Filter("kind", _kind, lambda v, w, s, h: _say(f"runs {'s and '.join(v.kinds[h]) or 'no instance'}s"), True),
    Filter("cluster", _cluster, lambda v, w, s, h: _say(f"is in cluster {v.clusters[h]}, not {s.cluster}"), True),
    Filter("host", _host, lambda v, w, s, h: _say(f"is not {s.host}"), True),
    Filter("labels", _labels, _missing_labels, True),
    Filter("avoid", _avoid, lambda v, w, s, h: _say("was tried before and failed"), True),
    Filter("move", _leaves, lambda v, w, s, h: _say("is where it is now"), True),
    Filter("driver", _driver, lambda v, w, s, h: _say(f"is a {v.drivers[h]} host, not {s.driver}"), True),
    Filter("datastore", _datastore, _no_store),
    Filter("network", _network, _unreached),
    Filter("addresses", _addresses, _no_address),
    Filter("cpu", _cpu, _no_cpu),
    Filter("memory", _memory, _no_memory),
    Filter("measured-memory", _measured, _too_full),
    Filter("disk", _disk, _no_disk),
)
