"""Instances that change hosts: a reservation on the target first, then the record switches, then the source is freed.

While one moves, its cpu, memory and disks are reserved on both hosts: `other_host_id` is the target before the record
switches and the source afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import (
    datastores,
    decisions,
    drift,
    hosts,
    images,
    leases,
    marks,
    placing,
    placing_asleep,
    rounds,
    sql,
    tables,
)
from control.datastores import DatastoreRecord
from control.ledger import Operation, Step, guard
from control.lifecycle import BEGUN, no_return, rule
from control.placement import engine
from control.placement.model import Request, Shape
from control.placement.weights import DEFAULT
from control.placing_hardware import grant
from control.placing_learned import Features
from control.placing_lives import expected_s, template_of
from control.placing_view import Cloud, shape_of
from control.steps import steps_of
from control.waiting import wake
from core.clock import now
from core.errors import Busy, HostFault
from core.states import InstanceKind, StepState, Verb

_T = tables.instance
# Kinds of hosts whose disks become those of another kind on their way (drivers/storage/reshape.py), while it is off.
CONVERTED = {"esxi": ("kvm",), "kvm": ("esxi",)}


def reserve(
    c: sa.Connection, op: Operation, features: Mapping[str, Any] | None = None, policy: str = DEFAULT
) -> str:
    """Choose and reserve the host that an instance moves to; return its name. Raise NoFit, NoCapacityNow, Busy."""
    guard(c, [op])
    row = _locked(c, op.subject_id)
    if row["other_host_id"] is not None:
        reserved = _name(c, row["other_host_id"])
        if reserved == decisions.host_for(c, op.id):  # by this step, which was cut off before it could end
            return reserved
        _let_go(c, row, drift.ALERT, "what has reserved it is not known")
    shape = shapes_for(c, op.verb, op.parameters, [row], features)[row["id"]]
    for _ in range(placing.ROUNDS):
        cloud = Cloud(c, {shape}, lock=True, without={row["id"]}, features=features)
        request = Request(op.id, row["name"], shape)
        (choice,) = engine.choose(cloud.view, [request], features, policy=policy)
        rounds.record(c, cloud.view, [request], features, policy, [choice])
        ids = decisions.record(
            c, [(choice, op.id, row["id"])], cloud.view.names, int((features or {}).get("version") or 0)
        )
        if choice.host is None:
            error = placing.refusal(cloud, request, choice, {}, op.parameters, ids[op.id])
            raise placing_asleep.told(c, cloud, [request], {request.key: error}, features, policy)[request.key]
        host_id = cloud.ids[choice.host]
        granted, short = grant(cloud.hardware, [(op.id, shape, choice.host)])
        if short or host_id in placing.changed(c, cloud, {host_id}):
            continue
        store = row["datastore_id"] if _shared(c, row) else cloud.stores.get(choice.datastore or "")
        _set(c, row["id"], other_host_id=host_id, other_datastore_id=store, other_granted=granted.get(op.id))
        return cloud.view.names[choice.host]
    raise Busy(f"{row['name']}: other placements were faster, {placing.ROUNDS} times", op.subject)


def shapes_for(
    c: sa.Connection, verb: Verb, parameters: Mapping[str, Any], rows: Sequence[Mapping[Any, Any]],
    features: Features | None = None,
) -> dict[str, Shape]:  # fmt: skip
    """Return instance id -> what its target must offer: as at the deployment, but another host, of the same driver.

    A host of another kind is a target only when it is named, of a VM that is off meanwhile.
    One where something of it is left is no target before that was taken away.
    """
    contents = images.records(c, {row["image_id"] for row in rows if row["image_id"]})
    sources = hosts.by_id(c, {row["host_id"] for row in rows})
    stores = datastores.by_id(c, {row["datastore_id"] for row in rows if row["datastore_id"]})
    owing = drift.owing(c, {f"instance/{row['id']}" for row in rows})
    kept = leases.kept(c, {row["id"] for row in rows})
    tried = parameters.get("avoid") or ()
    named = driver_of(c, parameters.get("host")) if verb is Verb.MIGRATE else ""
    found: dict[str, Shape] = {}
    for row in rows:
        spec, store = InstanceSpec.model_validate(row["spec"]), stores.get(row["datastore_id"])
        shared, source = is_shared(row, store), sources[row["host_id"]]
        avoid = {*tried, *owing.get(f"instance/{row['id']}", ())}
        image, drawn = contents.get(row["image_id"]), kept.get(row["id"], frozenset[int]())
        shape = shape_of(spec, row["kind"], 0 if shared else row["disk_mib"], image, avoid, drawn)
        where = store.name if shared and store is not None else shape.datastore
        wanted = asked_host(verb, parameters, spec)
        driver = named if is_converted(source.driver, named) and not shared else source.driver
        target = replace(shape, leaves=source.name, driver=driver, host=wanted, datastore=where)
        found[row["id"]] = lasting(target, row, features or {})
    return found


def driver_of(c: sa.Connection, name: str | None) -> str:
    """Return the driver of a live host by name, "" if there is none of that name."""
    return str(c.scalar(sa.select(tables.host.c.driver).where(tables.host.c.live_name == name)) or "") if name else ""


def is_converted(driver: str, other: str) -> bool:
    """Say whether a VM that is off can go from a host of one driver to one of another. Pure."""
    return other in CONVERTED.get(driver, ())


def lasting(shape: Shape, row: Mapping[Any, Any], features: Features) -> Shape:
    """Return a shape with how long the instance of a row is expected to live on. Pure but for the clock."""
    template, age_s = template_of(row["blueprint"], row["spec"]["image"]), (now() - row["created_at"]).total_seconds()
    left_s = expected_s(features, template, row["owner"], row["cpu"], row["memory_mib"], max(age_s, 1.0))
    return replace(shape, lifetime_s=left_s)


def asked_host(verb: Verb, parameters: Mapping[str, Any], spec: InstanceSpec) -> str | None:
    """Return the host that an operation is to bring an instance to, by name; None: we choose it. Pure."""
    return parameters.get("host") or (None if verb is Verb.FAILOVER else spec.requirements.host)


def came_to(steps: Sequence[Step]) -> str | None:
    """Return the host that an operation has brought its instance to, by its steps; None: to none. Pure."""
    done = {step.name: step.evidence or {} for step in steps if step.state is StepState.DONE}
    return done.get("switch", {}).get("to") or done.get("place", {}).get("host")


def is_shared(row: Mapping[Any, Any], store: DatastoreRecord | None) -> bool:
    """Say whether its disks are seen from other hosts too; a container's are its hypervisor's, on any datastore. Pure.

    store: the one that it is on.
    """
    return row["kind"] != InstanceKind.CONTAINER and store is not None and store.shared


def _shared(c: sa.Connection, row: Mapping[Any, Any]) -> bool:
    known = datastores.by_id(c, [row["datastore_id"]] if row["datastore_id"] else [])
    return is_shared(row, known.get(row["datastore_id"]))


def unreserve(c: sa.Connection, op: Operation) -> None:
    """Give back what is reserved on the other host. Raise Stale."""
    guard(c, [op])
    _free(c, op.subject_id)


def give_up(c: sa.Connection, op: Operation, row: Mapping[Any, Any]) -> None:
    """Give back what a move that never goes on has reserved; what may be left on its other host is owed to it."""
    states = {step.name: step.state for step in steps_of(c, [op.id])[op.id]}
    same_disks = _shared(c, row) and row["datastore_id"] == row["other_datastore_id"]
    if row["other_host_id"] is not None:
        _let_go(c, row, left_behind(op.verb, states, same_disks=same_disks), f"its {op.verb} was given up")


def left_behind(verb: Verb, states: Mapping[str, StepState], *, same_disks: bool) -> str | None:
    """Return the policy for what a move that was given up leaves on its other host; None: there is nothing. Pure.

    What may be the newest copy of something is a person's to judge: a guest that may have come to the target, or the
    copy on the source while the one on the target was never seen to start.
    """
    if states.get("switch") is StepState.DONE:  # the record has it on the target: the other host is the source
        return drift.REPAIR if same_disks or no_return(verb, states) else drift.ALERT
    begun = {name for name, state in states.items() if state in BEGUN}
    if "transfer" in begun:
        return drift.ALERT
    made = any(step.on_target and step.compensation for step in rule(verb).steps if step.name in begun)
    return drift.REPAIR if made else None


def _let_go(c: sa.Connection, row: Mapping[Any, Any], policy: str | None, why: str) -> None:
    if policy is not None:
        drift.open_(
            c, subject=f"instance/{row['id']}", host=_name(c, row["other_host_id"]), kind=drift.RESIDUE,
            recorded={"on": _name(c, row["host_id"])}, seen={"reason": why}, policy=policy,
        )  # fmt: skip
    _free(c, row["id"])


def _name(c: sa.Connection, host_id: str) -> str:
    return hosts.by_id(c, [host_id])[host_id].name


def _free(c: sa.Connection, instance_id: str) -> None:
    _set(c, instance_id, other_host_id=None, other_datastore_id=None, other_granted=None)
    wake(c)


def switch(c: sa.Connection, op: Operation, *, to: str) -> bool:
    """Let the record have an instance on its other host, of that name; addresses that are good on one host only follow.

    Return whether it was not there already. Raise Stale, Busy (no address is left there).
    """
    guard(c, [op])
    row = _locked(c, op.subject_id)
    here = hosts.by_id(c, [x for x in (row["host_id"], row["other_host_id"]) if x])
    if here[row["host_id"]].name == to:
        return False
    if row["other_host_id"] is None or here[row["other_host_id"]].name != to:
        raise HostFault(f"nothing is reserved on {to} for {row['name']}", op.subject, {"host": to})
    _set(
        c, row["id"], host_id=row["other_host_id"], datastore_id=row["other_datastore_id"],
        other_host_id=row["host_id"], other_datastore_id=row["datastore_id"], granted=row["other_granted"],
        other_granted=row["granted"],
    )  # fmt: skip
    t = tables.host
    c.execute(sa.update(t).where(t.c.id.in_(list(here))).values(version=t.c.version + 1))
    _readdress(c, op, row, row["other_host_id"])
    return True


def _readdress(c: sa.Connection, op: Operation, row: Mapping[Any, Any], host_id: str) -> None:
    spec = InstanceSpec.model_validate(row["spec"])
    missing = leases.undrawn(spec, leases.kept(c, [row["id"]]).get(row["id"], set()))
    if not missing.nics:
        return
    leases.let_go(c, row["id"])
    cloud = Cloud(c, {shape_of(missing, row["kind"], 0, None)}, lock=True)
    given, short = leases.draw(cloud, [(row["id"], missing, cloud.ids.index(host_id))])
    if short:
        raise Busy(f"no address is left for {row['name']} on its new host", op.subject)
    leases.write(c, given, now())


def _locked(c: sa.Connection, instance_id: str) -> sa.RowMapping:
    return c.execute(sa.select(_T).where(_T.c.id == instance_id).with_for_update()).mappings().one()


def _set(c: sa.Connection, instance_id: str, **values: Any) -> None:
    marks.touch_of(c, [instance_id])
    sql.update_each(c, _T, [{"id": instance_id, "updated_at": now(), **values}])
