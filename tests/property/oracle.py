"""Placement said again, host by host, in plain Python without arrays: what the engine is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from control.placement.model import Cell, Guests, Hold, Net, Pool, Rule, Shape, Store, View


def _cpu_left(m: Machine) -> float:
    return m.cpus * m.cpu_overcommit - m.cpu_used_m / 1000


# Requirements, and what they say in Python.
WHERE: dict[str, Callable[[Machine, Shape], bool]] = {
    'label.rack == "r1" or label.disk == "ssd"': lambda m, s: m.labels.get("rack") == "r1" or "disk" in m.labels,
    "cpu_free >= 2 * instance.cpu": lambda m, s: _cpu_left(m) >= 2 * s.cpu_m / 1000,
    'instances < 2 and not name like "*4"': lambda m, s: m.instances < 2 and not m.name.endswith("4"),
    "memory_free_mib / 2 >= instance.memory_mib": lambda m, s: (m.memory_mib - m.memory_used_mib) / 2 >= s.memory_mib,
    'number(label.height) > 3 or arch in ["arm64"]': lambda m, s: m.arch == "arm64",
}
SPAN = 50  # addresses of each network; how many of them are free is another matter
CHANGING = ("free", "instances")  # in a requirement: it is looked at again for each, after what stays as it is


@dataclass
class Machine:
    """One host as the oracle keeps it. store_* by datastore; sizes in MiB."""

    name: str
    state: str = "ready"
    cluster: str = "default"
    labels: dict[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("vm", "container")
    cpus: int = 8
    cpu_overcommit: int = 1
    cpu_used_m: int = 0
    memory_mib: int = 4096
    memory_used_mib: int = 0
    instances: int = 0
    disk: dict[str, tuple[int, int]] = field(default_factory=dict)  # datastore -> (total, used)
    networks: tuple[str, ...] = ()
    images: frozenset[str] = frozenset()
    arch: str = "x86_64"
    capabilities: frozenset[str] = frozenset()
    window_s: float = math.inf
    devices: dict[str, int] = field(default_factory=dict)
    pins_m: int = 0
    pages: dict[int, int] = field(default_factory=dict)
    cells: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])  # thousandths of cores, MiB
    driver: str = "kvm"
    kernels: tuple[str, ...] | None = None
    promised: list[tuple[float, int, int]] = field(default_factory=list)  # from when, thousandths of cores, MiB
    shared: frozenset[str] = frozenset()  # datastores that are the same one on all hosts
    guests: list[tuple[dict[str, str], tuple[Rule, ...]]] = field(default_factory=list)
    given: set[tuple[str, int]] = field(default_factory=set)  # network, address: of those that were asked for by name
    neighbours: list[Machine] = field(default_factory=list, repr=False)  # all hosts, this one too

    def _cell(self, shape: Shape) -> list[int] | None:
        """Return the first cell with room for the shape."""
        return next((c for c in self.cells if c[0] >= shape.cpu_m and c[1] >= shape.memory_mib), None)

    def _domain(self, rule: Rule) -> list[Machine]:
        if rule.domain == "host":
            return [self]
        return [m for m in self.neighbours if m.labels.get(rule.domain) == self.labels.get(rule.domain)]

    def _keeps(self, rule: Rule, shape: Shape) -> bool:
        """Say whether a rule of the shape would be kept here."""
        if rule.on_hosts:
            return _has(self.labels, rule) == rule.together
        if rule.domain != "host" and rule.domain not in self.labels:
            return False
        there = any(_has(labels, rule) for m in self._domain(rule) for labels, _ in m.guests)
        anywhere = any(_has(labels, rule) for m in self.neighbours for labels, _ in m.guests)
        begins = rule.hard and rule.together and not anywhere and _has(dict(shape.own_labels), rule)
        return begins or there == rule.together

    def _welcome(self, shape: Shape) -> bool:
        """Say whether the shape keeps its own hard rules here, and those of all that are here already."""
        others = [
            rule for m in self.neighbours for _, rules in m.guests for rule in rules
            if rule.hard and not rule.together and not rule.on_hosts and _has(dict(shape.own_labels), rule)
            and any(one is self for one in m._domain(rule))
        ]  # fmt: skip
        return not others and all(self._keeps(rule, shape) for rule in shape.rules if rule.hard)

    def broken(self, shape: Shape) -> float:
        """Return the weight of the wishes of a shape that would be broken here."""
        return sum(rule.weight for rule in shape.rules if not rule.hard and not self._keeps(rule, shape))

    def _gives(self, name: str, address: int) -> bool:
        """Say whether nobody has this very address of a network."""
        return 1 <= address <= SPAN and not any((name, address) in m.given for m in self.neighbours)

    def _keeps_promises(self, shape: Shape, cpu_m: int, cpu_left_m: int) -> bool:
        mine = [one for one in self.promised if not shape.lifetime_s or one[0] < shape.lifetime_s]
        memory_mib = 0 if shape.hugepage_kib else shape.memory_mib  # what is an instance's alone is promised to nobody
        memory_left = self.memory_mib - self.memory_used_mib - sum(memory for _, _, memory in mine)
        cpu_fits = not cpu_m or cpu_m <= cpu_left_m - sum(cpu for _, cpu, _ in mine)
        return not mine or (cpu_fits and (not memory_mib or memory_mib <= memory_left))

    def first_failing(self, shape: Shape, pools: dict[str, list[int]], image_mib: int) -> str | None:
        """Return the first constraint, in the engine's order, that keeps the shape from this host."""
        cpu_m = 0 if shape.pinned else shape.cpu_m
        cpu_left_m = self.cpus * self.cpu_overcommit * 1000 - self.cpu_used_m
        stores = [s for s in self.disk if shape.datastore in (None, s)]
        copy = 0 if shape.image in self.images else image_mib
        satisfied = not shape.where or WHERE[shape.where](self, shape)
        changing = any(word in shape.where for word in CHANGING)
        checks = (
            ("state", self.state == "ready"),
            ("kind", shape.kind in self.kinds),
            ("cluster", shape.cluster in (None, self.cluster)),
            ("host", shape.host in (None, self.name)),
            ("labels", all(self.labels.get(k) == v for k, v in shape.labels)),
            ("avoid", self.name not in shape.avoid),
            ("move", self.name != shape.leaves),
            ("driver", shape.driver in ("", self.driver)),
            ("arch", shape.arch in ("", self.arch)),
            ("kernel", self.kernels is None or shape.kernel in self.kernels),
            ("capabilities", shape.capabilities <= self.capabilities),
            ("requires", changing or satisfied),
            ("maintenance", self.window_s > (shape.lifetime_s or 3600)),
            ("datastore", bool(stores)),
            ("network", all(name in self.networks for name, _ in (*shape.nics, *shape.fixed))),
            ("requires", satisfied),
            ("addresses", all(len(pools[name]) >= _drawn(shape, name) for name in shape.networks)
             and all(self._gives(*one) for one in shape.fixed)),
            ("rules", self._welcome(shape)),
            ("devices", all(self.devices.get(name, 0) >= n for name, n in shape.pci)),
            ("cpu", shape.cpu_m <= self.cpus * 1000 and (not cpu_m or cpu_m <= cpu_left_m)),
            ("memory", shape.hugepage_kib or shape.memory_mib <= self.memory_mib - self.memory_used_mib),
            ("pinning", not shape.pinned or shape.cpu_m <= self.pins_m),
            ("hugepages", not shape.hugepage_kib or self.pages.get(shape.hugepage_kib, 0) >= shape.memory_mib),
            ("numa", not shape.one_cell or self._cell(shape) is not None),
            ("promised", self._keeps_promises(shape, cpu_m, cpu_left_m)),
            ("disk", any(self._fits(s, shape, copy) for s in stores)),
        )
        return next((name for name, good in checks if not good), None)

    def _fits(self, store: str, shape: Shape, copy: int) -> bool:
        total, used = self.disk[store]
        return shape.disk_mib <= total - used - copy if shape.disk_mib else total - used - copy >= 0

    def take(self, shape: Shape, store: str, pools: dict[str, list[int]]) -> None:
        """Take a copy of the shape out of this host."""
        self.cpu_used_m += 0 if shape.pinned else shape.cpu_m
        self.memory_used_mib += 0 if shape.hugepage_kib else shape.memory_mib
        self.instances += 1
        total, used = self.disk[store]
        copy = 0 if shape.image in self.images else shape.image_mib
        for m in [self, *(self.neighbours if store in self.shared else [])]:
            if store in m.disk:
                m.disk[store] = (total, used + shape.disk_mib + copy)
        self.images |= {shape.image}
        for name in shape.networks:
            del pools[name][: _drawn(shape, name)]
        self.given |= set(shape.fixed)
        for name, count in shape.pci:
            self.devices[name] -= count
        if shape.pinned:
            self.pins_m -= shape.cpu_m
        if shape.hugepage_kib:
            self.pages[shape.hugepage_kib] -= shape.memory_mib
        if shape.one_cell and (cell := self._cell(shape)):
            cell[0] -= shape.cpu_m
            cell[1] -= shape.memory_mib
        self.guests.append((dict(shape.own_labels), shape.rules))


def _drawn(shape: Shape, network: str) -> int:
    return dict(shape.nics).get(network, 0) + sum(name == network for name, _ in shape.fixed)


def _has(labels: Mapping[str, str], rule: Rule) -> bool:
    return all(labels.get(key) == value for key, value in rule.labels)


def neighbours(machines: list[Machine]) -> list[Machine]:
    """Let each host know all."""
    for one in machines:
        one.neighbours = machines
    return machines


def view_of(machines: list[Machine], pools: dict[str, list[int]]) -> View:
    """Return the same cloud as arrays; every network is a pool on the hosts that name it."""
    n = len(machines)
    stores = sorted({name for m in machines for name in m.disk})
    images = sorted({sha for m in machines for sha in m.images})
    return View(
        names=tuple(m.name for m in machines), states=tuple(m.state for m in machines), unknown=np.zeros(n, np.bool_),
        clusters=tuple(m.cluster for m in machines), labels=tuple(m.labels for m in machines),
        kinds=tuple(m.kinds for m in machines),
        cpus_m=_ints(m.cpus * 1000 for m in machines),
        cpu_limit_m=_ints(m.cpus * m.cpu_overcommit * 1000 for m in machines),
        cpu_left_m=_ints(m.cpus * m.cpu_overcommit * 1000 - m.cpu_used_m for m in machines),
        memory_limit_mib=_ints(m.memory_mib for m in machines),
        memory_left_mib=_ints(m.memory_mib - m.memory_used_mib for m in machines),
        physical_mib=_ints(m.memory_mib for m in machines), instances=_ints(m.instances for m in machines),
        stores={name: _store(machines, name) for name in stores},
        nets={name: _net(machines, name, pool) for name, pool in pools.items()},
        images={sha: np.array([sha in m.images for m in machines], np.bool_) for sha in images},
        archs=tuple(m.arch for m in machines), kernels=tuple(m.kernels for m in machines),
        capabilities=tuple(m.capabilities for m in machines),
        windows_s=np.array([m.window_s for m in machines], np.float64),
        pci={d: _pool(m.devices.get(d, 0) for m in machines) for d in {d for m in machines for d in m.devices}},
        pins=_pool(m.pins_m for m in machines),
        cells=tuple(
            Cell(_pool(m.cells[n][0] for m in machines), _pool(m.cells[n][1] for m in machines)) for n in range(2)
        ),
        hugepages={k: _pool(m.pages.get(k, 0) for m in machines) for k in {k for m in machines for k in m.pages}},
        guests=_guests(machines), drivers=tuple(m.driver for m in machines),
        holds=tuple(Hold(h, *one, "later") for h, m in enumerate(machines) for one in m.promised),
    )  # fmt: skip


def _pool(values: object) -> Pool:
    left = _ints(values)
    return Pool(left, left.copy())


def _guests(machines: list[Machine]) -> Guests:
    found = [(h, labels, rules) for h, m in enumerate(machines) for labels, rules in m.guests]
    return Guests(
        _ints(h for h, _, _ in found), tuple(tuple(sorted(labels.items())) for _, labels, _ in found),
        tuple(rules for _, _, rules in found),
    )  # fmt: skip


def _ints(values: object) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(list(values), np.int64)  # type: ignore[call-overload]


def _store(machines: list[Machine], name: str) -> Store:
    with_it = [h for h, m in enumerate(machines) if name in m.disk]
    if any(name in m.shared for m in machines):
        total, used = machines[with_it[0]].disk[name]
        return Store(
            _ints(0 if h in with_it else -1 for h in range(len(machines))), _ints([total]), _ints([total - used]),
            _ints([total - used]), np.zeros(len(machines), np.bool_),
        )  # fmt: skip
    left = _ints(machines[h].disk[name][0] - machines[h].disk[name][1] for h in with_it)
    return Store(
        group=_ints(with_it.index(h) if h in with_it else -1 for h in range(len(machines))),
        limit_mib=_ints(machines[h].disk[name][0] for h in with_it), left_mib=left, free_mib=left.copy(),
        unseen=np.zeros(len(machines), np.bool_),
    )  # fmt: skip


def _net(machines: list[Machine], name: str, pool: list[int]) -> Net:
    there = [name in m.networks for m in machines]
    return Net(
        reach=np.array(there, np.bool_), dhcp=False, group=_ints(0 if yes else -1 for yes in there),
        left=_ints([len(pool)]), whole=_ints([len(pool)]), spans=(((1, SPAN),),),
    )  # fmt: skip
