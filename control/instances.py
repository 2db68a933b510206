"""Instances: their state, what they hold, and all that the tasks need to know to make one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import datastores, drift, hosts, images, leases, marks, outbox, sql, tables
from control.datastores import DatastoreRecord
from control.hosts import HostRecord
from control.images import ImageRecord
from control.instance_views import id_of, list_, show
from control.ledger import Operation, guard
from control.lifecycle import ON_HOST, no_return
from control.placing_lives import template_of
from control.steps import steps_of
from control.waiting import wake
from core.clock import now
from core.errors import Unsupported
from core.ids import on_host
from core.states import UNFINISHED, ImageState, InstanceKind, InstanceState

__all__ = [
    "Deployable", "LeaseRecord", "deployables", "free", "id_of", "list_", "mark_deleted", "no_image", "not_deleted",
    "not_parked", "places", "release", "set_state", "set_states", "show",
]  # fmt: skip

_T, _LEASE = tables.instance, tables.lease
_HOST, _IMAGE, _NET, _NET_HOST = tables.host, tables.image, tables.network, tables.network_host
_BY_ID = sa.select(_T).where(sql.among(_T.c.id))
_LOCKED = (
    sa.select(_T.c.id).where(sql.among(_T.c.id), _T.c.live_name.is_not(None)).order_by(_T.c.id).with_for_update()
)
_FOR_EVENTS = sa.select(
    _T.c.id, _T.c.name, _T.c.state, _T.c.epoch, _T.c.kind, _T.c.owner, _T.c.cpu, _T.c.memory_mib, _T.c.disk_mib,
    _T.c.reason, _T.c.blueprint, _HOST.c.name.label("host"), _IMAGE.c.name.label("image"),
).select_from(
    _T.outerjoin(_HOST, _HOST.c.id == _T.c.host_id).outerjoin(_IMAGE, _IMAGE.c.id == _T.c.image_id)
).where(sql.among(_T.c.id))  # fmt: skip
_LEASES = sa.select(
    _LEASE.c.instance_id, _LEASE.c.nic_index, _LEASE.c.mac, _LEASE.c.address, _LEASE.c.prefix_length,
    _LEASE.c.gateway, _NET.c.name.label("network"), _NET.c.kind, _NET.c.bridge, _NET.c.addressing,
    _NET.c.nameservers, _NET_HOST.c.cidr,
).select_from(
    _LEASE.join(_NET, _NET.c.id == _LEASE.c.network_id).join(_T, _T.c.id == _LEASE.c.instance_id)
    .outerjoin(_NET_HOST, sa.and_(_NET_HOST.c.network_id == _NET.c.id, _NET_HOST.c.host_id == _T.c.host_id))
).where(sql.among(_LEASE.c.instance_id)).order_by(_LEASE.c.instance_id, _LEASE.c.nic_index)  # fmt: skip
_PLACES = sa.select(_T.c.id, _HOST.c.name.label("host"), _IMAGE.c.state.label("image_state")).select_from(
    _T.outerjoin(_HOST, _HOST.c.id == _T.c.host_id).outerjoin(_IMAGE, _IMAGE.c.id == _T.c.image_id)
).where(sql.among(_T.c.id))  # fmt: skip
StateChange = tuple[str, InstanceState, int, str]  # instance id, state, epoch, reason


@dataclass(frozen=True)
class LeaseRecord:
    """One NIC's place in a network. cidr: of the bridge on the instance's host; address None: DHCP."""

    network: str
    kind: str
    bridge: str
    cidr: str
    addressing: str
    nic_index: int
    mac: str
    address: str | None
    prefix_length: int
    gateway: str
    nameservers: tuple[str, ...]


@dataclass(frozen=True)
class Deployable:
    """An instance with all that it is made of. host and datastore None: not placed; root_mib 0: as the image.

    other, other_datastore: where it comes from or goes to while it moves. image None: it was adopted.
    granted, other_granted: what of these hosts is its alone (placing_hardware.py).
    """

    id: str
    name: str
    kind: InstanceKind
    state: InstanceState
    owner: str
    cpu: float
    memory_mib: int
    disk_mib: int
    root_mib: int
    labels: dict[str, str]
    epoch: int
    reason: str
    spec: InstanceSpec
    host: HostRecord | None
    datastore: DatastoreRecord | None
    other: HostRecord | None
    other_datastore: DatastoreRecord | None
    image: ImageRecord | None
    leases: list[LeaseRecord]
    host_name: str
    granted: dict[str, Any] | None
    other_granted: dict[str, Any] | None
    created_at: datetime

    @property
    def on_host(self) -> str:
        """Return its name on its host."""
        return self.host_name or on_host(self.id)

    def require_image(self) -> ImageRecord:
        """Return its image. Raise Unsupported for one that was adopted and has none."""
        if self.image is None:
            raise no_image(self.name)
        return self.image


def no_image(name: str) -> Unsupported:
    """Return the error of what needs the image of an instance that has none."""
    return Unsupported(
        f"{name} was adopted and has no image", f"instance/{name}", {},
        "save its disk as an image first: rackflow instance save-image",
    )  # fmt: skip


def set_state(
    c: sa.Connection, instance_id: str, state: InstanceState, *, epoch: int, reason: str = ""
) -> bool:
    """Give an instance a state unless a newer epoch has changed it; return whether the state was taken."""
    return set_states(c, [(instance_id, state, epoch, reason)])[0]


def set_states(c: sa.Connection, changes: Sequence[StateChange]) -> list[bool]:
    """Do as `set_state` for several instances, in few statements; the answers come in the same order."""
    rows = {row["id"]: row for row in _for_events(c, [change[0] for change in changes])}
    taken = [row_id in rows and rows[row_id]["epoch"] <= epoch for row_id, _, epoch, _ in changes]
    valid = [change for change, ok in zip(changes, taken, strict=True) if ok]
    at = now()
    sql.update_each(
        c, _T,
        [{"id": row_id, "state": state, "epoch": epoch, "reason": reason[:1024], "updated_at": at}
         for row_id, state, epoch, reason in valid],
    )  # fmt: skip
    outbox.emit_all(c, [
        lifecycle_event(rows[row_id], rows[row_id]["state"], state, reason)
        for row_id, state, _, reason in valid
        if (rows[row_id]["state"], rows[row_id]["reason"]) != (state, reason[:1024])
    ])  # fmt: skip
    return taken


def _for_events(c: sa.Connection, ids: Sequence[str]) -> list[sa.RowMapping]:
    """Lock instances that are not deleted and return them with the names that their events bear."""
    locked = sql.fetch_among(c, set(ids), _LOCKED)
    return sql.fetch_among(c, [row["id"] for row in locked], _FOR_EVENTS)


def lifecycle_event(
    row: Mapping[Any, Any], before: str | None, after: InstanceState, reason: str = ""
) -> outbox.Event:
    """Return the event of a change of state."""
    payload = {
        "instance": row["name"], "instance_id": row["id"], "kind": row["kind"], "from": before, "to": after,
        "host": row["host"], "image": row["image"], "owner": row["owner"],
        "template": template_of(row["blueprint"], row["image"]), "cpu": row["cpu"],
        "memory_mib": row["memory_mib"], "disk_mib": row["disk_mib"], "reason": reason or None,
    }  # fmt: skip
    return "lifecycle", f"instance/{row['id']}", payload


def release(c: sa.Connection, op: Operation, instance_id: str) -> None:
    """Free what an instance holds: host, room, addresses; deploys that wait for room are tried again. Raise Stale."""
    guard(c, [op])
    _free(c, instance_id)


def free(c: sa.Connection, op: Operation, instance_id: str) -> None:
    """Take an instance off its host; it keeps its MACs, and the addresses that are good on every host. Raise Stale."""
    guard(c, [op])
    leases.let_go(c, instance_id)
    _off_host(c, instance_id)


def _free(c: sa.Connection, instance_id: str, **values: Any) -> None:
    c.execute(sa.delete(_LEASE).where(_LEASE.c.instance_id == instance_id))
    _off_host(c, instance_id, **values)


def _off_host(c: sa.Connection, instance_id: str, **values: Any) -> None:
    nothing = {"host_id": None, "datastore_id": None, "other_host_id": None, "other_datastore_id": None,
               "granted": None, "other_granted": None}  # fmt: skip
    marks.touch_of(c, [instance_id])
    c.execute(sa.update(_T).where(_T.c.id == instance_id).values(**nothing, updated_at=now(), **values))
    wake(c)


def mark_deleted(c: sa.Connection, op: Operation, instance_id: str) -> None:
    """Write that an instance is gone: it holds nothing, and its name is free again. Raise Stale."""
    guard(c, [op])
    rows = _for_events(c, [instance_id])
    c.execute(sa.delete(tables.snapshot).where(tables.snapshot.c.instance_id == instance_id))
    drift.ask_nobody(c, f"instance/{instance_id}")
    if rows:
        outbox.emit_all(c, [lifecycle_event(rows[0], rows[0]["state"], InstanceState.DELETED)])
        _free(
            c, instance_id, state=InstanceState.DELETED, live_name=None, deleted_at=now(), reason="",
            epoch=max(rows[0]["epoch"], op.epoch),
        )  # fmt: skip


def not_deleted(c: sa.Connection, op: Operation, instance_id: str, reason: str) -> None:
    """Leave an instance as it is when its delete ended before it began; what was begun there has failed. Raise Stale.

    What it was when the delete was asked for may be over: that may have been in the middle of another verb.
    """
    guard(c, [op])
    if no_return(op.verb, {step.name: step.state for step in steps_of(c, [op.id])[op.id]}):
        set_state(c, instance_id, InstanceState.FAILED, epoch=op.epoch, reason=reason)
    else:  # no later claim gets the epoch of this one
        c.execute(sa.update(_T).where(_T.c.id == instance_id, _T.c.epoch < op.epoch).values(epoch=op.epoch))


def not_parked(c: sa.Connection, ids: Collection[str], *, lock: bool) -> set[str]:
    """Return those of which the front-end need keep no files: deleted or on a host, with nothing under way.

    lock: nor can anything begin before the transaction ends.
    """
    op = tables.operation

    def build(part: list[Any]) -> sa.Select[Any]:
        query = sa.select(_T.c.id, _T.c.state).where(_T.c.id.in_(part)).order_by(_T.c.id)
        return query.with_for_update() if lock else query

    rows = sql.fetch_in(c, sorted(ids), build)
    idle = {row["id"] for row in rows if row["state"] in {*ON_HOST, InstanceState.DELETED}}
    changing = sql.fetch_in(
        c, [f"instance/{one}" for one in sorted(idle)],
        lambda part: sa.select(op.c.subject).where(op.c.subject.in_(part), op.c.state.in_(UNFINISHED)),
    )  # fmt: skip
    return (idle | set(ids) - {row["id"] for row in rows}) - {
        row["subject"].removeprefix("instance/") for row in changing
    }  # fmt: skip


def places(c: sa.Connection, instance_ids: Sequence[str]) -> dict[str, tuple[str | None, ImageState | None]]:
    """Return id -> the host that an instance is on and the state of its image; None: on no host, without an image."""
    rows = sql.fetch_among(c, set(instance_ids), _PLACES)
    return {row["id"]: (row["host"], ImageState(row["image_state"]) if row["image_state"] else None) for row in rows}


def deployables(c: sa.Connection, instance_ids: Sequence[str]) -> dict[str, Deployable]:
    """Return id -> instance with host, datastore, image and leases, deleted ones too; in a handful of queries."""
    rows = sql.fetch_among(c, set(instance_ids), _BY_ID)
    on = hosts.by_id(c, _named(rows, "host_id", "other_host_id"))
    stores = datastores.by_id(c, _named(rows, "datastore_id", "other_datastore_id"))
    contents = images.records(c, _named(rows, "image_id"))
    held = _leases(c, rows)
    found: dict[str, Deployable] = {}
    for row in rows:
        spec = InstanceSpec.model_validate(row["spec"])
        found[row["id"]] = Deployable(
            id=row["id"], name=row["name"], kind=InstanceKind(row["kind"]), state=InstanceState(row["state"]),
            owner=row["owner"], cpu=row["cpu"], memory_mib=row["memory_mib"], disk_mib=row["disk_mib"],
            root_mib=spec.disk_mib or 0, labels=row["labels"], epoch=row["epoch"], reason=row["reason"], spec=spec,
            host=on.get(row["host_id"]), datastore=stores.get(row["datastore_id"]),
            other=on.get(row["other_host_id"]), other_datastore=stores.get(row["other_datastore_id"]),
            image=contents.get(row["image_id"]), leases=held.get(row["id"], []), host_name=row["host_name"],
            granted=row["granted"], other_granted=row["other_granted"],
            created_at=row["created_at"],
        )  # fmt: skip
    return found


def _named(rows: Sequence[Mapping[Any, Any]], *columns: str) -> set[str]:
    return {row[column] for row in rows for column in columns if row[column]}


def _leases(c: sa.Connection, instances: Sequence[Mapping[Any, Any]]) -> dict[str, list[LeaseRecord]]:
    found: dict[str, list[LeaseRecord]] = {}
    for row in sql.fetch_among(c, [row["id"] for row in instances], _LEASES):
        values = {name: row[name] for name in LeaseRecord.__dataclass_fields__}
        values.update(cidr=row["cidr"] or "", nameservers=tuple(row["nameservers"]))
        found.setdefault(row["instance_id"], []).append(LeaseRecord(**values))
    return found
