"""Instances that change on their host: more is reserved before the world changes, the record follows it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import hosts, images, leases, marks, placing, sql, tables
from control.changes import changed
from control.instances import Deployable
from control.ledger import Operation, guard
from control.placement import engine
from control.placement.model import Request
from control.placing_learned import Features
from control.placing_view import Cloud, shape_of
from control.waiting import wake
from core.clock import now
from core.errors import Busy, Conflict
from core.states import HostState

_T, _LEASE = tables.instance, tables.lease


def wanted(op: Operation, view: Deployable) -> Deployable:
    """Return an instance as it is to be when the operation is done."""
    return with_spec(view, changed(op.verb, view.spec, op.parameters))


def with_spec(view: Deployable, spec: InstanceSpec) -> Deployable:
    """Return an instance as a spec of it says: sizes, disks, and the leases of its NICs."""
    numbers = set(spec.nic_numbers())
    return replace(
        view, spec=spec, name=spec.name, cpu=spec.cpu, memory_mib=spec.memory_mib, root_mib=spec.disk_mib or 0,
        leases=[lease for lease in view.leases if lease.nic_index in numbers],
    )  # fmt: skip


def reserve_more(c: sa.Connection, op: Operation, features: Features | None = None) -> None:
    """Reserve on its host what an instance is to have more: cores, memory, disk, address. Raise NoCapacityNow.

    features: what was learned of the use of hosts.
    """
    guard(c, [op])
    row = c.execute(sa.select(_T).where(_T.c.id == op.subject_id).with_for_update()).mappings().one()
    spec = InstanceSpec.model_validate(row["spec"])
    want = changed(op.verb, spec, op.parameters)
    disk_mib = row["disk_mib"] + _disks(want) - _disks(spec) + _root(c, row, want) - _root(c, row, spec)
    known = set(spec.nic_numbers()) | _held(c, row["id"])
    new = tuple(n for n, number in zip(want.nics, want.nic_numbers(), strict=True) if number not in known)
    delta = want.model_copy(update={
        "cpu": max(0.0, want.cpu - row["cpu"]), "memory_mib": max(0, want.memory_mib - row["memory_mib"]), "nics": new,
    })  # fmt: skip
    if row["host_id"] is not None:
        _take(c, op, row, delta, max(0, disk_mib - row["disk_mib"]), features)
    marks.touch_of(c, [row["id"]])
    sql.update_each(c, _T, [{
        "id": row["id"], "cpu": max(want.cpu, row["cpu"]), "memory_mib": max(want.memory_mib, row["memory_mib"]),
        "disk_mib": max(disk_mib, row["disk_mib"]), "updated_at": now(),
    }])  # fmt: skip


def _take(
    c: sa.Connection, op: Operation, row: Mapping[Any, Any], delta: InstanceSpec, disk_mib: int,
    features: Features | None,
) -> None:  # fmt: skip
    """See that the host has room for what comes on top, as placement counts, and draw addresses for new NICs."""
    host = hosts.by_id(c, [row["host_id"]])[row["host_id"]]
    shape = shape_of(delta, row["kind"], disk_mib, None)
    shape = replace(
        shape, host=host.name, cluster=None, datastore=None, labels=(), arch="", where="", rank="", own_labels=(),
        rules=(), capabilities=frozenset(), pci=(), pinned=False, one_cell=False, hugepage_kib=0,
    )  # fmt: skip
    for _ in range(placing.ROUNDS):
        cloud = Cloud(c, {shape}, lock=True, features=features)
        named = zip(cloud.view.names, cloud.view.states, strict=True)
        states = tuple(_open(state) if name == host.name else state for name, state in named)
        request = Request(op.id, row["name"], shape)
        (choice,) = engine.choose(replace(cloud.view, states=states), [request], {})
        if choice.host is None:
            raise placing.refusal(cloud, request, choice, {}, op.parameters, None)
        if not placing.changed(c, cloud, {host.id}):
            break
    else:
        raise Busy(f"{row['name']}: other changes of {host.name} were faster, {placing.ROUNDS} times", op.subject)
    given, short = leases.draw(cloud, [(row["id"], delta, choice.host)])
    if short:
        raise Busy(f"no address is left for {row['name']}", op.subject)
    leases.write(c, given, now())


def _open(state: str) -> str:
    """What is there already may grow on a host that takes nothing new."""
    return HostState.READY if state in (HostState.DISABLED, "backed-off") else state


def _held(c: sa.Connection, instance_id: str) -> set[int]:
    return set(c.scalars(sa.select(_LEASE.c.nic_index).where(_LEASE.c.instance_id == instance_id)))


def _disks(spec: InstanceSpec) -> int:
    return sum(disk.size_mib for disk in spec.disks)


def _root(c: sa.Connection, row: Mapping[Any, Any], spec: InstanceSpec) -> int:
    if spec.disk_mib:
        return spec.disk_mib
    image = images.records(c, [row["image_id"]]).get(row["image_id"]) if row["image_id"] else None
    return image.virtual_size_mib if image else 0


def reserve_less(c: sa.Connection, op: Operation) -> None:
    """Give back what was reserved on top of what the record says. Raise Stale."""
    guard(c, [op])
    row = c.execute(sa.select(_T).where(_T.c.id == op.subject_id).with_for_update()).mappings().one()
    _write(c, row, InstanceSpec.model_validate(row["spec"]))


def record(c: sa.Connection, op: Operation) -> None:
    """Let the record say what an instance has become. Raise Stale, Conflict (its new name was taken meanwhile)."""
    guard(c, [op])
    row = c.execute(sa.select(_T).where(_T.c.id == op.subject_id).with_for_update()).mappings().one()
    want = changed(op.verb, InstanceSpec.model_validate(row["spec"]), op.parameters)
    if want.name != row["name"]:
        taken = c.execute(sa.select(_T.c.id).where(_T.c.live_name == want.name)).first()
        if taken is not None:
            raise Conflict(f"instance {want.name} exists already", f"instance/{want.name}", {}, "choose another name")
    _write(c, row, want)


def _write(c: sa.Connection, row: Mapping[Any, Any], spec: InstanceSpec) -> None:
    numbers = spec.nic_numbers()
    c.execute(
        sa.delete(_LEASE).where(_LEASE.c.instance_id == row["id"], _LEASE.c.nic_index.not_in(numbers or [-1]))
    )
    marks.touch_of(c, [row["id"]])
    c.execute(
        sa.update(_T).where(_T.c.id == row["id"]).values(
            spec=spec.model_dump(mode="json"), name=spec.name, live_name=spec.name, cpu=spec.cpu,
            memory_mib=spec.memory_mib, disk_mib=_root(c, row, spec) + _disks(spec), updated_at=now(),
        )
    )  # fmt: skip
    wake(c)
