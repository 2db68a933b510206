"""What placement looks at: hosts as arrays, and requests by their shape. No database, no clock.

Cores are counted in whole thousandths, so that sums are exact. What several hosts draw from together (the addresses of
a pool, a shared datastore) is a group: `group[h]` says from which one host h draws, -1 = it has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
At = Ints | slice  # places of hosts
ALL = slice(None)
MANY = 2**40  # "no limit" as a count


def millis(cpu: float) -> int:
    """Return cores as thousandths, rounded up (1e-6 of slack for sums of floats)."""
    return math.ceil(cpu * 1000 - 1e-3)


@dataclass(frozen=True)
class Rule:
    """Together with, or apart from, instances that have labels (on_hosts: hosts that have them).

    domain: "host", or a label of hosts; hard: never broken, else breaking it costs weight.
    """

    together: bool
    labels: tuple[tuple[str, str], ...]
    domain: str = "host"
    hard: bool = True
    weight: float = 1.0
    on_hosts: bool = False

    def __str__(self) -> str:
        what = ", ".join(f"{key}={value}" for key, value in self.labels)
        return f"{'together with' if self.together else 'apart from'} {what} by {self.domain}"


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
    arch: str = ""
    kernel: str = ""  # that its image names, for hosts that boot no disk by itself
    capabilities: frozenset[str] = frozenset()  # that the host must have
    where: str = ""  # a requirement (expressions.py)
    rank: str = ""  # a number: hosts where it is higher come first, whatever the policy
    own_labels: tuple[tuple[str, str], ...] = ()  # of the instance
    rules: tuple[Rule, ...] = ()
    pci: tuple[tuple[str, int], ...] = ()  # class of devices -> how many
    pinned: bool = False  # cores of its own
    one_cell: bool = False  # all its cores and memory out of one NUMA cell
    hugepage_kib: int = 0  # its memory out of pages of this size
    lifetime_s: int = 0  # how long it is expected to be there; 0 = not known
    reservation: str = ""  # what it may take of what is promised for later
    ignores: tuple[Rule, ...] = ()  # rules of others that do not bind it: to tell what if

    def __hash__(self) -> int:
        """Return a hash of what tells nearly all shapes apart: one of all that they have takes three times as long."""
        return hash((self.cpu_m, self.memory_mib, self.disk_mib, self.image, self.host, self.own_labels))

    @cached_property
    def networks(self) -> tuple[str, ...]:
        """Return the networks that it has NICs in, each once."""
        return tuple(dict.fromkeys([name for name, _ in self.nics] + [name for name, _ in self.fixed]))

    @cached_property
    def eligibility(self) -> Hashable:
        """Return all that decides on which hosts it may be, whatever is left there; maintenance apart."""
        return (
            self.kind, self.cluster, self.host, self.datastore, self.labels, self.networks, self.avoid, self.leaves,
            self.driver, self.arch, self.kernel, self.capabilities, self.where,
        )  # fmt: skip


class Request(NamedTuple):
    """One instance to be placed. key: whose choice it is (an operation's id); name: for messages.

    priority: higher ones first when there is not room for all; gang: all that name it are placed, or none.
    """

    key: str
    name: str
    shape: Shape
    owner: str = ""
    priority: int = 0
    gang: str = ""


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
class Pool:
    """What all hosts have of one kind: in all, and what is left of it."""

    limit: Ints
    left: Ints


@dataclass(frozen=True)
class Cell:
    """One NUMA cell of all hosts (0 where a host has fewer): thousandths of cores and MiB for those bound to a cell.

    pages: KiB of a huge page -> MiB in such pages, for those whose memory is of them.
    """

    cpu_m: Pool
    memory_mib: Pool
    pages: Mapping[int, Pool] = field(default_factory=dict)


@dataclass(frozen=True)
class Guests:
    """What runs already, as far as rules are about it; one place per instance."""

    host: Ints
    labels: tuple[tuple[tuple[str, str], ...], ...]
    rules: tuple[tuple[Rule, ...], ...]
    names: tuple[str, ...] = ()  # () = not known


@dataclass(frozen=True)
class Hold:
    """Room on a host that is promised to something else from a moment on."""

    host: int
    begins_s: float  # from now
    cpu_m: int
    memory_mib: int
    what: str


class Column:
    """One attribute of all hosts, its values numbered, so that a test is made once per value."""

    def __init__(self, values: Sequence[Any]) -> None:
        """Number the values, which must be hashable."""
        index = {value: code for code, value in enumerate(dict.fromkeys(values))}
        self.values = tuple(index)
        self.codes = np.fromiter(map(index.__getitem__, values), np.intp, len(values))

    def where(self, test: Callable[[Any], bool]) -> Mask:
        """Return on which hosts the value passes a test."""
        return mask_of([test(value) for value in self.values])[self.codes]

    def equal(self, wanted: Any) -> Mask:
        """Return on which hosts the value is this one."""
        return self.where(lambda value: bool(value == wanted))


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
    learned: Mask | None = None  # where it is what is used, not what is allocated, that leaves no more cores
    archs: tuple[str | None, ...] = ()  # () = not known, as in what follows
    kernels: tuple[tuple[str, ...] | None, ...] = ()  # that it boots, and nothing else; None: it boots disks
    capabilities: tuple[frozenset[str], ...] = ()
    pci: Mapping[str, Pool] = field(default_factory=dict)  # by class of devices
    pins: Pool | None = None  # thousandths of cores that may be pinned
    cells: tuple[Cell, ...] = ()
    hugepages: Mapping[int, Pool] = field(default_factory=dict)  # KiB of a page -> MiB
    guests: Guests | None = None
    windows_s: Floats | None = None  # from now to the next maintenance; infinite where there is none
    holds: tuple[Hold, ...] = ()
    held: Mapping[str, float] = field(default_factory=dict)  # owner -> largest share of all cores or memory it has
    policies: Mapping[str, str] = field(default_factory=dict)  # cluster -> the policy that it names

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def rank(self) -> Ints:
        """Return each host's place by name: what decides between equals, whatever the order of the hosts."""
        rank = np.empty(len(self), np.int64)
        rank[np.array(sorted(range(len(self)), key=self.names.__getitem__), np.intp)] = np.arange(len(self))
        return rank

    @cached_property
    def last_first(self) -> Ints:
        """Return the hosts by name, the last one first."""
        return np.argsort(-self.rank)

    @cached_property
    def fewest_cpus_m(self) -> int:
        """Return the cores of the host that has fewest."""
        return int(self.cpus_m.min(initial=MANY))

    @cached_property
    def kept(self) -> dict[Hashable, Any]:
        """Return what was worked out from this view before, by what it was asked for."""
        return {}

    def column(self, name: str, key: str | None = None) -> Column:
        """Return an attribute of all hosts; key: of a mapping, None where a host's has no such key."""
        found = self.kept.get(("column", name, key))
        if found is None:
            values: Sequence[Any] = getattr(self, name) or (None,) * len(self)
            found = Column(values if key is None else [one.get(key) for one in values])
            self.kept["column", name, key] = found
        return found

    def stores_of(self, shape: Shape) -> list[str]:
        """Return the datastores that a shape may use."""
        if shape.datastore is None:
            return list(self.stores)
        return [shape.datastore] if shape.datastore in self.stores else []


class Choice(NamedTuple):
    """Where a request goes; host None: nowhere. record: why, shared by all that were decided together."""

    request: Request
    host: int | None
    datastore: str | None
    position: int
    record: dict[str, Any]


def per_host(group: Ints, values: Ints, absent: int = 0) -> Ints:
    """Return each host's value out of its group's; absent where it has no group."""
    if not len(values):
        return np.full(len(group), absent, np.int64)
    return np.where(group >= 0, values[np.clip(group, 0, None)], absent)


def mask_of(flags: Sequence[bool]) -> Mask:
    """Return a mask of flags, of the right type also when there are none."""
    return np.array(flags, dtype=np.bool_)
