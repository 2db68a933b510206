"""What one instance may have for itself on a host: cores, a NUMA cell's room, huge pages, PCI devices.

hardware_offered.py tells what a host offers. An instance's `granted` holds what it has of that: {"cpus", "cell",
"memory_mib", "cpu_m", "page_kib", "pci"}. Cores for pinning and huge pages are no part of what all others share.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import tables
from control.hardware_offered import Device, Grant, group_of
from control.instances_on import Reserved
from control.placement.model import Cell, Pool, Shape

_T = tables.instance
_GRANTED = sa.select(
    _T.c.host_id, _T.c.granted, _T.c.other_host_id, _T.c.other_granted, _T.c.cpu, _T.c.memory_mib
).where(sa.or_(_T.c.granted.is_not(None), _T.c.other_granted.is_not(None)))
_CLASSES = {"gpu": "03", "nic": "02", "storage": "01", "accelerator": "12"}  # first byte of a PCI class


@dataclass
class Machine:
    """What one host offers, and what of it is granted; `grant` takes more."""

    cells: list[dict[str, Any]]
    pinned: set[int]
    pages: dict[int, int]  # KiB of a page -> MiB
    devices: list[Device]
    grants: list[Grant] = field(default_factory=list)
    own_cpu: float = 0.0  # of what is granted: cores and MiB that do not count among what all share
    own_memory_mib: int = 0

    @property
    def free_cpus(self) -> set[int]:
        return self.pinned - {cpu for one in self.grants for cpu in one.get("cpus", ())}

    @property
    def free_devices(self) -> list[Device]:
        """Return devices of whose IOMMU group none is taken: one that is takes the others along."""
        taken = {address for one in self.grants for address in one.get("pci", ())}
        groups = {group_of(device) for device in self.devices if device["address"] in taken}
        return [device for device in self.devices if group_of(device) not in groups and device["address"] not in taken]

    def free_pages_mib(self, kib: int) -> int:
        """Return what is left in pages of one size."""
        return self.pages.get(kib, 0) - sum(int(g["memory_mib"]) for g in self.grants if g.get("page_kib") == kib)

    def pages_in(self, number: int, kib: int) -> int:
        """Return MiB in pages of one size that are left in a cell for sure: those bound to none may have taken them."""
        known = any("pages" in cell for cell in self.cells)  # else it was looked at before cells told of theirs
        here = self.cells[number].get("pages", {}).get(str(kib), 0) if known else self.pages.get(kib, 0)
        inside = [g for g in self.grants if g.get("page_kib") == kib and g.get("cell") in (number, None)]
        return int(here) - sum(int(g["memory_mib"]) for g in inside)

    def left_in(self, number: int) -> tuple[int, int]:
        """Return thousandths of cores and MiB (huge pages apart) that are left in a cell for those bound to it."""
        cell = self.cells[number]
        inside = [one for one in self.grants if one.get("cell") == number]
        cpus = set(cell["cpus"])
        cpu_m = 1000 * len(cpus & self.free_cpus if self.pinned else cpus)
        cpu_m -= sum(one["cpu_m"] for one in inside if not (self.pinned and one.get("cpus")))
        memory_mib = int(cell["memory_mib"]) - sum((cell.get("pages") or {}).values())
        return cpu_m, memory_mib - sum(one["memory_mib"] for one in inside if not one.get("page_kib"))


def powers_of(spec: InstanceSpec) -> frozenset[str]:
    """Return what a driver must be able to hand out for a spec."""
    asked = {"pci": spec.pci, "pinning": spec.cpu_pinning, "numa": spec.numa, "hugepages": spec.hugepages}
    return frozenset(name for name, value in asked.items() if value)


def asks(shape: Shape) -> bool:
    """Return whether a shape wants something for itself."""
    return bool(shape.pinned or shape.one_cell or shape.hugepage_kib or shape.pci)


def hardware_of(c: sa.Connection, rows: Sequence[Mapping[Any, Any]], shapes: Collection[Shape]) -> list[Machine]:
    """Return what each host offers, with what is granted. rows: of hosts; one of which no cell is known is one cell."""
    found = [_machine(row) for row in rows]
    if not any(row["hardware"] for row in rows) and not any(shape.one_cell for shape in shapes):
        return found
    index = {row["id"]: h for h, row in enumerate(rows)}
    for row in c.execute(_GRANTED):
        for host, granted in ((row.host_id, row.granted), (row.other_host_id, row.other_granted)):
            if host in index and granted:
                _note(found[index[host]], granted, row.cpu, row.memory_mib)
    return found


def _machine(row: Mapping[Any, Any]) -> Machine:
    has: Mapping[str, Any] = row["hardware"] or {}
    whole = [{"cpus": range(int(row["cpus"])), "memory_mib": row["memory_mib"]}]
    pages = {int(kib): int(mib) for kib, mib in (has.get("pages") or {}).items()}
    return Machine(has.get("cells") or whole, set(has.get("pinned") or ()), pages, has.get("pci") or [])


def _note(machine: Machine, granted: Grant, cpu: float, memory_mib: int) -> None:
    machine.grants.append(granted)
    machine.own_cpu += cpu if granted.get("cpus") else 0.0
    machine.own_memory_mib += memory_mib if granted.get("page_kib") else 0


def grants_on(c: sa.Connection, host_id: str) -> list[Grant]:
    """Return what is granted on a host, also to those that come to it or leave it."""
    rows = c.execute(_GRANTED.where(sa.or_(_T.c.host_id == host_id, _T.c.other_host_id == host_id)))
    pairs = [pair for row in rows for pair in ((row.host_id, row.granted), (row.other_host_id, row.other_granted))]
    return [granted for host, granted in pairs if host == host_id and granted]


def hardware_shown(c: sa.Connection, row: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Return what a host offers to single instances and what of it is left, for people to see; None: nothing."""
    if not row["hardware"]:
        return None
    (machine,) = hardware_of(c, [row], ())
    free = {device["address"] for device in machine.free_devices}
    return {
        "cells": row["hardware"].get("cells") or [], "pinned_cpus": sorted(machine.pinned),
        "free_cpus": sorted(machine.free_cpus),
        "hugepages": [
            {"page_kib": kib, "total_mib": mib, "free_mib": machine.free_pages_mib(kib)}
            for kib, mib in sorted(machine.pages.items())
        ],
        "pci": [{**device, "free": device["address"] in free} for device in machine.devices],
        "refused": row["hardware"].get("refused") or [],
    }  # fmt: skip


def shared_part(
    rows: Sequence[Mapping[Any, Any]], used: Sequence[Reserved], machines: Sequence[Machine]
) -> tuple[list[Mapping[Any, Any]], list[Reserved]]:
    """Return hosts and what is reserved on them without cores for pinning and huge pages: what all others share."""
    hosts: list[Mapping[Any, Any]] = []
    held: list[Reserved] = []
    for row, one, machine in zip(rows, used, machines, strict=True):
        if not (machine.pinned or machine.pages):
            hosts.append(row)
            held.append(one)
            continue
        cpus = max(0.0, row["cpus"] - len(machine.pinned))
        memory_mib = max(0, row["memory_mib"] - sum(machine.pages.values()))
        hosts.append({**row, "cpus": cpus, "memory_mib": memory_mib})
        cpu = max(0.0, one.cpu - machine.own_cpu)
        held.append(replace(one, cpu=cpu, memory_mib=max(0, one.memory_mib - machine.own_memory_mib)))
    return hosts, held


def pools_of(machines: Sequence[Machine], shapes: Collection[Shape]) -> dict[str, Any]:
    """Return the parts of a view that some of these shapes ask for."""
    found: dict[str, Any] = {}
    names = {name for shape in shapes for name, _ in shape.pci}
    if names:
        found["pci"] = {
            name: _pool((_count(name, m.devices), _count(name, m.free_devices)) for m in machines)
            for name in sorted(names)
        }  # fmt: skip
    if any(shape.pinned for shape in shapes):
        found["pins"] = _pool((1000 * len(m.pinned), 1000 * len(m.free_cpus)) for m in machines)
    if sizes := {shape.hugepage_kib for shape in shapes} - {0}:
        found["hugepages"] = {
            kib: _pool((m.pages.get(kib, 0), m.free_pages_mib(kib)) for m in machines) for kib in sorted(sizes)
        }  # fmt: skip
    if any(shape.one_cell for shape in shapes):
        most = max((len(m.cells) for m in machines), default=0)
        found["cells"] = tuple(_cell(machines, number, sizes) for number in range(most))
    return found


def _cell(machines: Sequence[Machine], number: int, sizes: Collection[int]) -> Cell:
    def pool(left: Callable[[Machine], int]) -> Pool:
        there = [(replace(m, grants=[]), m) if number < len(m.cells) else None for m in machines]
        return _pool((0, 0) if pair is None else (left(pair[0]), left(pair[1])) for pair in there)

    return Cell(
        pool(lambda m: m.left_in(number)[0]), pool(lambda m: m.left_in(number)[1]),
        {kib: pool(partial(Machine.pages_in, number=number, kib=kib)) for kib in sorted(sizes)},
    )  # fmt: skip


def _pool(values: Iterable[tuple[int, int]]) -> Pool:
    pairs = list(values)
    return Pool(np.array([limit for limit, _ in pairs], np.int64), np.array([left for _, left in pairs], np.int64))


def _count(name: str, devices: Iterable[Device]) -> int:
    return sum(_is(name, device) for device in devices)


def _is(name: str, device: Device) -> bool:
    return bool(device["id"] == name or device["class"].startswith(_CLASSES.get(name, "-")))


def grant(
    machines: Sequence[Machine], placed: Sequence[tuple[str, Shape, int]]
) -> tuple[dict[str, Grant], set[str]]:
    """Take what shapes ask for out of their hosts; return it by key, and the keys for which it was not there after all.

    placed: key, shape, index of the host.
    """
    found: dict[str, Grant] = {}
    short: set[str] = set()
    for key, shape, h in placed:
        if not asks(shape):
            continue
        one = _grant(machines[h], shape)
        if one is None:
            short.add(key)
        else:
            machines[h].grants.append(one)
            found[key] = one
    return found, short


def _grant(machine: Machine, shape: Shape) -> Grant | None:
    cell = _cell_for(machine, shape) if shape.one_cell else None
    cpus = _cpus_for(machine, shape, cell)
    devices = _devices_for(machine, shape)
    pages_mib = machine.free_pages_mib(shape.hugepage_kib) if shape.hugepage_kib else shape.memory_mib
    if (shape.one_cell and cell is None) or cpus is None or devices is None or pages_mib < shape.memory_mib:
        return None
    return {
        "cpu_m": shape.cpu_m, "memory_mib": shape.memory_mib, **({"cpus": cpus} if cpus else {}),
        **({} if cell is None else {"cell": cell}), **({"page_kib": shape.hugepage_kib} if shape.hugepage_kib else {}),
        **({"pci": devices} if devices else {}),
    }  # fmt: skip


def _cell_for(machine: Machine, shape: Shape) -> int | None:
    """Return the first cell with room, as the engine takes them."""
    return next((n for n in range(len(machine.cells)) if _fits(shape, _left_for(machine, n, shape.hugepage_kib))), None)


def _left_for(machine: Machine, number: int, kib: int) -> tuple[int, int]:
    """Return thousandths of cores and MiB that are left in a cell, in pages of one size if there is one."""
    cpu_m, memory_mib = machine.left_in(number)
    return cpu_m, machine.pages_in(number, kib) if kib else memory_mib


def _fits(shape: Shape, left: tuple[int, int]) -> bool:
    return left[0] >= shape.cpu_m and left[1] >= shape.memory_mib


def _cpus_for(machine: Machine, shape: Shape, cell: int | None) -> list[int] | None:
    """Return cores for a pinned shape, of its cell, else of those cells where fewest are free; [] = it wants none."""
    if not shape.pinned:
        return []
    wanted, free = shape.cpu_m // 1000, machine.free_cpus
    cells = [machine.cells[cell]] if cell is not None else machine.cells
    by_cell = sorted((_cores(one, free) for one in cells), key=lambda cores: sum(map(len, cores)))
    whole = next((cores for cores in by_cell if sum(map(len, cores)) >= wanted), None)
    return _threads(whole if whole is not None else [core for cores in by_cell for core in cores], wanted)


def _cores(cell: Mapping[str, Any], free: set[int]) -> list[list[int]]:
    """Return the free threads of each core of a cell; where no siblings are known each thread is a core."""
    siblings = [list(core) for core in cell.get("siblings") or ()]
    alone = [[cpu] for cpu in cell["cpus"] if not any(cpu in core for core in siblings)]
    cores = [sorted(free & set(core)) for core in (*siblings, *alone)]
    return sorted(core for core in cores if core)


def _threads(cores: list[list[int]], wanted: int) -> list[int] | None:
    """Return threads of as few cores as can be: no core is shared that need not be. None: there are not enough."""
    left, chosen = list(cores), list[int]()
    while left and len(chosen) < wanted:
        more = wanted - len(chosen)
        best = max(left, key=lambda core: (len(core) <= more, len(core) if len(core) <= more else -len(core)))
        left.remove(best)
        chosen += best[:more]
    return sorted(chosen) if len(chosen) == wanted else None


def _devices_for(machine: Machine, shape: Shape) -> list[str] | None:
    """Return the addresses of the devices that a shape asks for, the most exactly named ones first; None: not there.

    What is of the same IOMMU group as one of them comes with it.
    """
    free, chosen = machine.free_devices, list[str]()
    for name, count in sorted(shape.pci, key=lambda one: one[0] in _CLASSES):
        fitting = [one["address"] for one in free if _is(name, one) and one["address"] not in chosen]
        if len(fitting) < count:
            return None
        chosen += fitting[:count]
    groups = {group_of(one) for one in free if one["address"] in chosen} - {None}
    return chosen + [one["address"] for one in free if group_of(one) in groups and one["address"] not in chosen]
