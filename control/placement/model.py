"""What placement looks at: hosts as arrays, and requests by their shape. No database, no clock.

Cores are counted in whole thousandths, so that sums are exact. What several hosts draw from together (the addresses of
a pool, a shared datastore) is a group: `group[h]` says from which one host h draws, -1 = it has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
MANY = 2**40  # "no limit" as a count


def millis(cpu: float) -> int:
    """Return cores as thousandths, rounded up (1e-6 of slack for sums of floats)."""
    return math.ceil(cpu * 1000 - 1e-3)


@dataclass(frozen=True)
class Shape:
    """All that makes two instances interchangeable. Sizes in MiB; cluster, host, datastore None: any."""

    kind: str
    cpu_m: int
    memory_mib: int
    disk_mib: int
    image: str = ""  # sha256, "" = not known
    image_mib: int = 0  # what a copy of it takes
    disk_min_mib: int = 0  # no smaller disk would do
    cluster: str | None = None
    host: str | None = None
    datastore: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    nics: tuple[tuple[str, int], ...] = ()  # network -> NICs that take any address of it
    fixed: tuple[tuple[str, int], ...] = ()  # network, address
    avoid: frozenset[str] = frozenset()  # hosts where it failed before
    leaves: str = ""  # the host that it is to move away from
    driver: str = ""  # only hosts with this driver: its disks are made for that


@dataclass(frozen=True)
class Request:
    """One instance to be placed. key: whose choice it is (an operation's id); name: for messages."""

    key: str
    name: str
    shape: Shape


@dataclass(frozen=True)
class Store:
    """A datastore over all hosts. left: what may still be allocated; free: what was measured, times overcommit."""

    group: Ints  # per host
    limit_mib: Ints  # per group, as the others
    left_mib: Ints
    free_mib: Ints
    unseen: Mask  # per host: made after the last look at it


@dataclass(frozen=True)
class Net:
    """A network over all hosts. dhcp: it has no addresses to run out of. taken: of those in `span`, by group."""

    reach: Mask
    dhcp: bool
    group: Ints  # per host
    left: Ints  # per group: free addresses
    whole: Ints  # per group: all that it could ever give
    spans: tuple[tuple[tuple[int, int], ...], ...] = ()  # per group: (first, last) of its ranges
    taken: frozenset[int] = frozenset()
    reserved: frozenset[int] = frozenset()


@dataclass(frozen=True)
class View:
    """The cloud at one moment. unknown: not enrolled or not looked at yet, so nothing can be said of it."""

    names: tuple[str, ...]
    states: tuple[str, ...]
    unknown: Mask
    clusters: tuple[str, ...]
    labels: tuple[Mapping[str, str], ...]
    kinds: tuple[tuple[str, ...], ...]
    drivers: tuple[str, ...]
    cpus_m: Ints  # declared cores
    cpu_limit_m: Ints  # with overcommit
    cpu_left_m: Ints
    memory_limit_mib: Ints
    memory_left_mib: Ints
    physical_mib: Ints  # memory of the machine
    instances: Ints
    stores: Mapping[str, Store]
    nets: Mapping[str, Net]
    images: Mapping[str, Mask]  # sha256 -> hosts with a copy

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class Work:
    """What is left while a batch is being placed: copies of the view's arrays, which shrink."""

    cpu_left_m: Ints
    memory_left_mib: Ints
    measured_left_mib: Floats  # infinite where nothing was measured
    load_ratio: Floats  # measured use of the cores; 0 where nothing was measured
    instances: Ints
    store_left: dict[str, Ints]
    store_free: dict[str, Ints]
    net_left: dict[str, Ints]
    net_taken: dict[str, set[int]]
    images: dict[str, Mask]
    may_wait: bool = False  # whether unreachable hosts count as well (see engine.could_ever)


@dataclass(frozen=True)
class Choice:
    """Where a request goes; host None: nowhere. record: why, shared by all that were decided together."""

    request: Request
    host: int | None
    datastore: str | None
    position: int
    record: dict[str, Any] = field(compare=False)


def start(view: View, features: Mapping[str, Any] | None = None) -> Work:
    """Return the work state for a view, with measured figures of hosts where there are enough samples."""
    measured = (features or {}).get("hosts") or {}
    left = np.full(len(view), np.inf)
    load = np.zeros(len(view))
    for index, name in enumerate(view.names):
        seen = measured.get(name) or {}
        if int(seen.get("samples") or 0) < MIN_SAMPLES:
            continue
        if seen.get("memory_used_mib") is not None:
            left[index] = float(view.physical_mib[index]) - float(seen["memory_used_mib"])
        load[index] = float(seen.get("cpu_used_ratio") or 0.0)
    return Work(
        view.cpu_left_m.copy(), view.memory_left_mib.copy(), left, load, view.instances.copy(),
        {name: store.left_mib.copy() for name, store in view.stores.items()},
        {name: store.free_mib.copy() for name, store in view.stores.items()},
        {name: net.left.copy() for name, net in view.nets.items()},
        {name: set(net.taken) for name, net in view.nets.items()},
        {sha: mask.copy() for sha, mask in view.images.items()},
    )  # fmt: skip


def empty(view: View) -> Work:
    """Return the work state of the same cloud without any instance, nothing measured, every lease free."""
    return Work(
        view.cpu_limit_m.copy(), view.memory_limit_mib.copy(), np.full(len(view), np.inf), np.zeros(len(view)),
        np.zeros(len(view), np.int64),
        {name: store.limit_mib.copy() for name, store in view.stores.items()},
        {name: store.limit_mib.copy() for name, store in view.stores.items()},
        {name: net.whole.copy() for name, net in view.nets.items()},
        {name: set() for name in view.nets},
        {sha: mask.copy() for sha, mask in view.images.items()},
        may_wait=True,
    )  # fmt: skip


MIN_SAMPLES = 3  # of a host, before what was measured counts


def per_host(group: Ints, values: Ints, absent: int = 0) -> Ints:
    """Return each host's value out of its group's; absent where it has no group."""
    if not len(values):
        return np.full(len(group), absent, np.int64)
    return np.where(group >= 0, values[np.clip(group, 0, None)], absent)


def times(left: Ints | Floats, need: int) -> Ints:
    """Return how often need goes into what is left; MANY where nothing is needed and nothing is owed."""
    if need <= 0:
        return np.where(left >= 0, MANY, 0).astype(np.int64)
    bounded = np.clip(left, 0, float(MANY)) if left.dtype.kind == "f" else np.clip(left, 0, MANY)
    return (bounded // need).astype(np.int64)


def mask_of(flags: Sequence[bool]) -> Mask:
    """Return a mask of flags, of the right type also when there are none."""
    return np.array(flags, dtype=np.bool_)
