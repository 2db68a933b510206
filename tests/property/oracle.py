"""Placement said again, host by host, in plain Python without arrays: what the engine is held against."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from control.placement.model import Net, Shape, Store, View


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

    def first_failing(self, shape: Shape, pools: dict[str, list[int]], image_mib: int) -> str | None:
        """Return the first constraint, in the engine's order, that keeps the shape from this host."""
        stores = [s for s in self.disk if shape.datastore in (None, s)]
        copy = 0 if shape.image in self.images else image_mib
        checks = (
            ("state", self.state == "ready"),
            ("kind", shape.kind in self.kinds),
            ("cluster", shape.cluster in (None, self.cluster)),
            ("host", shape.host in (None, self.name)),
            ("labels", all(self.labels.get(k) == v for k, v in shape.labels)),
            ("avoid", self.name not in shape.avoid),
            ("datastore", bool(stores)),
            ("network", all(name in self.networks for name, _ in shape.nics)),
            ("addresses", all(len(pools[name]) >= count for name, count in shape.nics)),
            ("cpu", shape.cpu_m <= min(self.cpus * 1000, self.cpus * self.cpu_overcommit * 1000 - self.cpu_used_m)),
            ("memory", shape.memory_mib <= self.memory_mib - self.memory_used_mib),
            ("disk", any(self._fits(s, shape, copy) for s in stores)),
        )
        return next((name for name, good in checks if not good), None)

    def _fits(self, store: str, shape: Shape, copy: int) -> bool:
        total, used = self.disk[store]
        return shape.disk_mib <= total - used - copy if shape.disk_mib else total - used - copy >= 0

    def take(self, shape: Shape, store: str, pools: dict[str, list[int]]) -> None:
        """Take a copy of the shape out of this host."""
        self.cpu_used_m += shape.cpu_m
        self.memory_used_mib += shape.memory_mib
        self.instances += 1
        total, used = self.disk[store]
        copy = 0 if shape.image in self.images else shape.image_mib
        self.disk[store] = (total, used + shape.disk_mib + copy)
        self.images |= {shape.image}
        for name, count in shape.nics:
            del pools[name][:count]


def view_of(machines: list[Machine], pools: dict[str, list[int]]) -> View:
    """Return the same cloud as arrays; every network is a pool on the hosts that name it."""
    n = len(machines)
    stores = sorted({name for m in machines for name in m.disk})
    images = sorted({sha for m in machines for sha in m.images})
    return View(
        names=tuple(m.name for m in machines), states=tuple(m.state for m in machines), unknown=np.zeros(n, np.bool_),
        clusters=tuple(m.cluster for m in machines), labels=tuple(m.labels for m in machines),
        kinds=tuple(m.kinds for m in machines), drivers=("fake",) * n,
        cpus_m=_ints(m.cpus * 1000 for m in machines),
        cpu_limit_m=_ints(m.cpus * m.cpu_overcommit * 1000 for m in machines),
        cpu_left_m=_ints(m.cpus * m.cpu_overcommit * 1000 - m.cpu_used_m for m in machines),
        memory_limit_mib=_ints(m.memory_mib for m in machines),
        memory_left_mib=_ints(m.memory_mib - m.memory_used_mib for m in machines),
        physical_mib=_ints(m.memory_mib for m in machines), instances=_ints(m.instances for m in machines),
        stores={name: _store(machines, name) for name in stores},
        nets={name: _net(machines, name, pool) for name, pool in pools.items()},
        images={sha: np.array([sha in m.images for m in machines], np.bool_) for sha in images},
    )  # fmt: skip


def _ints(values: object) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(list(values), np.int64)  # type: ignore[call-overload]


def _store(machines: list[Machine], name: str) -> Store:
    with_it = [h for h, m in enumerate(machines) if name in m.disk]
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
        left=_ints([len(pool)]), whole=_ints([len(pool)]), spans=(((1, max(1, len(pool))),),),
    )  # fmt: skip
