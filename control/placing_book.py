"""What placement reads of hosts, kept from one time to the next: only hosts with a new mark (marks.py) are read again.

A book is never changed: a newer one is made from it. It may hold what this transaction has written and not committed:
if that is undone, the old marks are back, and the hosts are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import sqlalchemy as sa

from control import addresses, hosts, sql, tables
from control.instances_on import Reserved
from control.placement.model import Floats, Ints, Mask, millis
from control.placing_learned import own_or
from core.states import HostState

_HOST, _CLUSTER, _I = tables.host, tables.cluster, tables.instance
_DS_HOST, _NET_HOST, _RANGE = tables.datastore_host, tables.network_host, tables.address_range
_FEW = 400  # hosts that are read one by one; of more, all are read
_ENABLED = (HostState.READY, HostState.UNREACHABLE)
Row = Mapping[str, Any]


class _Query(NamedTuple):
    """One statement for all hosts, and for some of them."""

    all: sa.Select[Any]
    some: sa.Select[Any]

    def run(self, c: sa.Connection, host_ids: Sequence[str] | None) -> Sequence[Any]:
        return c.execute(self.all).all() if host_ids is None else sql.tuples_among(c, host_ids, self.some)


def _by(statement: sa.Select[Any], host: sa.Column[Any], *, live: bool = False) -> _Query:
    everywhere = statement.where(_HOST.c.live_name.is_not(None)) if live else statement
    return _Query(everywhere, statement.where(sql.among(host)))


def _sums(host: sa.Column[Any], store: sa.Column[Any]) -> _Query:
    summed = [sa.func.sum(column) for column in (_I.c.cpu, _I.c.memory_mib, _I.c.disk_mib)]
    query = sa.select(host, store, sa.func.count(), *summed).where(host.is_not(None)).group_by(host, store)
    return _by(query, host)


_MARKS = (
    sa.select(_HOST.c.id, _HOST.c.version, _HOST.c.mark).where(_HOST.c.live_name.is_not(None))
    .order_by(_HOST.c.live_name)
)  # fmt: skip
_ROWS = _by(
    sa.select(
        _HOST.c.id, _HOST.c.name, _HOST.c.state, _HOST.c.driver, _HOST.c.cpus, _HOST.c.memory_mib,
        _HOST.c.cpu_overcommit, _HOST.c.memory_overcommit, _HOST.c.cpu_learned_max, _HOST.c.labels,
        _HOST.c.capabilities, _HOST.c.seen_at, _HOST.c.retry_at, _HOST.c.cluster_id, _HOST.c.hardware,
        _HOST.c.facts["memory_mib"].as_integer().label("physical_mib"),
        _HOST.c.facts["architecture"].as_string().label("architecture"),
        _CLUSTER.c.name.label("cluster"), _CLUSTER.c.cpu_overcommit.label("cluster_cpu_overcommit"),
        _CLUSTER.c.cpu_learned_max.label("cluster_cpu_learned_max"),
        _CLUSTER.c.memory_overcommit.label("cluster_memory_overcommit"), _CLUSTER.c.placement_policy,
    ).where(_HOST.c.cluster_id == _CLUSTER.c.id), _HOST.c.id, live=True,
)  # fmt: skip
_HELD, _PASSING = _sums(_I.c.host_id, _I.c.datastore_id), _sums(_I.c.other_host_id, _I.c.other_datastore_id)
_SIZES = _by(
    sa.select(_DS_HOST.c.datastore_id, _DS_HOST.c.host_id, _DS_HOST.c.total_mib, _DS_HOST.c.free_mib),
    _DS_HOST.c.host_id,
)
_REACH = _by(sa.select(_NET_HOST.c.network_id, _NET_HOST.c.host_id), _NET_HOST.c.host_id)
_OWN = _by(
    sa.select(
        _RANGE.c.network_id, _RANGE.c.host_id, _RANGE.c.first, _RANGE.c.last, _RANGE.c.prefix_length, _RANGE.c.gateway
    ).where(_RANGE.c.host_id.is_not(None)), _RANGE.c.host_id,
)  # fmt: skip


def micros(at: datetime) -> int:
    """Return a time in microseconds."""
    return round(at.timestamp() * 1e6)


def _kinds(row: Row) -> tuple[str, ...]:
    said: Sequence[str] = row["capabilities"].get("kinds") or hosts.KINDS.get(row["driver"], ())
    return tuple(str(kind) for kind in said)


def _kernels(row: Row) -> tuple[str, ...] | None:
    said: Sequence[str] | None = row["capabilities"].get("kernels")
    return None if said is None else tuple(said)


def _powers(row: Row) -> frozenset[str]:
    has: Mapping[str, Any] = row["capabilities"]
    return frozenset(name for name, value in has.items() if value is True) | frozenset(has.get("grants") or ())


def _is_unknown(row: Row) -> bool:
    """Return whether a host may soon turn out to fit: it is being enrolled, or was not looked at yet."""
    return row["state"] == HostState.ENROLLING or (row["state"] in _ENABLED and row["seen_at"] is None)


def _looked_us(row: Row) -> int:
    """Return when an enabled host was looked at last, in microseconds; 0: never, or it is not enabled."""
    return micros(row["seen_at"]) if row["state"] in _ENABLED and row["seen_at"] is not None else 0


# what follows from a host's row: how, and the type of the array where it is a number
_COLUMNS: dict[str, tuple[Callable[[Row], Any], type | None]] = {
    "names": (lambda row: row["name"], None),
    "states": (lambda row: str(row["state"]), None),
    "clusters": (lambda row: row["cluster"], None),
    "policies": (lambda row: row["placement_policy"], None),
    "labels": (lambda row: row["labels"], None),
    "kinds": (_kinds, None),
    "drivers": (lambda row: row["driver"], None),
    "archs": (lambda row: row["architecture"], None),
    "kernels": (_kernels, None),
    "capabilities": (_powers, None),
    "retry_at": (lambda row: row["retry_at"], None),
    "unknown": (_is_unknown, np.bool_),
    "has_hardware": (lambda row: bool(row["hardware"]), np.bool_),
    "learns": (lambda row: own_or(row, "cpu_learned_max") > 0, np.bool_),
    "cpus_m": (lambda row: int(row["cpus"] * 1000), np.int64),
    "cpu_limit_m": (lambda row: int(row["cpus"] * own_or(row, "cpu_overcommit") * 1000 + 1e-6), np.int64),
    "memory_limit_mib": (lambda row: int(row["memory_mib"] * own_or(row, "memory_overcommit") + 1e-6), np.int64),
    "physical_mib": (lambda row: max(row["physical_mib"] or 0, row["memory_mib"]), np.int64),
    "looked_us": (_looked_us, np.int64),
}


@dataclass(frozen=True)
class Held:
    """What is reserved on hosts, also by what is on its way there or from there, which is none of their instances."""

    instances: Ints
    cpu: Floats
    memory_mib: Ints
    disk_mib: Ints

    def at(self, h: int) -> Reserved:
        """Return what is reserved on one host."""
        return Reserved(
            int(self.instances[h]), float(self.cpu[h]), int(self.memory_mib[h]), int(self.disk_mib[h])
        )


@dataclass(frozen=True)
class Sizes:
    """A datastore on all hosts: where it is there, how large it was seen to be, what is allocated in it."""

    there: Mask
    total_mib: Ints
    free_mib: Ints
    allocated_mib: Ints


@dataclass(frozen=True)
class Book:
    """Hosts by name, and what is on them. columns: see _COLUMNS; by id: datastores, networks; own: address ranges."""

    ids: list[str]
    versions: list[int]
    marks: list[int]
    index: dict[str, int]
    rows: list[Row]
    columns: dict[str, Any]
    held: Held
    held_cpu_m: Ints
    sizes: dict[str, Sizes]
    reach: dict[str, Mask]
    own: dict[str, dict[int, tuple[addresses.Range, ...]]]


def no_sizes(n: int) -> Sizes:
    """Return a datastore that is on none of n hosts."""
    return Sizes(np.zeros(n, np.bool_), *(np.zeros(n, np.int64) for _ in range(3)))


_BOOKS: WeakKeyDictionary[sa.Engine, Book] = WeakKeyDictionary()


def read(c: sa.Connection) -> Book:
    """Return what stands now, reading only what has changed."""
    found = c.execute(_MARKS).all()
    ids, versions, marks = ([row[n] for row in found] for n in range(3))
    book = _BOOKS.get(c.engine)
    if book is None or book.ids != ids:
        book = whole(c, ids)
    elif book.marks != marks:
        other = [h for h, (old, new) in enumerate(zip(book.marks, marks, strict=True)) if old != new]
        some = [ids[h] for h in other] if len(other) <= _FEW else None
        book = _renewed(c, book, other if some is not None else range(len(ids)), some)
    book = _BOOKS[c.engine] = replace(book, versions=versions, marks=marks)
    return book


def whole(c: sa.Connection, ids: list[str]) -> Book:
    """Return all of these hosts as they stand now, without versions and marks."""
    return _renewed(c, _empty(ids), range(len(ids)), None)


def _empty(ids: list[str]) -> Book:
    n, index = len(ids), {host_id: h for h, host_id in enumerate(ids)}
    zeros = np.zeros(n, np.int64)
    return Book(ids, [], [], index, [{}] * n, {}, Held(zeros, np.zeros(n), zeros, zeros), zeros, {}, {}, {})


def _renewed(c: sa.Connection, old: Book, at: Sequence[int], some: Sequence[str] | None) -> Book:
    """Return a book with these hosts as they are now. some: their ids, None = all of them."""
    rows, places = list(old.rows), np.array(at, np.intp)
    for h in at:
        rows[h] = {}
    for row in _ROWS.run(c, some):
        if row.id in old.index:
            rows[old.index[row.id]] = dict(row._mapping)
    gone = [old.ids[h] for h in at if not rows[h]]  # retired since the marks were read
    for row in _ROWS.run(c, gone) if gone else ():
        rows[old.index[row.id]] = dict(row._mapping)
    held, allocated = _reserved(c, old, places, some)
    cpu_m = old.held_cpu_m.copy()
    cpu_m[places] = [millis(cpu) for cpu in held.cpu[places].tolist()]
    return replace(
        old, rows=rows, columns=_columns(old, rows, at), held=held, held_cpu_m=cpu_m,
        sizes=_sizes(c, old, places, some, allocated), reach=_reach(c, old, places, some),
        own=_ranges(c, old, at, some),
    )  # fmt: skip


def _columns(old: Book, rows: Sequence[Row], at: Sequence[int]) -> dict[str, Any]:
    """Return the columns with new values at some places; one that stays as it was stays the same object."""
    found: dict[str, Any] = {}
    for name, (value_of, kind) in _COLUMNS.items():
        values = [value_of(rows[h]) for h in at]
        before = old.columns.get(name)
        if before is None:
            found[name] = tuple(values) if kind is None else np.array(values, kind)
        elif all(before[h] == value for h, value in zip(at, values, strict=True)):
            found[name] = before
        else:
            column = list(before) if kind is None else before.copy()
            for h, value in zip(at, values, strict=True):
                column[h] = value
            found[name] = tuple(column) if kind is None else column
    return found


def _reserved(
    c: sa.Connection, old: Book, at: Any, some: Sequence[str] | None
) -> tuple[Held, dict[str, Ints]]:
    """Return what is reserved on hosts, and what is allocated at these places in each datastore."""
    was = old.held
    held = Held(was.instances.copy(), was.cpu.copy(), was.memory_mib.copy(), was.disk_mib.copy())
    held.instances[at], held.cpu[at], held.memory_mib[at], held.disk_mib[at] = 0, 0, 0, 0
    allocated: dict[str, Ints] = {}
    for query, counts in ((_HELD, 1), (_PASSING, 0)):
        for host_id, store, count, cpu, memory_mib, disk_mib in query.run(c, some):
            h = old.index.get(host_id)
            if h is None:
                continue
            held.instances[h] += counts * count
            held.cpu[h] += float(cpu)
            held.memory_mib[h] += int(memory_mib)
            held.disk_mib[h] += int(disk_mib)
            if store is not None:
                allocated.setdefault(store, np.zeros(len(old.ids), np.int64))[h] += int(disk_mib)
    held.cpu[at] = np.round(held.cpu[at], 6)
    return held, allocated


def _sizes(
    c: sa.Connection, old: Book, at: Any, some: Sequence[str] | None, allocated: Mapping[str, Ints]
) -> dict[str, Sizes]:
    n = len(old.ids)
    seen = [row for row in _SIZES.run(c, some) if row[1] in old.index]
    found: dict[str, Sizes] = {}
    for store in {*old.sizes, *allocated, *(row[0] for row in seen)}:
        was = old.sizes.get(store) or no_sizes(n)
        one = Sizes(was.there.copy(), was.total_mib.copy(), was.free_mib.copy(), was.allocated_mib.copy())
        one.there[at], one.total_mib[at], one.free_mib[at] = False, 0, 0
        one.allocated_mib[at] = allocated[store][at] if store in allocated else 0
        found[store] = one
    for store, host_id, total_mib, free_mib in seen:
        h = old.index[host_id]
        found[store].there[h], found[store].total_mib[h], found[store].free_mib[h] = True, total_mib, free_mib
    return found


def _reach(c: sa.Connection, old: Book, at: Any, some: Sequence[str] | None) -> dict[str, Mask]:
    found = {net: mask.copy() for net, mask in old.reach.items()}
    for mask in found.values():
        mask[at] = False
    for net, host_id in _REACH.run(c, some):
        if host_id in old.index:
            found.setdefault(net, np.zeros(len(old.ids), np.bool_))[old.index[host_id]] = True
    return found


def _ranges(
    c: sa.Connection, old: Book, at: Sequence[int], some: Sequence[str] | None
) -> dict[str, dict[int, tuple[addresses.Range, ...]]]:
    again = set(at)
    found = {net: {h: one for h, one in own.items() if h not in again} for net, own in old.own.items()}
    for net, host_id, first, last, length, gateway in _OWN.run(c, some):
        if host_id in old.index:
            one = addresses.Range(addresses.number(first), addresses.number(last), length, gateway, host_id)
            own = found.setdefault(net, {})
            own[old.index[host_id]] = (*own.get(old.index[host_id], ()), one)
    return found
