"""Instances that ran on a host before rackflow: rows, reservations and leases for them, without touching them.

They keep their name on the host, and their disks where they are: outside of our datastores' folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import sqlalchemy as sa

from blueprints.instance import DiskSpec, InstanceSpec, NicSpec
from control import instances_on, marks, outbox, sql, tables
from control.accept.deploy import check_names_free
from control.hosts import HostRecord
from control.instances import lifecycle_event
from control.ledger import Operation, guard
from control.waiting import wake
from core.clock import now
from core.errors import Conflict
from core.ids import new_id
from core.states import InstanceKind, InstanceState, PowerState

IMAGE = "adopted"  # what stands in its spec where others have their image
_T, _LEASE, _NET, _NET_HOST = tables.instance, tables.lease, tables.network, tables.network_host
STATES = {
    PowerState.RUNNING: InstanceState.RUNNING, PowerState.PAUSED: InstanceState.SUSPENDED,
}  # all others are off  # fmt: skip


@dataclass(frozen=True)
class Foreigner:
    """What was found. name: with us; disks: (name, MiB), root first; nics: (MAC, bridge); addresses: as observed."""

    on_host: str
    name: str
    kind: InstanceKind
    cpu: float
    memory_mib: int
    disks: tuple[tuple[str, int], ...]
    nics: tuple[tuple[str, str], ...]
    addresses: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def check(c: sa.Connection, host: HostRecord, found: Sequence[Foreigner]) -> None:
    """Raise Conflict with every reason why some cannot be adopted: problems, networks, MACs or names that are taken."""
    nets = _networks(c, host)
    macs = [mac for one in found for mac, _ in one.nics]
    taken = {row["mac"] for row in sql.fetch_in(
        c, set(macs), lambda part: sa.select(_LEASE.c.mac).where(_LEASE.c.mac.in_(part))
    )}  # fmt: skip
    reasons: dict[str, list[str]] = {}
    for one in found:
        bad = list(one.problems)
        bad += [f"no network is on its bridge {bridge}" for _, bridge in one.nics if bridge not in nets]
        bad += [f"MAC {mac} is another instance's" for mac, _ in one.nics if mac in taken or macs.count(mac) > 1]
        if bad:
            reasons[one.on_host] = bad
    if reasons:
        listed = "; ".join(f"{name}: {', '.join(bad)}" for name, bad in list(reasons.items())[:5])
        raise Conflict(
            f"{len(reasons)} instances of host {host.name} cannot be adopted: {listed}", f"host/{host.name}",
            {"reasons": reasons}, "mend that, or leave them out",
        )  # fmt: skip
    check_names_free(c, [one.name for one in found])


def _networks(c: sa.Connection, host: HostRecord) -> dict[str, sa.RowMapping]:
    """Return bridge -> the network, seen on this host, that is on it; the oldest where there are several."""
    rows = c.execute(
        sa.select(_NET).where(_NET.c.id == _NET_HOST.c.network_id, _NET_HOST.c.host_id == host.id)
        .order_by(_NET.c.created_at.desc(), _NET.c.id.desc())
    ).mappings()  # fmt: skip
    return {row["bridge"]: row for row in rows}


def record(
    c: sa.Connection, op: Operation, host: HostRecord, found: Sequence[Foreigner], ids: Mapping[str, str]
) -> None:
    """Write rows, reservations and leases. ids: by name on the host. Raise Stale, Conflict.

    They are not to be used before they bear our mark, so they are in a passing state. What runs already is reserved
    even where that is more than the host has.
    """
    guard(c, [op])
    check(c, host, found)
    nets, store, at = _networks(c, host), _datastore(c, host), now()
    rows = [_row(one, ids[one.on_host], op, host, store, nets) for one in found]
    sql.insert(c, _T, [{**row, "created_at": at, "updated_at": at} for row in rows])
    taken = set(c.scalars(sa.select(_LEASE.c.address).where(_LEASE.c.address.is_not(None))))
    sql.insert(c, _LEASE, [
        {"id": new_id(), "instance_id": ids[one.on_host], "nic_index": index, "mac": mac,
         "network_id": nets[bridge]["id"], **_address(one, nets[bridge], taken), "created_at": at}
        for one in found for index, (mac, bridge) in enumerate(one.nics)
    ])  # fmt: skip
    h = tables.host
    c.execute(sa.update(h).where(h.c.id == host.id).values(version=h.c.version + 1))
    outbox.emit_all(c, [
        lifecycle_event({**row, "host": host.name, "image": None}, None, InstanceState.STAGING, "adopted")
        for row in rows
    ])  # fmt: skip


def _datastore(c: sa.Connection, host: HostRecord) -> str | None:
    """Return the datastore for what is made of them later (backups, images): the oldest of this host's own."""
    d, dh = tables.datastore, tables.datastore_host
    return c.scalar(
        sa.select(d.c.id).where(d.c.id == dh.c.datastore_id, dh.c.host_id == host.id, d.c.shared.is_(False))
        .order_by(d.c.created_at, d.c.id).limit(1)
    )  # fmt: skip


def _row(
    one: Foreigner, row_id: str, op: Operation, host: HostRecord, store: str | None,
    nets: Mapping[str, sa.RowMapping],
) -> dict[str, Any]:  # fmt: skip
    sizes = [max(1, mib) for _, mib in one.disks]
    spec = InstanceSpec(
        name=one.name, kind=one.kind, image=IMAGE, cpu=max(0.01, one.cpu), memory_mib=max(1, one.memory_mib),
        disk_mib=sizes[0] if sizes else None,
        disks=tuple(DiskSpec(name=name, size_mib=max(1, mib)) for name, mib in one.disks[1:]),
        nics=tuple(NicSpec(network=nets[bridge]["name"]) for _, bridge in one.nics),
    )  # fmt: skip
    return {
        "id": row_id, "name": one.name, "live_name": one.name, "kind": one.kind, "state": InstanceState.STAGING,
        "owner": op.asked_by, "cpu": spec.cpu, "memory_mib": spec.memory_mib, "disk_mib": sum(sizes), "image_id": None,
        "host_id": host.id, "datastore_id": store, "host_name": one.on_host, "spec": spec.model_dump(mode="json"),
        "labels": {}, "blueprint": "", "epoch": 0, "reason": "", "deleted_at": None,
    }  # fmt: skip


def _address(one: Foreigner, net: Mapping[Any, Any], taken: set[str | None]) -> dict[str, Any]:
    """Return the observed address that belongs to a network, if nobody else has it; else none is known."""
    nothing = {"address": None, "prefix_length": 0, "gateway": ""}
    if not net["subnet"] or net["addressing"] == "dhcp":
        return nothing
    subnet = ip_network(net["subnet"], strict=False)
    for address in one.addresses:
        if address not in taken and ip_address(address) in subnet:
            taken.add(address)
            return {"address": address, "prefix_length": subnet.prefixlen, "gateway": net["gateway"]}
    return nothing


def overbooked(c: sa.Connection, host: HostRecord) -> dict[str, Any]:
    """Return what is reserved on a host beyond what it has; {} = nothing."""
    held = instances_on.reserved(c, [host.id]).get(host.id, instances_on.NOTHING)
    found = {"cpu": (held.cpu, host.cpus), "memory_mib": (held.memory_mib, host.memory_mib)}
    return {what: {"reserved": used, "has": has} for what, (used, has) in found.items() if used > has}


def complete(c: sa.Connection, op: Operation, powers: Mapping[str, PowerState]) -> None:
    """Write that adopted instances are ours, by id with the power that was seen. Raise Stale."""
    guard(c, [op])
    for row in _rows(c, list(powers)):
        state = STATES.get(powers[row["id"]], InstanceState.OFF)
        c.execute(sa.update(_T).where(_T.c.id == row["id"]).values(state=state, updated_at=now()))
        outbox.emit_all(c, [lifecycle_event({**row, "image": None}, row["state"], state)])


def take_back(c: sa.Connection, op: Operation, ids: Sequence[str]) -> None:
    """Forget instances that were not adopted after all; on their host they stay as they are. Raise Stale."""
    guard(c, [op])
    rows = _rows(c, ids)
    outbox.emit_all(c, [
        lifecycle_event({**row, "image": None}, row["state"], InstanceState.DELETED, "not adopted") for row in rows
    ])  # fmt: skip
    there = [row["id"] for row in rows]
    at = now()
    sql.run_in(c, there, lambda part: sa.delete(_LEASE).where(_LEASE.c.instance_id.in_(part)))
    marks.touch_of(c, there)
    sql.run_in(c, there, lambda part: sa.update(_T).where(_T.c.id.in_(part)).values(
        state=InstanceState.DELETED, live_name=None, host_id=None, datastore_id=None, reason="", deleted_at=at,
        updated_at=at,
    ))  # fmt: skip
    wake(c)


def _rows(c: sa.Connection, ids: Sequence[str]) -> list[sa.RowMapping]:
    """Lock and return those of these instances whose adoption has not ended, with the name of their host."""
    h = tables.host
    return sql.fetch_in(
        c, ids,
        lambda part: sa.select(_T, h.c.name.label("host")).select_from(_T.outerjoin(h, h.c.id == _T.c.host_id))
        .where(_T.c.id.in_(part), _T.c.state == InstanceState.STAGING).with_for_update(of=_T),
    )  # fmt: skip
