"""Apply a blueprint: bring the record to what a file says, and start the operations that the world needs for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from blueprints.blueprint import Blueprint
from blueprints.host import HostSpec
from blueprints.image import ImageSpec
from blueprints.instance import InstanceSpec
from control import clusters, datastores, hosts, networks, placing_preview, requests, sql, tables
from control.accept.host import row_values
from control.access import Principal, require
from control.blueprint_diff import Changes, Plan, check_references, diff, is_in_place
from control.placement.weights import DEFAULT
from control.requests import Accepted
from core.clock import now
from core.states import HostState, Verb

__all__ = ["Changes", "Plan", "apply"]


def apply(
    c: sa.Connection, principal: Principal, blueprint: Blueprint, *, prune: bool = False, source: str = "api",
    key: str | None = None, dry_run: bool = False, features: Mapping[str, Any] | None = None, policy: str = DEFAULT,
) -> Plan:  # fmt: skip
    """Make what is missing, change what differs, leave the rest; return what was done (dry_run: would be done).

    prune: delete instances beyond a lower count. All of it or nothing, in the order clusters, datastores, networks,
    images, hosts, instances. dry_run only reads. Raise Invalid, NotFound, Denied, Conflict.
    """
    plan = diff(c, principal, blueprint, prune=prune, dry_run=dry_run)
    if dry_run:
        check_references(c, blueprint)
        new = [spec for spec in blueprint.expanded() if spec.name in plan.instances.create]
        plan.placements = placing_preview.plan(c, principal, new, features, policy)
        return plan
    _nouns(c, principal, blueprint, plan)
    _images(c, principal, blueprint.images, plan)
    enrolled = _hosts(c, principal, blueprint.hosts, plan)
    _labels(c, blueprint, plan)
    bodies: tuple[tuple[Verb, dict[str, Any]], ...] = (
        (Verb.IMPORT, {"images": [spec for spec in blueprint.images if spec.name in plan.images.create]}),
        (Verb.ENROLL, {"hosts": enrolled}),
        (Verb.DEPLOY, {"instances": [s for s in blueprint.expanded() if s.name in plan.instances.create]}),
        (Verb.DELETE, {"instances": plan.instances.delete}),
        (Verb.RECONCILE, {"hosts": _to_look_at(c, plan)}),
    )
    for verb, body in bodies:
        part = f"{key}/{verb}" if key else None
        asked = any(body.values())
        done = (
            requests.submit(c, principal, verb, body, source=source, idempotency_key=part) if asked
            else requests.earlier(c, principal, part)
        )  # fmt: skip
        if done is not None:
            plan.operations.extend(_operations(done))
    _groups(c, blueprint.instances, plan)
    return plan


def _nouns(c: sa.Connection, principal: Principal, blueprint: Blueprint, plan: Plan) -> None:
    for cluster in blueprint.clusters:
        if cluster.name in plan.clusters.changed:
            clusters.ensure(c, principal, cluster)
    for datastore in blueprint.datastores:
        if datastore.name in plan.datastores.changed:
            datastores.ensure(c, principal, datastore)
    for network in blueprint.networks:
        if network.name in plan.networks.changed:
            networks.ensure(c, principal, network)


def _images(c: sa.Connection, principal: Principal, specs: Sequence[ImageSpec], plan: Plan) -> None:
    """Change in place what does not touch an image's content."""
    t = tables.image
    updates = {one["name"] for one in plan.images.update}
    for spec in specs:
        if spec.name in updates:
            require(principal, Verb.IMPORT, None, f"image/{spec.name}")
            c.execute(
                sa.update(t).where(t.c.live_name == spec.name).values(
                    spec=spec.model_dump(mode="json"), labels=spec.labels, min_memory_mib=spec.min_memory_mib or 0,
                    updated_at=now(),
                )
            )  # fmt: skip


def _hosts(c: sa.Connection, principal: Principal, specs: Sequence[HostSpec], plan: Plan) -> list[HostSpec]:
    """Change in place what needs no new look at a host; return those that have to be enrolled, or enrolled anew."""
    t = tables.host
    enroll = [spec for spec in specs if spec.name in plan.hosts.create]
    for spec in specs:
        if spec.name not in {one["name"] for one in plan.hosts.update}:
            continue
        host = hosts.get(c, spec.name)
        if not is_in_place(spec, host) or host.cpus <= 0:
            enroll.append(spec)
            continue
        require(principal, Verb.ENROLL, None, f"host/{spec.name}")
        values = row_values(spec, host.cluster_id)
        found = host.facts.get("cpus"), host.facts.get("memory_mib")
        values["cpus"] = float(spec.cpus or found[0] or host.cpus)
        values["memory_mib"] = int(spec.memory_mib or found[1] or host.memory_mib)
        c.execute(sa.update(t).where(t.c.id == host.id).values(version=t.c.version + 1, **values))
    return enroll


def _labels(c: sa.Connection, blueprint: Blueprint, plan: Plan) -> None:
    """Give instances new labels, in the record and in the spec that it keeps."""
    t = tables.instance
    wanted = {spec.name: spec for spec in blueprint.expanded()}
    names = [one["name"] for one in plan.instances.update]
    rows = sql.fetch_in(c, names, lambda part: sa.select(t.c.id, t.c.name, t.c.spec).where(t.c.live_name.in_(part)))
    at = now()
    sql.update_each(
        c, t,
        [{"id": row["id"], "labels": wanted[row["name"]].labels, "updated_at": at,
          "spec": {**row["spec"], "labels": wanted[row["name"]].labels}} for row in rows],
    )  # fmt: skip


def _to_look_at(c: sa.Connection, plan: Plan) -> list[str]:
    """Return the hosts that must be looked at, so that new datastores and networks reach them."""
    if not (plan.datastores.changed or plan.networks.changed):
        return []
    return [host.name for host in hosts.records(c) if host.state is HostState.READY and host.driver]


def _groups(c: sa.Connection, specs: Sequence[InstanceSpec], plan: Plan) -> None:
    """Remember of which count an instance is one, for when the count is lowered."""
    t = tables.instance
    new = set(plan.instances.create)
    for spec in specs:
        if spec.count is None:
            continue
        for names in sql.chunks([one.name for one in spec.expand() if one.name in new]):
            c.execute(sa.update(t).where(t.c.live_name.in_(names)).values(blueprint=spec.name))


def _operations(accepted: Accepted) -> list[dict[str, Any]]:
    return [
        {"id": op.id, "request": accepted.request_id, "verb": op.verb, "subject": op.subject, "name": op.subject_name,
         "state": op.state}
        for op in accepted.operations
    ]  # fmt: skip
