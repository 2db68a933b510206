"""Deploy: names free, images and networks there, quota left; then rows of instances, state pending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from blueprints.instance import PRIORITY, InstanceSpec, NicSpec
from control import addresses, clusters, hosts, images, networks, outbox, quotas, reservations, sql, tables
from control.accept.draft import Draft, check_keys, check_unique, specs, unfinished
from control.access import Principal, require, sees_all
from control.datastores import by_name as datastores_by_name
from control.images import ImageRecord, unusable
from control.instances import lifecycle_event
from control.networks import NetworkRecord
from control.placement.expressions import Type, parse
from control.waiting import NEVER
from core.clock import now
from core.errors import Conflict, Denied, Invalid, NotFound, Unsupported, no_such
from core.ids import new_id
from core.states import UNFINISHED, ImageState, InstanceKind, InstanceState, Verb

_T = tables.instance
_LIVING = sa.select(_T.c.live_name).where(sql.among(_T.c.live_name))
_COMING = (ImageState.PENDING, ImageState.IMPORTING)


@dataclass(frozen=True)
class Nouns:
    """All that the specs of one request refer to."""

    images: dict[str, ImageRecord]
    networks: dict[str, NetworkRecord]


def accept(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Make rows of instances. Raise Invalid, Conflict (name taken), NotFound, Denied (access, quota), Unsupported."""
    check_keys(body, ("instances", "blueprint", "hold"))
    asked = specs(body, "instances", InstanceSpec)
    wanted = [one for spec in asked for one in spec.expand()]
    require(principal, Verb.DEPLOY, principal.name, "instances")
    if not wanted:
        raise Invalid("count is 0: nothing was asked for", "request")
    check_unique([spec.name for spec in wanted], "instance")
    check_names_free(c, [spec.name for spec in wanted])
    nouns = Nouns(images.by_name(c, {spec.image for spec in wanted}, lock=True), networks.records(c))
    settled = [settle(spec, nouns) for spec in wanted]
    check_places(c, principal, settled)
    check_addresses(c, settled, nouns)
    _check_quota(c, principal, settled)
    _check_priority(principal, settled)
    label = str(body.get("blueprint") or "")
    groups = {one.name: label if spec.count is None else spec.name for spec in asked for one in spec.expand()}
    return _enter(c, principal, settled, nouns, groups, hold=bool(body.get("hold")))


def check_names_free(c: sa.Connection, names: Sequence[str]) -> None:
    """Raise Conflict when an instance of one of these names lives."""
    rows = sql.fetch_among(c, names, _LIVING)
    taken = sorted(row["live_name"] for row in rows)
    if taken:
        raise Conflict(
            f"instance {taken[0]} exists already" + (f", and {len(taken) - 1} more" if taken[1:] else ""),
            f"instance/{taken[0]}", {"taken": taken}, "choose another name, or delete it first",
        )  # fmt: skip


def settle(spec: InstanceSpec, nouns: Nouns) -> InstanceSpec:
    """Return the spec with kind and NICs filled in. Raise NotFound, Conflict, Invalid, Unsupported."""
    image = nouns.images.get(spec.image)
    subject = f"instance/{spec.name}"
    if image is None:
        raise NotFound(
            f"instance {spec.name}: there is no image {spec.image}", f"image/{spec.image}", {"instance": spec.name},
            "rackflow image list shows them",
        )  # fmt: skip
    if image.state is not ImageState.READY and image.state not in _COMING:
        raise unusable(image)
    kind = spec.kind or image.kind
    if kind is not image.kind:
        raise Invalid(
            f"{spec.name} is a {kind}, but image {image.name} is for a {image.kind}", subject, {"image": image.name}
        )
    if spec.memory_mib < image.min_memory_mib:
        raise Invalid(
            f"{spec.name}: image {image.name} needs {image.min_memory_mib} MiB of memory, not {spec.memory_mib}",
            subject, {"memory_mib": spec.memory_mib, "min_memory_mib": image.min_memory_mib},
        )  # fmt: skip
    check_root(spec, image)
    where = spec.requirements.model_copy(update={"datastore": datastore_of(spec)})
    return spec.model_copy(
        update={"kind": kind, "nics": _nics(spec, kind, nouns.networks), "requirements": where}
    )


def datastore_of(spec: InstanceSpec) -> str | None:
    """Return the datastore that an instance's disks name. Raise Unsupported when they name several."""
    named = {disk.datastore for disk in spec.disks if disk.datastore}
    if spec.requirements.datastore:
        named.add(spec.requirements.datastore)
    if len(named) > 1:
        raise Unsupported(
            f"{spec.name}: all disks of an instance lie on one datastore", f"instance/{spec.name}",
            {"datastores": sorted(named)}, "name one of them only",
        )  # fmt: skip
    return next(iter(named), None)


def check_root(spec: InstanceSpec, image: ImageRecord) -> None:
    """Raise Invalid for a root disk smaller than the image."""
    if spec.disk_mib is not None and spec.disk_mib < image.virtual_size_mib:
        raise Invalid(
            f"{spec.name}: a disk of {spec.disk_mib} MiB is too small for image {image.name}", f"instance/{spec.name}",
            {"disk_mib": spec.disk_mib, "image_mib": image.virtual_size_mib},
            f"ask for at least {image.virtual_size_mib} MiB",
        )  # fmt: skip


def _nics(spec: InstanceSpec, kind: InstanceKind, known: Mapping[str, NetworkRecord]) -> tuple[NicSpec, ...]:
    for nic in spec.nics:
        if nic.network not in known:
            raise NotFound(
                f"instance {spec.name}: there is no network {nic.network}", f"network/{nic.network}",
                {"instance": spec.name}, "rackflow network list shows them",
            )  # fmt: skip
    if spec.nics:
        return spec.nics
    for net in known.values():
        if kind in net.default_for:
            return (NicSpec(network=net.name),)
    raise Invalid(
        f"{spec.name} names no network, and no network is the default for a {kind}", f"instance/{spec.name}",
        {"networks": sorted(known)}, f"name one in nics, or make one with default_for: [{kind}]",
    )  # fmt: skip


def check_places(c: sa.Connection, principal: Principal, wanted: Sequence[InstanceSpec]) -> None:
    """Raise NotFound for a cluster, host, datastore or reservation that is required and not there, Invalid, Denied."""
    for spec in wanted:
        check_expressions(spec)
    reservations.check_usable(c, principal, {s.requirements.reservation for s in wanted if s.requirements.reservation})
    for name in {spec.requirements.cluster for spec in wanted} - {None}:
        clusters.id_of(c, str(name))
    named = {spec.requirements.host for spec in wanted if spec.requirements.host}
    if named:
        hosts.records(c, named)
    stores = {spec.requirements.datastore for spec in wanted if spec.requirements.datastore}
    missing = sorted(stores - set(datastores_by_name(c, stores)))
    if missing:
        raise no_such("datastore", *missing)


def check_expressions(spec: InstanceSpec) -> None:
    """Raise Invalid for a requirement or rank that cannot be understood, with where it goes wrong."""
    for field, wanted in (("where", Type.TRUTH), ("rank", Type.NUMBER)):
        text = str(getattr(spec.requirements, field))
        try:
            if text:
                parse(text, wanted)
        except Invalid as error:
            raise Invalid(
                f"{spec.name}: requirements.{field}: {error.message}", f"instance/{spec.name}", {field: text},
                "docs/placement.md shows the language",
            ) from error  # fmt: skip


def check_addresses(c: sa.Connection, wanted: Sequence[InstanceSpec], nouns: Nouns) -> None:
    """Raise Invalid or Conflict for a fixed address that its network cannot give, or that somebody holds."""
    fixed = [(spec.name, nic.network, str(nic.address)) for spec in wanted for nic in spec.nics if nic.address]
    if not fixed:
        return
    check_unique([f"{network} {address}" for _, network, address in fixed], "address")
    ids = {nouns.networks[network].id for _, network, _ in fixed}
    ranges, leased = networks.ranges(c, ids), networks.leased(c, ids)
    for name, network, address in fixed:
        net = nouns.networks[network]
        evidence = {"network": network, "address": address}
        try:
            number = addresses.number(address)
        except ValueError as error:
            raise Invalid(f"{name}: {address} is not an address", f"instance/{name}", evidence) from error
        unusable = number in addresses.reserved(net.subnet, net.gateway)
        if net.addressing == "dhcp" or unusable or addresses.range_with(ranges[net.id], number) is None:
            raise Invalid(
                f"{name}: network {network} has no address {address} to give", f"instance/{name}", evidence,
                f"rackflow network show {network} has its ranges",
            )  # fmt: skip
        if number in leased[net.id]:
            holder = leased[net.id][number]
            raise Conflict(
                f"{name}: {address} is leased to another instance", f"instance/{name}", {**evidence, "instance": holder}
            )


def _check_quota(c: sa.Connection, principal: Principal, wanted: Sequence[InstanceSpec]) -> None:
    more = quotas.Amount(len(wanted), sum(spec.cpu for spec in wanted), sum(spec.memory_mib for spec in wanted))
    quotas.check(c, principal, more)


def _check_priority(principal: Principal, wanted: Sequence[InstanceSpec]) -> None:
    high = [spec for spec in wanted if spec.priority > PRIORITY]
    if high and not sees_all(principal):
        raise Denied(
            f"{high[0].name}: {principal.name} may not ask for priority {high[0].priority}",
            f"instance/{high[0].name}", {"priority": high[0].priority, "most": PRIORITY},
            f"ask for {PRIORITY} at most, or an operator",
        )  # fmt: skip


def disk_mib(spec: InstanceSpec, image: ImageRecord) -> int:
    """Return the size of all disks of an instance together, in MiB."""
    return (spec.disk_mib or image.virtual_size_mib) + sum(disk.size_mib for disk in spec.disks)


def _enter(
    c: sa.Connection, principal: Principal, wanted: Sequence[InstanceSpec], nouns: Nouns, groups: Mapping[str, str], *,
    hold: bool,
) -> list[Draft]:  # fmt: skip
    after = _coming(c, [image for image in nouns.images.values() if image.state in _COMING])
    state = InstanceState.ON_HOLD if hold else InstanceState.PENDING
    reason = f"held by {principal.name}" if hold else ""
    at = now()
    ids = sorted(new_id() for _ in wanted)  # so that lists show them in the order asked for
    rows = [
        {
            "id": row_id, "name": spec.name, "live_name": spec.name, "kind": spec.kind,
            "state": state, "owner": principal.name, "cpu": spec.cpu, "memory_mib": spec.memory_mib,
            "disk_mib": disk_mib(spec, nouns.images[spec.image]), "image_id": nouns.images[spec.image].id,
            "host_id": None, "datastore_id": None, "spec": spec.model_dump(mode="json"), "labels": spec.labels,
            "blueprint": groups[spec.name], "epoch": 0, "reason": reason, "created_at": at, "updated_at": at,
            "deleted_at": None,
        }
        for row_id, spec in zip(ids, wanted, strict=True)
    ]  # fmt: skip
    sql.insert(c, _T, rows)
    outbox.emit_all(c, [
        lifecycle_event({**row, "host": None, "image": spec.image}, None, state, reason)
        for row, spec in zip(rows, wanted, strict=True)
    ])  # fmt: skip
    return [
        Draft(
            f"instance/{row['id']}", spec.name, {"gang": spec.gang} if spec.gang else {},
            after_id=after.get(spec.image), not_before=NEVER if hold else None, priority=spec.priority,
        )
        for row, spec in zip(rows, wanted, strict=True)
    ]  # fmt: skip


def _coming(c: sa.Connection, coming: Sequence[ImageRecord]) -> dict[str, str]:
    """Return image name -> id of the operation that brings its content: an import, or one that saves an instance."""
    if not coming:
        return {}
    imports = unfinished(c, {f"image/{image.id}" for image in coming})
    op = tables.operation
    saves = c.execute(
        sa.select(op.c.id, op.c.parameters).where(op.c.verb == Verb.SAVE_IMAGE, op.c.state.in_(UNFINISHED))
    )
    found = {row.parameters.get("image_id"): row.id for row in saves}
    found.update({ops[-1].subject_id: ops[-1].id for ops in imports.values()})
    return {image.name: found[image.id] for image in coming if image.id in found}
