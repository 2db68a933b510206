"""From tables to the arrays that placement looks at, and from specs to shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import addresses, hosts, instances_on, networks, placing_learned, sql, tables
from control.images import ImageRecord
from control.networks import NetworkRecord
from control.placement.model import Guests, Mask, Net, Shape, Store, View, mask_of, millis
from control.placing_ahead import Room, ahead
from control.placing_hardware import hardware_of, pools_of, powers_of, shared_part
from control.placing_learned import Features
from control.placing_rules import guests_of, rules_of
from core.states import CopyState, HostState

_HOST, _CLUSTER, _DS, _DS_HOST = tables.host, tables.cluster, tables.datastore, tables.datastore_host
_SIZES = sa.select(_DS_HOST.c.datastore_id, _DS_HOST.c.host_id, _DS_HOST.c.total_mib, _DS_HOST.c.free_mib)


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
            c.execute(sa.select(_CLUSTER.c.id).order_by(_CLUSTER.c.id).with_for_update()).all()
        wanted = {name for shape in shapes for name, _ in (*shape.nics, *shape.fixed)}
        if lock and wanted:
            net = tables.network
            c.execute(
                sa.select(net.c.id).where(net.c.name.in_(wanted)).order_by(net.c.id).with_for_update(key_share=True)
            ).all()  # fmt: skip
        known = networks.records(c)
        self.networks: dict[str, NetworkRecord] = {name: known[name] for name in sorted(wanted) if name in known}
        self.rows = list(c.execute(_hosts()).mappings())
        self.ids = [str(row["id"]) for row in self.rows]
        self.at = sql.db_now(c)
        self.versions = {str(row["id"]): int(row["version"]) for row in self.rows}
        self.ranges = networks.ranges(c, [net.id for net in self.networks.values()])
        self._ranges_on: dict[str, dict[str | None, tuple[addresses.Range, ...]]] = {}
        self.leased = networks.leased(c, [net.id for net in self.networks.values()])
        self.stores: dict[str, str] = {}  # datastore name -> id
        self._index = {host_id: h for h, host_id in enumerate(self.ids)}
        self.hardware = hardware_of(c, self.rows, shapes)
        guests = guests_of(c, self._index, without) if ruled else None
        self.view = self._view(c, shapes, guests, features or {})
        if len(owners) > 1:
            cpu, memory_mib = float(self.view.cpu_limit_m.sum()) / 1000, float(self.view.memory_limit_mib.sum())
            self.view = replace(self.view, held=instances_on.shares(c, owners, cpu, memory_mib))

    def _view(
        self, c: sa.Connection, shapes: Collection[Shape], guests: Guests | None, features: Features
    ) -> View:
        held = instances_on.reserved(c, self.ids)
        mine = [held.get(host_id, instances_on.NOTHING) for host_id in self.ids]
        rows, used = shared_part(self.rows, mine, self.hardware)
        cpu = placing_learned.cores(c, rows, used, features, self.at)
        memory = np.array([int(row["memory_mib"] * _memory_ratio(row) + 1e-6) for row in rows], np.int64)
        memory_left = memory - np.array([one.memory_mib for one in used], np.int64)
        usable = [row["state"] == HostState.READY for row in rows]
        windows_s, holds = ahead(c, rows, Room(cpu.left_m, memory_left, usable), self.at)
        return View(
            names=tuple(row["name"] for row in rows), states=tuple(_state(row, self.at) for row in rows),
            unknown=mask_of([_is_unknown(row) for row in rows]),
            clusters=tuple(row["cluster"] for row in rows), labels=tuple(row["labels"] for row in rows),
            kinds=tuple(_kinds(row) for row in rows), drivers=tuple(row["driver"] for row in rows),
            cpus_m=np.array([int(row["cpus"] * 1000) for row in self.rows], np.int64), cpu_limit_m=cpu.limit_m,
            cpu_left_m=cpu.left_m, learned=cpu.learned, memory_limit_mib=memory,
            memory_left_mib=memory_left, windows_s=windows_s, holds=holds,
            physical_mib=np.array([max(row["physical_mib"] or 0, row["memory_mib"]) for row in rows], np.int64),
            instances=np.array([one.instances for one in used], np.int64),
            stores=self._stores(c), nets={name: self._net(c, net) for name, net in self.networks.items()},
            images=self._images(c, {shape.image for shape in shapes if shape.image}),
            archs=tuple(row["architecture"] for row in rows),
            kernels=tuple(_kernels(row["capabilities"]) for row in rows),
            capabilities=tuple(
                frozenset(k for k, v in row["capabilities"].items() if v is True)
                | frozenset(row["capabilities"].get("grants") or ()) for row in rows
            ),
            guests=guests, **pools_of(self.hardware, shapes),
        )  # fmt: skip

    def _stores(self, c: sa.Connection) -> dict[str, Store]:
        seen: dict[str, dict[int, tuple[int, int]]] = {}
        for store_id, host_id, total_mib, free_mib in c.execute(_SIZES).all():
            if host_id in self._index:
                seen.setdefault(store_id, {})[self._index[host_id]] = total_mib, free_mib
        i = tables.instance
        allocated: dict[tuple[str, int], int] = {}
        for store, host in ((i.c.datastore_id, i.c.host_id), (i.c.other_datastore_id, i.c.other_host_id)):
            for row in c.execute(
                sa.select(store.label("store"), host.label("host"), sa.func.sum(i.c.disk_mib).label("mib"))
                .where(host.is_not(None), store.is_not(None)).group_by(store, host)
            ).mappings():  # fmt: skip
                if row["host"] in self._index:
                    key = (row["store"], self._index[row["host"]])
                    allocated[key] = allocated.get(key, 0) + int(row["mib"])
        found: dict[str, Store] = {}
        for row in c.execute(sa.select(_DS).order_by(_DS.c.created_at, _DS.c.id)).mappings():
            self.stores[row["name"]] = row["id"]
            found[row["name"]] = self._store(row, seen.get(row["id"], {}), allocated)
        return found

    def _store(
        self, row: sa.RowMapping, seen: Mapping[int, tuple[int, int]], allocated: Mapping[tuple[str, int], int]
    ) -> Store:
        """Return one datastore: a group per host, or one for all where it is shared. seen: by host, whole and free."""
        n, factor = len(self.ids), row["overcommit"]
        groups = {h: 0 if row["shared"] else at for at, h in enumerate(sorted(seen))}
        size = max(groups.values(), default=-1) + 1
        limit, free, used = (np.zeros(size, np.int64) for _ in range(3))
        for h, group in groups.items():
            limit[group] = max(limit[group], int(seen[h][0] * factor))
            free[group] = max(free[group], int(seen[h][1] * factor))
            used[group] += allocated.get((row["id"], h), 0)
        return Store(
            group=np.array([groups.get(h, -1) for h in range(n)], np.int64), limit_mib=limit, left_mib=limit - used,
            free_mib=free,
            unseen=mask_of([h not in seen and _looked_before(host, row) for h, host in enumerate(self.rows)]),
        )  # fmt: skip

    def _net(self, c: sa.Connection, net: NetworkRecord) -> Net:
        """Return one network. Hosts whose ranges are the same draw from one group."""
        nh = tables.network_host
        there = {self._index.get(h) for h in c.scalars(sa.select(nh.c.host_id).where(nh.c.network_id == net.id))}
        unusable, taken = addresses.reserved(net.subnet, net.gateway), set(self.leased[net.id])
        spans: dict[tuple[tuple[int, int], ...], int] = {}
        group = np.full(len(self.ids), -1, np.int64)
        for h in sorted(h for h in there if h is not None):
            key = tuple((r.first, r.last) for r in self.ranges_on(net, h))
            group[h] = spans.setdefault(key, len(spans))
        pools = [[addresses.Range(a, b, 0, "") for a, b in key] for key in spans]
        return Net(
            reach=mask_of([h in there for h in range(len(self.ids))]), dhcp=net.addressing == "dhcp", group=group,
            left=np.array([addresses.count_free(pool, taken | unusable) for pool in pools], np.int64),
            whole=np.array([addresses.count_free(pool, unusable) for pool in pools], np.int64),
            spans=tuple(spans), taken=frozenset(taken), reserved=frozenset(unusable),
        )  # fmt: skip

    def ranges_on(self, net: NetworkRecord, h: int) -> tuple[addresses.Range, ...]:
        """Return the address ranges of a network that are good on one host."""
        found = self._ranges_on.get(net.id)
        if found is None:
            found = self._ranges_on[net.id] = _by_host(self.ranges[net.id])
        return found.get(self.ids[h], found[None])

    def _images(self, c: sa.Connection, images: Collection[str]) -> dict[str, Mask]:
        copy = tables.image_copy
        found = {sha: np.zeros(len(self.ids), np.bool_) for sha in images}
        for row in sql.fetch_in(
            c, images,
            lambda part: sa.select(copy.c.sha256, copy.c.host_id)
            .where(copy.c.sha256.in_(part), copy.c.state == CopyState.READY),
        ):  # fmt: skip
            if row["host_id"] in self._index:
                found[row["sha256"]][self._index[row["host_id"]]] = True
        return found


def _by_host(ranges: Sequence[addresses.Range]) -> dict[str | None, tuple[addresses.Range, ...]]:
    """Return the ranges that are good on each host that has some of its own, and on all others (None)."""
    own = {r.host_id for r in ranges}
    return {one: tuple(r for r in ranges if r.host_id in (None, one)) for one in {None, *own}}


def _hosts() -> sa.Select[Any]:
    return (
        sa.select(
            _HOST.c.id, _HOST.c.name, _HOST.c.state, _HOST.c.driver, _HOST.c.cpus, _HOST.c.memory_mib,
            _HOST.c.cpu_overcommit, _HOST.c.memory_overcommit, _HOST.c.cpu_learned_max,
            _HOST.c.labels, _HOST.c.capabilities, _HOST.c.version,
            _HOST.c.seen_at, _HOST.c.retry_at, _HOST.c.facts["memory_mib"].as_integer().label("physical_mib"),
            _HOST.c.facts["architecture"].as_string().label("architecture"),
            _HOST.c.cluster_id, _HOST.c.hardware,
            _CLUSTER.c.name.label("cluster"), _CLUSTER.c.cpu_overcommit.label("cluster_cpu_overcommit"),
            _CLUSTER.c.cpu_learned_max.label("cluster_cpu_learned_max"),
            _CLUSTER.c.memory_overcommit.label("cluster_memory"),
        )
        .where(_HOST.c.cluster_id == _CLUSTER.c.id, _HOST.c.live_name.is_not(None)).order_by(_HOST.c.name)
    )  # fmt: skip


BACKED_OFF = "backed-off"  # ready, but steps failed there because of it: passed over for a while


def _state(row: Mapping[Any, Any], at: datetime) -> str:
    resting = row["state"] == HostState.READY and row["retry_at"] is not None and row["retry_at"] > at
    return BACKED_OFF if resting else str(row["state"])


_ENABLED = (HostState.READY, HostState.UNREACHABLE)


def _is_unknown(host: Mapping[Any, Any]) -> bool:
    """Return whether a host may soon turn out to fit: it is being enrolled, or was not looked at yet."""
    return host["state"] == HostState.ENROLLING or (host["state"] in _ENABLED and host["seen_at"] is None)


def _looked_before(host: sa.RowMapping, datastore: sa.RowMapping) -> bool:
    """Return whether the last look at an enabled host was before a datastore was made."""
    return host["state"] in _ENABLED and host["seen_at"] is not None and host["seen_at"] < datastore["created_at"]


def _memory_ratio(row: Mapping[Any, Any]) -> float:
    own = row["memory_overcommit"]
    return float(row["cluster_memory"] if own is None else own)


def _kernels(capabilities: Mapping[str, Any]) -> tuple[str, ...] | None:
    said: Sequence[str] | None = capabilities.get("kernels")
    return None if said is None else tuple(said)


def _kinds(row: Mapping[Any, Any]) -> tuple[str, ...]:
    said: Sequence[str] = row["capabilities"].get("kinds") or hosts.KINDS.get(row["driver"], ())
    return tuple(str(kind) for kind in said)
