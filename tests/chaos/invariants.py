"""What must be so when all is quiet again: record and world agree, both ways, and what the guest wrote is there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any

import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import tables
from control.lifecycle import PASSING
from core.ids import on_host
from core.states import UNFINISHED, ImageState, InstanceKind, InstanceState, OperationState, PowerState
from drivers.fake_things import FakeHost, FakeInstance
from drivers.fake_world import world
from tests.chaos.scene import host_names
from tests.integration.line import Line

S = InstanceState
POWER = {S.RUNNING: PowerState.RUNNING, S.SUSPENDED: PowerState.PAUSED, S.OFF: PowerState.STOPPED}
PARKED = (S.STOPPED, S.UNDEPLOYED)


_OP = tables.operation
_OPERATIONS = sa.select(_OP.c.id, _OP.c.verb, _OP.c.subject, _OP.c.state, _OP.c.reason, _OP.c.started_at)


@cache
def _select(table: sa.Table, column: str) -> sa.Select[Any]:
    return sa.select(table).where(table.c[column] == sa.bindparam("value")) if column else sa.select(table)


class Look:
    """The record, each part of it read once and when it is first asked for, and the world as it is."""

    def __init__(self, line: Line) -> None:
        self.line = line

    @cached_property
    def hosts(self) -> dict[str | None, str]:
        return host_names(self.line)

    @cached_property
    def instances(self) -> list[dict[str, Any]]:
        return self._rows(tables.instance)

    @cached_property
    def operations(self) -> list[dict[str, Any]]:
        return self._read(_OPERATIONS)

    def _rows(self, table: sa.Table, column: str = "", value: str = "") -> list[dict[str, Any]]:
        """Return a table's rows; only those with a value in a column, if one is named."""
        return self._read(_select(table, column), value=value)

    def _read(self, statement: sa.Select[Any], **values: str) -> list[dict[str, Any]]:
        found = self.line.store.read_now(lambda c: c.execute(statement, values).mappings().all())
        return [dict(row) for row in found]

    # the ledger

    def unfinished(self) -> list[str]:
        return [f"{op['verb']} is {op['state']}: {op['reason']}" for op in self.operations if op["state"] in UNFINISHED]

    def held(self) -> list[str]:
        return [op["id"] for op in self.operations if op["state"] == OperationState.HELD]

    def passing(self) -> list[str]:
        return [f"{row['name']} is {row['state']}" for row in self.instances if row["state"] in PASSING]

    # the world

    @cached_property
    def leaked(self) -> list[str]:
        """What is somewhere and belongs to nothing, or is missing where it belongs."""
        found = [*self._definitions(), *self._files(), *self._vaults(), *self._images()]
        for row in self.instances:
            found += [f"{row['name']} ({row['state']}): {what}" for what in self._held_by(row)]
        drift = self._rows(tables.drift, "state", "open")
        return found + [f"drift {row['kind']} on {row['host']}: {row['seen']}" for row in drift]

    def harm(self) -> list[str]:
        return list(world.harm)

    def place(self, row: dict[str, Any]) -> FakeHost | None:
        return world.hosts.get(self.hosts.get(row["host_id"], ""))

    def _definitions(self) -> Iterator[str]:
        on = {on_host(row["id"]): self.hosts.get(row["host_id"]) for row in self.instances}
        for host in world.hosts.values():
            for name, instance in host.instances.items():
                if instance.spec is not None and on.get(name) != host.name:
                    yield f"definition {instance.power} of {name} on {host.name}, the record has it on {on.get(name)}"

    def _held_by(self, row: dict[str, Any]) -> Iterator[str]:
        """Yield what is wrong with what an instance holds: host, power, disks, leases, reservations."""
        spec, host = InstanceSpec.model_validate(row["spec"]), self.place(row)
        leases = self._rows(tables.lease, "instance_id", row["id"])
        here = row["state"] in POWER
        if here is not (host is not None) and row["state"] != S.HELD:
            yield f"its host is {host and host.name}"
        if row["other_host_id"] or row["other_datastore_id"]:
            yield f"reserved on {self.hosts.get(row['other_host_id'])} as well"
        if here and {lease["nic_index"] for lease in leases} != set(spec.nic_numbers()):
            yield f"leases {[lease['nic_index'] for lease in leases]} for nics {spec.nic_numbers()}"
        if row["state"] in (S.FAILED, S.DELETED) and leases:
            yield f"{len(leases)} leases"
        if (row["cpu"], row["memory_mib"]) != (spec.cpu, spec.memory_mib):
            yield f"reserved {row['cpu']} cores, {row['memory_mib']} MiB, wanted {spec.cpu}, {spec.memory_mib}"
        if host is not None:
            yield from self._there(row, spec, host)

    def _there(self, row: dict[str, Any], spec: InstanceSpec, host: FakeHost) -> Iterator[str]:
        instance = host.instances.get(on_host(row["id"]))
        if instance is None or instance.spec is None:
            yield f"no definition on {host.name}"
            return
        if row["state"] in POWER and instance.power is not POWER[S(row["state"])]:
            yield f"is {instance.power} on {host.name}"
        seen = instance.spec
        if (seen.cpu, seen.memory_mib, len(seen.nics)) != (spec.cpu, spec.memory_mib, len(spec.nics)):
            yield f"defined with {seen.cpu} cores, {seen.memory_mib} MiB, {len(seen.nics)} nics"
        wanted = {"root", *(disk.name for disk in spec.disks)}
        writable = {disk.name for disk in seen.disks if not disk.read_only}
        there = {volume.name for volume in host.disks(instance)}
        if not wanted == writable == there:
            yield f"disks wanted {sorted(wanted)}, defined {sorted(writable)}, there {sorted(there)}"
        known = {one["name"] for one in self._rows(tables.snapshot, "instance_id", row["id"])}
        kept = {*instance.snapshots, *(s for volume in host.disks(instance) for s in volume.snapshots)}
        if known != kept:
            yield f"snapshots {sorted(kept)}, the record has {sorted(known)}"
        yield from self._left_on_disks(row, host, instance)

    def _left_on_disks(self, row: dict[str, Any], host: FakeHost, instance: FakeInstance) -> Iterator[str]:
        backups = {one["id"] for one in self._rows(tables.backup, "instance_id", row["id"])}
        for volume in host.disks(instance):
            if strange := sorted(set(volume.checkpoints) - backups):
                yield f"checkpoints {strange} on {volume.name}"
            if volume.before is not None:
                yield f"{volume.name} of before a restore"

    def _files(self) -> Iterator[str]:
        """Yield files in datastores that nobody owns; a store that all hosts see is looked at once."""
        rows = {row["id"]: row for row in self.instances}
        stores = {id(s): (host, path, s) for host in world.hosts.values() for path, s in host.stores.items()}
        for host, path, store in stores.values():
            for instance_id in {*store.volumes, *store.seeds}:
                row = rows.get(instance_id)
                pool = row is not None and row["kind"] == InstanceKind.CONTAINER
                if row is None or pool or self.place(row) is None or self.place(row).stores.get(path) is not store:  # type: ignore[union-attr]
                    yield f"{host.name}:{path}: disks {sorted(store.volumes.get(instance_id, ()))} of {instance_id}"
                    continue
                spec = InstanceSpec.model_validate(row["spec"])
                strange = set(store.volumes.get(instance_id, ())) - {"root", *(disk.name for disk in spec.disks)}
                if strange:
                    yield f"{host.name}:{path}: disks {sorted(strange)} of {instance_id}"
            yield from (f"{host.name}:{path}: file {name}" for name in store.files)
            yield from (f"{host.name}:{path}: scratch of {one}" for one in store.scratch)

    def _vaults(self) -> Iterator[str]:
        """Yield what the front-end keeps of instances and backups that do not say so, and the other way round."""
        paths = self.line.settings.paths
        parked = {one.name for one in paths.parked_dir.iterdir()} if paths.parked_dir.is_dir() else set()
        wanted = {row["id"] for row in self.instances if row["state"] in PARKED}
        held = {row["id"] for row in self.instances if row["state"] == S.HELD and row["host_id"] is None}
        if wanted != parked - held:
            yield f"parked: {sorted(parked)}, the record has {sorted(wanted)}"
        kept = {one.name for one in paths.backups_dir.iterdir()} if paths.backups_dir.is_dir() else set()
        ready = {row["id"] for row in self._rows(tables.backup) if row["state"] == "ready"}
        if kept != ready:
            yield f"backups: {sorted(kept)}, the record has {sorted(ready)}"

    def _images(self) -> Iterator[str]:
        rows = self._rows(tables.image)
        for row in rows:
            if row["live_name"] and row["state"] not in (ImageState.READY, ImageState.FAILED):
                yield f"image {row['name']} is {row['state']}"
        contents = {row["sha256"] for row in rows if row["state"] == ImageState.READY}
        files = {path.name.split(".")[0] for path in self.line.settings.paths.images_dir.iterdir()}
        if files != contents:
            yield f"image files {sorted(files)}, the record has {sorted(contents)}"
        known = self._rows(tables.image_copy)
        copies = {(self.hosts[row["host_id"]], row["sha256"]) for row in known if row["state"] == "ready"}
        there = {(host.name, sha) for host in world.hosts.values() for sha in host.images}
        there |= {(host.name, sha) for host in world.hosts.values() for s in host.stores.values() for sha in s.images}
        if missing := copies - there:
            yield f"copies of images that are not there: {sorted(missing)}"
        recorded = {row["sha256"] for row in known}
        if strange := {one for one in there if one[1] not in recorded}:
            yield f"copies of images that nobody knows: {sorted(strange)}"

    # what the guest wrote

    def data(self, instance_id: str) -> list[str] | None:
        """Return what its root disk holds wherever the record has it; None: it is to be nowhere."""
        (row,) = [row for row in self.instances if row["id"] == instance_id]
        if row["state"] in (S.DELETED, S.FAILED, S.PENDING, S.ON_HOLD):
            return None
        host = self.place(row)
        if host is not None:
            instance = host.instances.get(on_host(instance_id))
            return [v.content for v in host.disks(instance) if v.name == "root"] if instance else []
        folder = self.line.settings.paths.parked_dir / instance_id
        return [path.read_bytes().decode("latin-1") for path in folder.iterdir()] if folder.is_dir() else []

    def memory(self, instance_id: str) -> str | None:
        """Return what it holds in its memory; None: it holds none."""
        for host in world.hosts.values():
            instance = host.instances.get(on_host(instance_id))
            if instance is not None and instance.is_on:
                return instance.memory
        return None
