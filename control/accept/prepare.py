"""What is looked at before a verb on an instance is accepted, beside its state: one function per verb that needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from blueprints.image import ImageSpec
from blueprints.instance import InstanceSpec
from control import backups, datastores, hosts, images, networks, quotas, snapshots, tables
from control.accept.image import row_for
from control.access import Principal
from control.changes import changed
from core.clock import now
from core.errors import Conflict, Invalid, NotFound, Unsupported, no_such
from core.states import HostState, InstanceKind, InstanceState, Verb

Parameters = dict[str, Any]
Prepare = Callable[[sa.Connection, Principal, Verb, sa.RowMapping, Parameters], tuple[Verb, Parameters]]
_T = tables.instance


def _spec(row: sa.RowMapping) -> InstanceSpec:
    return InstanceSpec.model_validate(row["spec"])


def _plain(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    changed(verb, _spec(row), given)
    return verb, given


def _leave(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    snapshots.require_none(c, row, verb)
    return verb, given


def _stop(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    if devices := (row["granted"] or {}).get("pci"):
        raise Unsupported(
            f"{row['name']} has devices of its host for itself: what they hold cannot be saved",
            f"instance/{row['name']}", {"pci": devices}, f"rackflow instance undeploy {row['name']}",
        )  # fmt: skip
    return _leave(c, who, verb, row, given)


def _keep_size(row: sa.RowMapping) -> None:
    if row["granted"]:
        raise Unsupported(
            f"{row['name']} has cores, pages or devices of its host for itself: its size stays",
            f"instance/{row['name']}", {"granted": row["granted"]}, "make another one of the size that is wanted",
        )  # fmt: skip


def _migrate(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    snapshots.require_none(c, row, "a migration")
    target = hosts.get(c, given["host"]) if given.get("host") is not None else None
    if target is not None and target.id == row["host_id"]:
        raise Conflict(f"instance {row['name']} is on {target.name} already", f"instance/{row['name']}")
    if target is not None and target.driver != row["driver"]:
        given = _without_live(row, given, target.driver)
    return migration(row, given)


def _without_live(row: Mapping[Any, Any], given: Parameters, driver: str) -> Parameters:
    """Return a migration to another kind of host: what runs is shut down for it. Raise Unsupported (live). Pure."""
    if given.get("live"):
        raise Unsupported(
            f"{row['name']} cannot be moved live from {row['driver']} to {driver}: its disks are converted",
            f"instance/{row['name']}", {"from": row["driver"], "to": driver}, "leave --live out: it is shut down",
        )  # fmt: skip
    return {**given, "live": False}


def migration(row: Mapping[Any, Any], given: Parameters) -> tuple[Verb, Parameters]:
    """Return which migration it comes to, with its parameters. Raise Conflict: live, though it does not run. Pure."""
    runs = row["state"] == InstanceState.RUNNING
    can = bool((row["capabilities"] or {}).get("migrate_live")) and not row["granted"]
    if given.get("live") and not runs:
        raise Conflict(
            f"instance {row['name']} is {row['state']}: only what runs migrates live", f"instance/{row['name']}", {},
            "leave --live out",
        )  # fmt: skip
    if given.get("live") and row["granted"]:
        raise Unsupported(
            f"{row['name']} has cores, pages or devices of its host for itself: it moves while it is off only",
            f"instance/{row['name']}", {"granted": row["granted"]}, "leave --live out",
        )  # fmt: skip
    live = runs and can if given.get("live") is None else bool(given["live"])
    return (Verb.MIGRATE_LIVE if live else Verb.MIGRATE), {**given, "live": live}


def _rename(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    taken = c.execute(sa.select(_T.c.id).where(_T.c.live_name == given["name"])).first()
    if taken is not None and taken.id != row["id"]:
        raise Conflict(
            f"instance {given['name']} exists already", f"instance/{given['name']}", {}, "choose another name"
        )
    return verb, given


def _resize(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    _keep_size(row)
    want = changed(verb, _spec(row), given)
    image = images.records(c, [row["image_id"]]).get(row["image_id"]) if row["image_id"] else None
    if image is not None and want.memory_mib < image.min_memory_mib:
        raise Invalid(
            f"{row['name']}: image {image.name} needs {image.min_memory_mib} MiB of memory, not {want.memory_mib}",
            f"instance/{row['name']}", {"memory_mib": want.memory_mib, "min_memory_mib": image.min_memory_mib},
        )  # fmt: skip
    more = quotas.Amount(0, max(0.0, want.cpu - row["cpu"]), max(0, want.memory_mib - row["memory_mib"]))
    quotas.check(c, Principal(who.id, row["owner"], who.role), more)
    return verb, given


def _attach_disk(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    changed(verb, _spec(row), given)
    wanted = given["disk"].get("datastore")
    here = datastores.by_id(c, [row["datastore_id"]]).get(row["datastore_id"])
    if wanted and here is not None and here.name != wanted:
        raise Unsupported(
            f"{row['name']}: all disks of an instance lie on one datastore", f"instance/{row['name']}",
            {"datastore": here.name, "wanted": wanted}, f"leave the datastore out: {here.name} is taken",
        )  # fmt: skip
    return verb, given


def _attach_nic(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    network = given["nic"]["network"]
    if network not in networks.records(c):
        raise no_such("network", network)
    want = changed(verb, _spec(row), given)
    return verb, {**given, "nic": want.nics[-1].model_dump(mode="json")}


def _snapshot(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    snapshots.require_free(c, row["id"], row["name"], given["snapshot"])
    runs = row["state"] == InstanceState.RUNNING
    disk = given.get("disk")
    known = ["root", *(d.name for d in _spec(row).disks)]
    if disk is not None and disk not in known:
        raise NotFound(f"{row['name']} has no disk {disk}", f"instance/{row['name']}", {"disks": known})
    if disk is not None and runs:
        raise Conflict(
            f"{row['name']} runs: a snapshot of one disk needs it off", f"instance/{row['name']}", {},
            f"rackflow instance shutdown {row['name']}, or snapshot all of it",
        )  # fmt: skip
    live = bool((row["capabilities"] or {}).get("snapshot_live")) and not (row["granted"] or {}).get("pci")
    if given.get("memory") and not (runs and live):
        why = f"{row['driver']} keeps no memory in snapshots" if runs else "it does not run"
        raise Unsupported(f"{row['name']} has no memory to snapshot: {why}", f"instance/{row['name']}")
    memory = given.get("memory")
    return verb, {**given, "memory": runs and live if memory is None else bool(memory), "disk": disk or ""}


def _revert(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    found = snapshots.get(c, row["id"], row["name"], given["snapshot"])
    if found.disk and row["state"] != InstanceState.OFF:
        raise Conflict(
            f"{row['name']} runs: one disk goes back only when it is off", f"instance/{row['name']}", {},
            f"rackflow instance shutdown {row['name']}",
        )  # fmt: skip
    then = InstanceState.RUNNING if found.memory else row["state"]
    return verb, {**given, "disk": found.disk, "memory": found.memory, "then": then}


def _drop_snapshot(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    found = snapshots.get(c, row["id"], row["name"], given["snapshot"])
    return verb, {**given, "disk": found.disk}


def _save_image(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    """Make the row of the new image, which is pending until its content is there."""
    name = given["image"]
    if images.by_name(c, [name]):
        raise Conflict(f"image {name} exists already", f"image/{name}", {}, "choose another name")
    known = ["root", *(d.name for d in _spec(row).disks)]
    if given.get("disk", "root") not in known:
        raise NotFound(f"{row['name']} has no disk {given['disk']}", f"instance/{row['name']}", {"disks": known})
    spec = ImageSpec(name=name, kind=row["kind"], source=f"instance/{row['name']}", **_boot(c, row))
    return verb, {**given, "disk": given.get("disk", "root"), "image_id": row_for(c, spec)}


def _boot(c: sa.Connection, row: sa.RowMapping) -> dict[str, str]:
    """Return what the image of an instance says of its boot: an image that is made of it boots alike."""
    said = images.records(c, [row["image_id"]])[row["image_id"]].spec if row["image_id"] else {}
    return {name: said[name] for name in ("kernel", "boot_args") if said.get(name)}


def _backup(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    name = given.get("backup") or f"b-{now():%Y%m%d-%H%M%S}"
    parent = backups.newest(c, row["id"]) if given.get("incremental", True) else None
    row_id = backups.begin(c, row, name, parent.id if parent else None)
    since = parent.id if parent else ""
    return verb, {**given, "backup": name, "backup_id": row_id, "since": since}


def _revert_backup(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    snapshots.require_none(c, row, "going back to a backup", carried=False)
    found = backups.get(c, row["id"], row["name"], given["backup"])
    return verb, {**given, "backup_id": found.id}


def _failover(
    c: sa.Connection, who: Principal, verb: Verb, row: sa.RowMapping, given: Parameters
) -> tuple[Verb, Parameters]:
    """Raise Conflict unless its host is off for certain, Unsupported when its disks are seen from that host only."""
    host = hosts.get(c, row["host_id"]) if row["host_id"] else None
    if host is None or host.state is not HostState.FENCED:
        on = f"its host {host.name} is {host.state}, not fenced" if host else "it is on no host"
        raise Conflict(
            f"instance {row['name']} cannot start elsewhere: {on}", f"instance/{row['name']}",
            {"host": host.name if host else None}, "migrate it",
        )  # fmt: skip
    store = datastores.by_id(c, [row["datastore_id"]] if row["datastore_id"] else []).get(row["datastore_id"])
    if store is None or not store.shared or row["kind"] == InstanceKind.CONTAINER:  # its hypervisor holds its disks
        raise Unsupported(
            f"instance {row['name']} cannot start elsewhere: its disks are on {host.name} only",
            f"instance/{row['name']}", {"host": host.name}, "power its host on again, or restore a backup",
        )  # fmt: skip
    if not given.get("then"):
        given = {**given, "then": InstanceState.RUNNING if row["state"] != InstanceState.OFF else InstanceState.OFF}
    return verb, given


PREPARE: Mapping[Verb, Prepare] = {
    Verb.STOP: _stop,
    Verb.UNDEPLOY: _leave,
    Verb.MIGRATE: _migrate,
    Verb.RENAME: _rename,
    Verb.RESIZE: _resize,
    Verb.ATTACH_DISK: _attach_disk,
    Verb.DETACH_DISK: _plain,
    Verb.GROW_DISK: _plain,
    Verb.ATTACH_NIC: _attach_nic,
    Verb.DETACH_NIC: _plain,
    Verb.SNAPSHOT: _snapshot,
    Verb.REVERT: _revert,
    Verb.DROP_SNAPSHOT: _drop_snapshot,
    Verb.SAVE_IMAGE: _save_image,
    Verb.BACKUP: _backup,
    Verb.REVERT_BACKUP: _revert_backup,
    Verb.FAILOVER: _failover,
}
