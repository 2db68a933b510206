"""What a blueprint would change: it is compared with the record, noun by noun; nothing is written here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from blueprints.blueprint import Blueprint
from blueprints.common import Spec
from blueprints.host import HostSpec
from blueprints.image import ImageSpec
from blueprints.instance import InstanceSpec
from control import clusters, datastores, hosts, images, networks, sql, tables
from control.accept.deploy import check_expressions, datastore_of
from control.access import Principal, sees_all
from control.hosts import HostRecord
from control.images import ImageRecord
from core.errors import Conflict, NotFound
from core.states import HostState, ImageState, InstanceState

_IMAGE_FIXED = ("kind", "source", "sha256", "format")  # content; the other fields may change in place
_HOST_IN_PLACE = (  # without looking at it anew
    "labels", "cpu_overcommit", "cpu_learned_max", "memory_overcommit", "cpus", "memory_mib",
)  # fmt: skip
_INSTANCE_FIXED = ("kind", "image", "cpu", "memory_mib", "disk_mib", "disks", "nics", "user_data", "ssh_keys",
                   "requirements", "pci", "cpu_pinning", "numa", "hugepages")  # fmt: skip


@dataclass
class Changes:
    """What happens to one noun. update and differs: {"name", "fields"}; differs: cannot be changed in place."""

    create: list[str] = field(default_factory=list)
    update: list[dict[str, Any]] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    differs: list[dict[str, Any]] = field(default_factory=list)

    def note(self, name: str, fields: Sequence[str] | None) -> None:
        """Note a noun whose every field may change in place; None: it is not there yet."""
        if fields is None:
            self.create.append(name)
        elif fields:
            self.update.append({"name": name, "fields": list(fields)})
        else:
            self.unchanged.append(name)

    @property
    def changed(self) -> set[str]:
        """Return the names of what is to be made or updated."""
        return {*self.create, *(one["name"] for one in self.update)}


@dataclass
class Plan:
    """What a blueprint changes, and what was started for it. surplus: instances beyond a lower count, kept for now.

    operations: id, verb, subject, name, state; placements: of a dry run, where new instances would be placed now.
    """

    dry_run: bool
    clusters: Changes = field(default_factory=Changes)
    datastores: Changes = field(default_factory=Changes)
    networks: Changes = field(default_factory=Changes)
    images: Changes = field(default_factory=Changes)
    hosts: Changes = field(default_factory=Changes)
    instances: Changes = field(default_factory=Changes)
    surplus: list[str] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)
    placements: list[dict[str, Any]] = field(default_factory=list)


def diff(c: sa.Connection, principal: Principal, blueprint: Blueprint, *, prune: bool, dry_run: bool) -> Plan:
    """Return what applying a blueprint would change. Raise Conflict for instances of somebody else."""
    plan = Plan(dry_run)
    simple: tuple[tuple[Changes, Sequence[Any], Callable[[sa.Connection, Any], list[str] | None]], ...] = (
        (plan.clusters, blueprint.clusters, clusters.differs),
        (plan.datastores, blueprint.datastores, datastores.differs),
        (plan.networks, blueprint.networks, networks.differs),
    )
    for changes, specs, differs in simple:
        for spec in specs:
            changes.note(spec.name, differs(c, spec))
    _images(c, blueprint.images, plan.images)
    _hosts(c, blueprint.hosts, plan.hosts)
    _instances(c, principal, blueprint, plan, prune=prune)
    return plan


def _differing(spec: Spec, recorded: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the fields that differ; what was recorded before there was a field has its default."""
    wanted, there = spec.model_dump(mode="json"), type(spec).model_validate(recorded).model_dump(mode="json")
    return [name for name in names if wanted[name] != there[name]]


def _images(c: sa.Connection, specs: Sequence[ImageSpec], changes: Changes) -> None:
    known = images.by_name(c, [spec.name for spec in specs])
    for spec in specs:
        image = known.get(spec.name)
        if image is None or image.state is ImageState.FAILED:
            changes.create.append(spec.name)
            continue
        fixed = _differing(spec, image.spec, _IMAGE_FIXED)
        if fixed:
            changes.differs.append({"name": spec.name, "fields": fixed, "needs": "another name: content never changes"})
        else:
            changes.note(spec.name, image_updates(spec, image))


def image_updates(spec: ImageSpec, image: ImageRecord) -> list[str]:
    """Return the fields of an image that change in place."""
    return _differing(spec, image.spec, ("os", "min_memory_mib", "labels"))


def _hosts(c: sa.Connection, specs: Sequence[HostSpec], changes: Changes) -> None:
    known = {host.name: host for host in hosts.records(c)} if specs else {}
    for spec in specs:
        host = known.get(spec.name)
        if host is None or (host.state is HostState.FAULTY and host.cpus <= 0):
            changes.create.append(spec.name)
        else:
            changes.note(spec.name, _differing(spec, host.spec, tuple(HostSpec.model_fields)))


def is_in_place(spec: HostSpec, host: HostRecord) -> bool:
    """Return whether a host takes over a spec without being looked at anew."""
    return set(_differing(spec, host.spec, tuple(HostSpec.model_fields))) <= set(_HOST_IN_PLACE)


def _instances(
    c: sa.Connection, principal: Principal, blueprint: Blueprint, plan: Plan, *, prune: bool
) -> None:
    wanted = {spec.name: spec for spec in blueprint.expanded()}
    t = tables.instance
    columns = (t.c.name, t.c.owner, t.c.state, t.c.spec, t.c.labels)
    known = {
        row["name"]: row
        for row in sql.fetch_in(c, wanted, lambda part: sa.select(*columns).where(t.c.live_name.in_(part)))
    }
    for name, spec in wanted.items():
        row = known.get(name)
        if row is None:
            plan.instances.create.append(name)
            continue
        _check_owner(principal, row)
        fixed = _instance_fields(spec, row["spec"])
        if row["state"] == InstanceState.FAILED:
            fixed = ["state", *fixed]
        if fixed:
            plan.instances.differs.append({"name": name, "fields": fixed, "needs": "to be deleted and made again"})
        else:
            plan.instances.note(name, ["labels"] if row["labels"] != spec.labels else [])
    beyond = _beyond(c, principal, blueprint)
    plan.instances.delete, plan.surplus = (beyond, []) if prune else ([], beyond)


def _check_owner(principal: Principal, row: sa.RowMapping) -> None:
    if not sees_all(principal) and row["owner"] != principal.name:
        name = row["name"]
        raise Conflict(f"instance {name} belongs to somebody else", f"instance/{name}", fix="choose another name")


def _instance_fields(spec: InstanceSpec, recorded: Mapping[str, Any]) -> list[str]:
    """Return the fixed fields that differ. What a spec leaves open was filled in at acceptance, and does not count."""
    open_ = {name for name, value in (("kind", spec.kind), ("nics", spec.nics)) if not value}
    full = spec.model_copy(
        update={"requirements": spec.requirements.model_copy(update={"datastore": datastore_of(spec)})}
    )
    return _differing(full, recorded, [name for name in _INSTANCE_FIXED if name not in open_])


def _beyond(c: sa.Connection, principal: Principal, blueprint: Blueprint) -> list[str]:
    """Return live instances NAME-n with n above NAME's count, of those that were made by that count."""
    counts = {spec.name: spec.count for spec in blueprint.instances if spec.count is not None}
    t = tables.instance
    rows = sql.fetch_in(
        c, counts,
        lambda part: sa.select(t.c.name, t.c.blueprint, t.c.owner)
        .where(t.c.blueprint.in_(part), t.c.live_name.is_not(None)).order_by(t.c.id),
    )  # fmt: skip
    found: list[str] = []
    for row in rows:
        number = re.fullmatch(re.escape(row["blueprint"]) + r"-(\d+)", row["name"])
        mine = sees_all(principal) or row["owner"] == principal.name
        if number and mine and int(number[1]) > counts[row["blueprint"]]:
            found.append(row["name"])
    return found


def check_references(c: sa.Connection, blueprint: Blueprint) -> None:
    """Raise NotFound for what instances, hosts, networks and datastores refer to and neither record nor file has."""
    known_networks = {*networks.records(c), *(spec.name for spec in blueprint.networks)}
    named_images = {spec.image for spec in blueprint.instances}
    known_images = {*images.by_name(c, named_images), *(spec.name for spec in blueprint.images)}
    for spec in blueprint.instances:
        missing = [("image", spec.image)] if spec.image not in known_images else []
        missing += [("network", nic.network) for nic in spec.nics if nic.network not in known_networks]
        for noun, wanted in missing:
            raise NotFound(
                f"instance {spec.name}: there is no {noun} {wanted}", f"instance/{spec.name}", {},
                f"rackflow {noun} list shows them",
            )  # fmt: skip
        check_expressions(spec)
    made = {spec.name for spec in blueprint.clusters}
    named = {spec.cluster for spec in blueprint.hosts} | {spec.cluster for spec in blueprint.networks}
    for name in (named | {spec.cluster for spec in blueprint.datastores}) - {None} - made:
        clusters.id_of(c, str(name))
