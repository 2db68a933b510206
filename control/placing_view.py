"""From tables to the arrays that placement looks at, and from specs to shapes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import addresses, instances_on, networks, placing_book, placing_learned, sql, tables
from control.images import ImageRecord
from control.networks import NetworkRecord
from control.placement.model import Guests, Ints, Mask, Net, Shape, Store, View, millis
from control.placement.weights import POLICIES
from control.placing_ahead import Room, ahead
from control.placing_book import Sizes
from control.placing_hardware import asks, hardware_of, pools_of, powers_of, shared_part
from control.placing_learned import Cores, Features, own_or
from control.placing_rules import guests_of, rules_of
from core.states import CopyState, HostState

_CLUSTER, _DS, _NET, _COPY = tables.cluster, tables.datastore, tables.network, tables.image_copy
_LOCK_CLUSTERS = sa.select(_CLUSTER.c.id).order_by(_CLUSTER.c.id).with_for_update()
_LOCK_NETWORKS = (
    sa.select(_NET.c.id).where(_NET.c.name.in_(sa.bindparam("names", expanding=True))).order_by(_NET.c.id)
    .with_for_update(key_share=True)
)  # fmt: skip
_DATASTORES = sa.select(_DS.c.id, _DS.c.name, _DS.c.shared, _DS.c.overcommit, _DS.c.created_at).order_by(
    _DS.c.created_at, _DS.c.id
)
_COPIES = sa.select(_COPY.c.sha256, _COPY.c.host_id).where(
    sql.among(_COPY.c.sha256), _COPY.c.state == CopyState.READY
)


def shape_of(
    spec: InstanceSpec, kind: str, disk_mib: int, image: ImageRecord | None, avoid: Collection[str] = (),
    kept: Collection[int] = (), *, lifetime_s: int = 0,
) -> Shape:  # fmt: skip
    """Return the shape of a spec. disk_mib: all disks together; image None: nothing is known of it yet.

    kept: numbers of NICs that have their address already: only their network must be there. lifetime_s: as expected.
    """
    counts: dict[str, int] = {}
    drawn = [(nic, number in kept) for nic, number in zip(spec.nics, spec.nic_numbers(), strict=True)]
    for nic, has_address in drawn:
        if has_address or not nic.address:
            counts[nic.network] = counts.get(nic.network, 0) + (not has_address)
    where = spec.requirements
    return Shape(
        kind=kind, cpu_m=millis(spec.cpu), memory_mib=spec.memory_mib, disk_mib=disk_mib,
        image=image.sha256 if image else "", image_mib=-(-image.size_bytes // 2**20) if image else 0,
        disk_min_mib=image.virtual_size_mib if image else 0, cluster=where.cluster, host=where.host,
        datastore=where.datastore, labels=tuple(sorted(where.host_labels.items())), nics=tuple(sorted(counts.items())),
        fixed=tuple((n.network, addresses.number(n.address)) for n, has_one in drawn if n.address and not has_one),
        avoid=frozenset(avoid), arch=where.architecture or "",
        kernel=(image.spec.get("kernel") or "") if image else "",
        capabilities=frozenset(where.capabilities) | powers_of(spec), where=where.where, rank=where.rank,
        own_labels=tuple(sorted(spec.labels.items())), rules=rules_of(spec.affinity, spec.anti_affinity),
        pci=tuple(sorted(spec.pci.items())), pinned=spec.cpu_pinning, one_cell=spec.numa is not None,
        hugepage_kib=spec.hugepage_kib, lifetime_s=lifetime_s, reservation=where.reservation or "",
    )  # fmt: skip


class Cloud:
    """A view with what it takes to write a choice down: ids, versions, address ranges. Index h: the view's host."""

    def __init__(
        self, c: sa.Connection, shapes: Collection[Shape], *, lock: bool, without: Collection[str] = (),
        features: Features | None = None, owners: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Read the cloud as far as these shapes need it.

        lock: nobody else gives addresses of their networks away, or places what rules are about.
        without: ids of instances that are on their way elsewhere, so that no rule counts them where they are.
        features: what was learned of the use of hosts; without it all that is allocated counts.
        owners: of what is to be placed; of several, what they hold already counts when there is not room for all.
        """
        ruled = any(shape.rules or shape.own_labels for shape in shapes)
        if lock and ruled:  # a rule may be about hosts that nobody else would lock, such as those of a rack
            c.execute(_LOCK_CLUSTERS).all()
        wanted = {name for shape in shapes for name, _ in (*shape.nics, *shape.fixed)}
        if lock and wanted:
            c.execute(_LOCK_NETWORKS, {"names": sorted(wanted)}).all()
        known = networks.records(c)
        self.networks: dict[str, NetworkRecord] = {name: known[name] for name in sorted(wanted) if name in known}
        self._book = placing_book.read(c)
        self.ids = self._book.ids
        self.at = sql.db_now(c)
        self.versions = dict(zip(self.ids, self._book.versions, strict=True))
        net_ids = [net.id for net in self.networks.values()]
        self._ranges = networks.shared_ranges(c, net_ids)
        self._ranges_on: dict[tuple[str, int], tuple[addresses.Range, ...]] = {}
        self.leased = networks.taken(c, net_ids)
        self.stores: dict[str, str] = {}  # datastore name -> id
        single = self._book.columns["has_hardware"].any() or any(map(asks, shapes))
        self.hardware = hardware_of(c, self._book.rows, shapes) if single else []  # of each host, or it plays no part
        guests = guests_of(c, self._book.index, without) if ruled else None
        self.view = self._view(c, shapes, guests, features or {})
        if len(owners) > 1:
            cpu, memory_mib = float(self.view.cpu_limit_m.sum()) / 1000, float(self.view.memory_limit_mib.sum())
            self.view = replace(self.view, held=instances_on.shares(c, owners, cpu, memory_mib))

    def _view(
        self, c: sa.Connection, shapes: Collection[Shape], guests: Guests | None, features: Features
    ) -> View:
        book, columns = self._book, self._book.columns
        cpu, memory, memory_left, instances = self._room(c, features)
        usable = [state == HostState.READY for state in columns["states"]]
        windows_s, holds = ahead(c, book.rows, Room(cpu.left_m, memory_left, usable), self.at)
        return View(
            names=columns["names"], states=_states(columns["states"], columns["retry_at"], self.at),
            unknown=columns["unknown"], clusters=columns["clusters"], labels=columns["labels"], kinds=columns["kinds"],
            drivers=columns["drivers"], cpus_m=columns["cpus_m"], cpu_limit_m=cpu.limit_m, cpu_left_m=cpu.left_m,
            learned=cpu.learned, memory_limit_mib=memory, memory_left_mib=memory_left, windows_s=windows_s, holds=holds,
            physical_mib=columns["physical_mib"], instances=instances,
            stores=self._stores(c), nets={name: self._net(net) for name, net in self.networks.items()},
            images=self._images(c, {shape.image for shape in shapes if shape.image}), archs=columns["archs"],
            kernels=columns["kernels"], capabilities=columns["capabilities"], guests=guests,
            policies=_policies(columns["clusters"], columns["policies"]),
            **pools_of(self.hardware, shapes),
        )  # fmt: skip

    def _room(self, c: sa.Connection, features: Features) -> tuple[Cores, Ints, Ints, Ints]:
        """Return cores, then of memory what may be given away and what is left, and how many instances there are."""
        book, columns = self._book, self._book.columns
        limit = columns["memory_limit_mib"]
        if not (self.hardware or columns["learns"].any()):
            cores = Cores(columns["cpu_limit_m"], columns["cpu_limit_m"] - book.held_cpu_m, columns["learns"])
            return cores, limit, limit - book.held.memory_mib, book.held.instances
        rows: Sequence[Any] = book.rows
        used = [book.held.at(h) for h in range(len(rows))]
        if self.hardware:
            rows, used = shared_part(rows, used, self.hardware)
        limit = np.array([int(row["memory_mib"] * own_or(row, "memory_overcommit") + 1e-6) for row in rows], np.int64)
        left = limit - np.array([one.memory_mib for one in used], np.int64)
        return placing_learned.cores(c, rows, used, features, self.at), limit, left, book.held.instances

    def _stores(self, c: sa.Connection) -> dict[str, Store]:
        found: dict[str, Store] = {}
        for row in c.execute(_DATASTORES):
            self.stores[row.name] = row.id
            seen = self._book.sizes.get(row.id)
            found[row.name] = _store(row, seen or placing_book.no_sizes(len(self.ids)), self._book.columns["looked_us"])
        return found

    def _net(self, net: NetworkRecord) -> Net:
        """Return one network. Hosts whose ranges are the same draw from one group."""
        none = np.zeros(len(self.ids), np.bool_)
        reach, own = self._book.reach.get(net.id, none), self._book.own.get(net.id, {})
        unusable, taken = addresses.reserved(net.subnet, net.gateway), self.leased[net.id]
        spans: dict[tuple[tuple[int, int], ...], int] = {}
        group = np.full(len(reach), -1, np.int64)
        if own:
            for h in np.flatnonzero(reach).tolist():
                group[h] = spans.setdefault(_span(self.ranges_on(net, h)), len(spans))
        elif reach.any():
            group[reach] = spans.setdefault(_span(self._ranges[net.id]), 0)
        pools = [[addresses.Range(a, b, 0, "") for a, b in key] for key in spans]
        return Net(
            reach=reach, dhcp=net.addressing == "dhcp", group=group,
            left=np.array([addresses.count_free(pool, taken | unusable) for pool in pools], np.int64),
            whole=np.array([addresses.count_free(pool, unusable) for pool in pools], np.int64),
            spans=tuple(spans), taken=frozenset(taken), reserved=frozenset(unusable),
        )  # fmt: skip

    def ranges_on(self, net: NetworkRecord, h: int) -> tuple[addresses.Range, ...]:
        """Return the address ranges of a network that are good on one host, lowest first."""
        shared, own = self._ranges[net.id], self._book.own.get(net.id, {}).get(h)
        if own is None:
            return shared
        if (net.id, h) not in self._ranges_on:
            self._ranges_on[net.id, h] = tuple(sorted((*shared, *own), key=lambda item: item.first))
        return self._ranges_on[net.id, h]

    def _images(self, c: sa.Connection, images: Collection[str]) -> dict[str, Mask]:
        found = {sha: np.zeros(len(self.ids), np.bool_) for sha in images}
        index = self._book.index
        for sha, host_id in sql.tuples_among(c, images, _COPIES):
            if host_id in index:
                found[sha][index[host_id]] = True
        return found


def _policies(clusters: Sequence[str], named: Sequence[str | None]) -> dict[str, str]:
    """Return by which policy the hosts of clusters are compared. clusters, named: of each host."""
    if not any(named):
        return {}
    pairs = {(cluster, one) for cluster, one in zip(clusters, named, strict=True) if one in POLICIES}
    return {cluster: str(one) for cluster, one in sorted(pairs)}


def _span(ranges: Sequence[addresses.Range]) -> tuple[tuple[int, int], ...]:
    return tuple((item.first, item.last) for item in ranges)


def _store(row: Any, seen: Sizes, looked_us: Ints) -> Store:
    """Return one datastore: a group per host, or one for all where it is shared."""
    there = seen.there
    counts = int(there.sum())
    group = np.where(there, 0 if row.shared else np.cumsum(there) - 1, -1)
    limit, free = ((part[there] * row.overcommit).astype(np.int64) for part in (seen.total_mib, seen.free_mib))
    used = seen.allocated_mib[there]
    if row.shared and counts:
        limit, free, used = (np.array([one], np.int64) for one in (limit.max(), free.max(), used.sum()))
    return Store(
        group=group, limit_mib=limit, left_mib=limit - used, free_mib=free,
        unseen=~there & (looked_us > 0) & (looked_us < placing_book.micros(row.created_at)),
    )  # fmt: skip


BACKED_OFF = "backed-off"  # ready, but steps failed there because of it: passed over for a while


def _states(states: tuple[str, ...], retry_at: Sequence[datetime | None], at: datetime) -> tuple[str, ...]:
    """Return the states of hosts as placement sees them."""
    resting = [h for h, until in enumerate(retry_at) if until is not None and until > at]
    if not resting:
        return states
    found = list(states)
    for h in resting:
        found[h] = BACKED_OFF if states[h] == HostState.READY else states[h]
    return tuple(found)
