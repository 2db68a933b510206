"""A made-up cloud and made-up requests, by a seed: what `scripts/bench placement` places, and how an answer is checked.

20 templates ask for a cluster, a datastore, a network and labels of hosts; 15 flavours give the sizes. 30 % of the
templates need one NUMA cell, 5 % a GPU; of 10 % no two of a flavour may share a host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from control.placement.batch import runs
from control.placement.model import Cell, Choice, Ints, Mask, Net, Pool, Request, Rule, Shape, Store, View

GIB = 1024
SEED = 20261126
TEMPLATES, FLAVOURS = 20, 15
_APART = (7, 13)  # templates of which no two of a flavour may share a host
HOST_CPUS, HOST_GIB = (48, 64, 96), (192, 256, 384)
STORES, NETS, CLUSTERS = ("ssd", "hdd"), ("lan", "dmz", "lab"), ("c0", "c1", "c2", "c3")


def cloud(hosts: int, seed: int = SEED) -> View:
    """Return a cloud of empty hosts of three sizes."""
    rng = np.random.default_rng(seed)
    size = rng.integers(0, len(HOST_CPUS), hosts)
    cpus, memory = np.array(HOST_CPUS)[size] * 1000, np.array(HOST_GIB)[size] * GIB
    return View(
        names=tuple(f"h{n:05}" for n in range(hosts)), states=("ready",) * hosts, unknown=np.zeros(hosts, np.bool_),
        clusters=tuple(CLUSTERS[n] for n in rng.integers(0, len(CLUSTERS), hosts)),
        labels=tuple({"rack": f"r{n // 40}", "tier": "gold" if n % 3 else "base"} for n in range(hosts)),
        kinds=(("vm",),) * hosts, drivers=("kvm",) * hosts, cpus_m=cpus, cpu_limit_m=cpus, cpu_left_m=cpus,
        memory_limit_mib=memory, memory_left_mib=memory, physical_mib=memory, instances=np.zeros(hosts, np.int64),
        stores={name: _store(rng.random(hosts) < 0.8, 4096 * GIB) for name in STORES},
        nets={name: _net(rng.random(hosts) < 0.8, 1_000_000) for name in NETS}, images={},
        pci={"gpu": _pool(np.where(np.arange(hosts) % 2, 8, 0))},
        cells=(Cell(_pool(cpus // 2), _pool(memory // 2)),) * 2,
    )  # fmt: skip


def _pool(limit: Ints) -> Pool:
    return Pool(limit, limit.copy())


def _store(there: Mask, mib: int) -> Store:
    size = int(there.sum())
    limit = np.full(size, mib, np.int64)
    group = np.where(there, np.cumsum(there) - 1, -1)
    return Store(group, limit, limit.copy(), limit.copy(), np.zeros(len(there), np.bool_))


def _net(there: Mask, addresses: int) -> Net:
    left = np.array([addresses], np.int64)
    return Net(there, False, np.where(there, 0, -1), left, left.copy(), (((1, addresses),),))


def templates(seed: int = SEED) -> list[Shape]:
    """Return shapes without sizes: what templates ask of a host."""
    rng = np.random.default_rng(seed + 1)
    return [
        Shape(
            "vm", 0, 0, 0, image=f"image{n}", image_mib=2 * GIB,
            cluster=None if n % 3 else CLUSTERS[rng.integers(len(CLUSTERS))], datastore=STORES[rng.integers(2)],
            labels=(("tier", "gold"),) if n % 2 else (), nics=((NETS[rng.integers(len(NETS))], 1),),
            one_cell=n % 10 in (2, 5, 8), pci=(("gpu", 1),) if n == 4 else (),
            own_labels=(("template", str(n)),) if n in _APART else (),
        )
        for n in range(TEMPLATES)
    ]  # fmt: skip


def requests(count: int, seed: int = SEED, *, distinct: bool = False) -> list[Request]:
    """Return that many requests of up to 300 shapes; distinct: no two of the same size."""
    rng = np.random.default_rng(seed + 2)
    known = templates(seed)
    cpu = rng.choice([500, 1000, 2000, 4000, 8000], FLAVOURS)
    memory = cpu * rng.choice([1, 2, 4, 8], FLAVOURS) * GIB // 1000
    shapes = {
        (t, f): _apart(
            replace(shape, cpu_m=int(cpu[f]), memory_mib=int(memory[f]), disk_mib=10 * GIB * (1 + f % 4)), f
        )
        for t, shape in enumerate(known) for f in range(FLAVOURS)
    }  # fmt: skip
    picks = zip(rng.integers(0, TEMPLATES, count).tolist(), rng.integers(0, FLAVOURS, count).tolist(), strict=True)
    found = [shapes[pick] for pick in picks]
    if distinct:
        found = [
            replace(shape, cpu_m=shape.cpu_m + n % 50, memory_mib=shape.memory_mib + n // 50)
            for n, shape in enumerate(found)
        ]
    return [Request(str(n), f"i{n}", shape) for n, shape in enumerate(found)]


def _apart(shape: Shape, flavour: int) -> Shape:
    if not shape.own_labels:
        return shape
    labels = (*shape.own_labels, ("flavour", str(flavour)))
    return replace(shape, own_labels=labels, rules=(Rule(together=False, labels=labels),))


def check(view: View, choices: Sequence[Choice]) -> None:
    """Count everything again, one by one. Raise AssertionError when a host holds what it may not."""
    n = len(view)
    cpu, memory = np.zeros(n, np.int64), np.zeros(n, np.int64)
    disk = {name: np.zeros(n, np.int64) for name in view.stores}
    images: set[tuple[int, str]] = set()
    roles: set[tuple[int, object]] = set()
    gpus = view.pci["gpu"].left.copy()
    cells = [[cell.cpu_m.left.copy(), cell.memory_mib.left.copy()] for cell in view.cells]
    order = runs([choice.request for choice in choices], np.arange(len(choices)))
    placed = [choices[place] for _, places in order for place in places]  # as cells were filled
    for request, h, store, _, _ in placed:
        if h is None or store is None:
            continue
        s = request.shape
        assert s.cluster in (None, view.clusters[h])
        assert store == s.datastore
        assert set(s.labels) <= set(view.labels[h].items())
        assert all(view.nets[name].reach[h] for name in s.networks)
        cpu[h], memory[h] = cpu[h] + s.cpu_m, memory[h] + s.memory_mib
        disk[store][h] += s.disk_mib + (0 if (h, s.image) in images else s.image_mib)
        images.add((h, s.image))
        gpus[h] -= dict(s.pci).get("gpu", 0)
        if s.rules:
            assert (h, s.own_labels) not in roles
            roles.add((h, s.own_labels))
        if s.one_cell:
            one = next(cell for cell in cells if cell[0][h] >= s.cpu_m and cell[1][h] >= s.memory_mib)
            one[0][h], one[1][h] = one[0][h] - s.cpu_m, one[1][h] - s.memory_mib
    assert (gpus >= 0).all()
    assert (cpu <= view.cpu_left_m).all()
    assert (memory <= view.memory_left_mib).all()
    for name, store_of in view.stores.items():
        assert (disk[name][store_of.group >= 0] <= store_of.free_mib).all()
        assert not disk[name][store_of.group < 0].any()
