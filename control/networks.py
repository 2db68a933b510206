"""Virtual networks: a bridge by the same name on hosts, and where its addresses come from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from blueprints.network import NetworkSpec
from control import addresses, clusters, reach, sql, tables
from control.access import Principal, require_admin
from control.waiting import wake
from core.clock import now, rfc3339
from core.errors import Conflict, no_such
from core.ids import new_id

_T, _RANGE, _LEASE = tables.network, tables.address_range, tables.lease
_ALL = sa.select(_T).order_by(_T.c.name)
_FIELDS = ("kind", "bridge", "addressing", "subnet", "gateway", "nameservers", "default_for", "labels", "cluster")
_FIXED = {"kind", "bridge", "addressing", "subnet"}  # while leases stand


@dataclass(frozen=True)
class NetworkRecord:
    """A network. cluster_id None: of every cluster; subnet and gateway "" where they are not its own."""

    id: str
    name: str
    kind: str
    bridge: str
    addressing: str
    subnet: str
    gateway: str
    nameservers: list[str]
    default_for: list[str]
    cluster_id: str | None


def _record(row: sa.RowMapping) -> NetworkRecord:
    return NetworkRecord(**{name: row[name] for name in NetworkRecord.__dataclass_fields__})


def records(c: sa.Connection) -> dict[str, NetworkRecord]:
    """Return name -> network, all of them."""
    return {row["name"]: _record(row) for row in c.execute(_ALL).mappings()}


def ranges(c: sa.Connection, network_ids: Collection[str]) -> dict[str, list[addresses.Range]]:
    """Return network id -> its address ranges, lowest first."""
    found: dict[str, list[addresses.Range]] = {one: [] for one in network_ids}
    for row in sql.fetch_in(c, set(network_ids), lambda part: sa.select(_RANGE).where(_RANGE.c.network_id.in_(part))):
        found[row["network_id"]].append(addresses.Range(
            addresses.number(row["first"]), addresses.number(row["last"]), row["prefix_length"], row["gateway"],
            row["host_id"],
        ))  # fmt: skip
    return {one: sorted(items, key=lambda item: item.first) for one, items in found.items()}


_SHARED = sa.select(
    _RANGE.c.network_id, _RANGE.c.first, _RANGE.c.last, _RANGE.c.prefix_length, _RANGE.c.gateway
).where(sql.among(_RANGE.c.network_id), _RANGE.c.host_id.is_(None))
_TAKEN = sa.select(_LEASE.c.address).where(
    _LEASE.c.network_id == sa.bindparam("network"), _LEASE.c.address.is_not(None)
)


def shared_ranges(c: sa.Connection, network_ids: Collection[str]) -> dict[str, tuple[addresses.Range, ...]]:
    """Return network id -> its address ranges that are good on every host, lowest first."""
    found: dict[str, list[addresses.Range]] = {one: [] for one in network_ids}
    for network_id, first, last, length, gateway in sql.tuples_among(c, network_ids, _SHARED):
        found[network_id].append(addresses.Range(addresses.number(first), addresses.number(last), length, gateway))
    return {one: tuple(sorted(items, key=lambda item: item.first)) for one, items in found.items()}


def taken(c: sa.Connection, network_ids: Collection[str]) -> dict[str, set[int]]:
    """Return network id -> the addresses that instances hold."""
    return {one: set(addresses.numbers(c.scalars(_TAKEN, {"network": one}).all())) for one in network_ids}


def leased(c: sa.Connection, network_ids: Collection[str]) -> dict[str, dict[int, str]]:
    """Return network id -> address -> id of the instance that holds it."""
    found: dict[str, dict[int, str]] = {one: {} for one in network_ids}
    for row in sql.fetch_in(
        c, set(network_ids),
        lambda part: sa.select(_LEASE.c.network_id, _LEASE.c.address, _LEASE.c.instance_id)
        .where(_LEASE.c.network_id.in_(part), _LEASE.c.address.is_not(None)),
    ):  # fmt: skip
        found[row["network_id"]][addresses.number(row["address"])] = row["instance_id"]
    return found


def _wanted(spec: NetworkSpec) -> dict[str, Any]:
    return {
        "kind": spec.kind, "bridge": spec.bridge, "addressing": spec.addressing,
        "subnet": str(spec.subnet) if spec.subnet else "", "gateway": str(spec.gateway) if spec.gateway else "",
        "nameservers": [str(one) for one in spec.nameservers], "default_for": list(spec.default_for),
        "labels": spec.labels, "cluster": spec.cluster,
    }  # fmt: skip


def _wanted_ranges(spec: NetworkSpec) -> list[addresses.Range]:
    if spec.subnet is None:
        return []
    gateway, length = str(spec.gateway) if spec.gateway else "", spec.subnet.network.prefixlen
    found = [addresses.Range(int(item.first), int(item.last), length, gateway) for item in spec.ranges]
    return sorted(found, key=lambda item: item.first)


def differs(c: sa.Connection, spec: NetworkSpec) -> list[str] | None:
    """Return the fields in which the record differs from a spec; None: there is no such network."""
    t = tables.cluster
    row = c.execute(
        sa.select(_T, t.c.name.label("cluster")).outerjoin(t, t.c.id == _T.c.cluster_id).where(_T.c.name == spec.name)
    ).mappings().one_or_none()  # fmt: skip
    if row is None:
        return None
    wanted = _wanted(spec)
    changed = [field for field in _FIELDS if row[field] != wanted[field]]
    if spec.addressing == "pool" and ranges(c, [row["id"]])[row["id"]] != _wanted_ranges(spec):
        changed.append("ranges")
    return changed


def ensure(c: sa.Connection, principal: Principal, spec: NetworkSpec) -> tuple[str, bool]:
    """Make a network, or give it these values; return its id and whether anything changed. Raise Denied, Conflict."""
    require_admin(principal, "change networks")
    changed = differs(c, spec)
    if changed == []:
        return records(c)[spec.name].id, False
    values = _wanted(spec)
    cluster = values.pop("cluster")
    values["cluster_id"] = clusters.id_of(c, cluster) if cluster else None
    _check(c, spec, values["cluster_id"])
    at = now()
    if changed is None:
        row_id = new_id()
        sql.insert(c, _T, [{"id": row_id, "name": spec.name, "created_at": at, **values}])
    else:
        row_id = records(c)[spec.name].id
        _check_leases(c, spec, row_id, changed)
        c.execute(sa.update(_T).where(_T.c.id == row_id).values(values))
        c.execute(sa.delete(_RANGE).where(_RANGE.c.network_id == row_id))
    sql.insert(c, _RANGE, [reach.range_row(row_id, item) for item in _wanted_ranges(spec)])
    reach.spread_network(c, row_id, at)
    wake(c)
    return row_id, True


def _check(c: sa.Connection, spec: NetworkSpec, cluster_id: str | None) -> None:
    """Raise Conflict for ranges that overlap and for a second default network of a kind."""
    items = _wanted_ranges(spec)
    for one, other in pairwise(items):
        if other.first <= one.last:
            raise Conflict(f"ranges of network {spec.name} overlap", f"network/{spec.name}")
    for net in records(c).values():
        both = set(net.default_for) & set(spec.default_for)
        near = None in (net.cluster_id, cluster_id) or net.cluster_id == cluster_id
        if both and near and net.name != spec.name:
            raise Conflict(
                f"network {net.name} is already the default for {', '.join(sorted(both))}", f"network/{spec.name}",
                {"default": net.name}, f"take default_for away from {net.name} first",
            )  # fmt: skip


def _check_leases(c: sa.Connection, spec: NetworkSpec, network_id: str, changed: list[str]) -> None:
    """Raise Conflict when instances hold addresses that the change would pull away."""
    held = leased(c, [network_id])[network_id]
    users = list(c.scalars(sa.select(_LEASE.c.instance_id).where(_LEASE.c.network_id == network_id)))
    wrong = sorted(_FIXED & set(changed))
    inside = _wanted_ranges(spec)
    outside = [a for a in held if "ranges" in changed and addresses.range_with(inside, a) is None]
    if users and (wrong or outside):
        what = " and ".join(wrong) or f"ranges (they leave out {addresses.text(outside[0])}, which is leased)"
        raise Conflict(
            f"network {spec.name} is used by {len(set(users))} instances: its {what} cannot change",
            f"network/{spec.name}", {"instances": sorted(set(users)), "changed": changed},
            "delete those instances, or make another network",
        )  # fmt: skip


def delete(c: sa.Connection, principal: Principal, name: str) -> None:
    """Forget a network that no instance is in; bridges on hosts stay. Raise Denied, NotFound, Conflict."""
    require_admin(principal, "change networks")
    found = records(c).get(name)
    if found is None:
        raise no_such("network", name)
    t = tables.instance
    used = sa.select(t.c.name).join(_LEASE, _LEASE.c.instance_id == t.c.id).where(_LEASE.c.network_id == found.id)
    if users := sorted(set(c.scalars(used))):
        raise Conflict(
            f"network {name} is used by {', '.join(users[:5])}", f"network/{name}", {"instances": users},
            "delete those instances first",
        )  # fmt: skip
    for table in (tables.network_host, _RANGE):
        c.execute(sa.delete(table).where(table.c.network_id == found.id))
    c.execute(sa.delete(_T).where(_T.c.id == found.id))


def list_(c: sa.Connection, principal: Principal, *, name: str | None = None) -> list[dict[str, Any]]:
    """Return networks with ranges, leased and free addresses and the hosts they reach, by name."""
    t, nh, h = tables.cluster, tables.network_host, tables.host
    statement = sa.select(_T, t.c.name.label("cluster")).outerjoin(t, t.c.id == _T.c.cluster_id).order_by(_T.c.name)
    if name is not None:
        statement = statement.where(sa.or_(_T.c.name == name, _T.c.id == name))
    rows = c.execute(statement).mappings().all()
    ids = [row["id"] for row in rows]
    pools, held = ranges(c, ids), leased(c, ids)
    hosts: dict[str, list[dict[str, Any]]] = {}
    for row in sql.fetch_in(
        c, ids,
        lambda part: sa.select(nh.c.network_id, nh.c.cidr, h.c.name)
        .where(nh.c.host_id == h.c.id, nh.c.network_id.in_(part)).order_by(h.c.name),
    ):  # fmt: skip
        hosts.setdefault(row["network_id"], []).append({"host": row["name"], "cidr": row["cidr"] or None})
    return [_view(row, pools[row["id"]], set(held[row["id"]]), hosts.get(row["id"], [])) for row in rows]


def show(c: sa.Connection, principal: Principal, name: str) -> dict[str, Any]:
    """Return one network with its leases, by name or id. Raise NotFound."""
    found = list_(c, principal, name=name)
    if not found:
        raise no_such("network", name)
    t = tables.instance
    rows = c.execute(
        sa.select(_LEASE.c.address, _LEASE.c.mac, t.c.name.label("instance"))
        .where(_LEASE.c.instance_id == t.c.id, _LEASE.c.network_id == found[0]["id"]).order_by(t.c.name)
    )  # fmt: skip
    return {**found[0], "leases": [dict(row) for row in rows.mappings()]}


def _view(
    row: sa.RowMapping, pool: list[addresses.Range], held: set[int], hosts: list[dict[str, Any]]
) -> dict[str, Any]:
    unusable = addresses.reserved(row["subnet"], row["gateway"])
    return {
        "id": row["id"], "name": row["name"], "kind": row["kind"], "bridge": row["bridge"],
        "addressing": row["addressing"], "subnet": row["subnet"] or None, "gateway": row["gateway"] or None,
        "nameservers": row["nameservers"], "default_for": row["default_for"], "cluster": row["cluster"],
        "labels": row["labels"],
        "ranges": [{"first": addresses.text(r.first), "last": addresses.text(r.last)} for r in pool],
        "leased": len(held), "free": addresses.count_free(pool, held | unusable), "hosts": hosts,
        "created_at": rfc3339(row["created_at"]),
    }  # fmt: skip
